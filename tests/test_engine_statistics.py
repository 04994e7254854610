"""Entropy, KL, top-k, expectations and argmax in chunks against float64 over all logits, and their identities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.engine.head import module_log_probs
from boresight.engine.statistics import (
    Head,
    argmax,
    correct,
    entropy,
    expectation,
    kl,
    log_probs_at,
    through_head,
    top_k,
)
from boresight.errors import InputError
from heads import Made

TOKENS, WIDTH, VOCABULARY = 11, 5, 23
FORMS = [(1.0, None), (0.25, None), (-1.5, 3.0)]
TILES = [1, 3 * VOCABULARY, 10**6]


def tensor(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()


def full(hidden, weight, bias, scale, cap):
    """Probabilities over the vocabulary by the definition."""
    logits = scale * (hidden.double() @ weight.double().T + bias.double())
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    powers = (logits - logits.detach().max(1, keepdim=True).values).exp()
    return powers / powers.sum(1, keepdim=True)


def case(dtype=torch.float64, seed=0):
    return (
        tensor(TOKENS, WIDTH, seed=seed, dtype=dtype),
        tensor(VOCABULARY, WIDTH, seed=seed + 1, dtype=dtype),
        tensor(VOCABULARY, seed=seed + 2, dtype=dtype),
    )


def gradients(values, *leaves):
    seed = tensor(*values.shape, seed=9).detach().to(values.dtype)
    return torch.autograd.grad((values * seed).sum(), leaves, retain_graph=True)


def agree(ours, truth, leaves, bound=1e-11):
    torch.testing.assert_close(ours.double(), truth, rtol=bound, atol=bound)
    for a, b in zip(gradients(ours, *leaves), gradients(truth, *leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=10 * bound, atol=10 * bound)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("scale", "cap"), FORMS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_all_of_them_equal_their_definitions_and_so_do_their_gradients(tile, scale, cap, dtype, bound):
    hidden, weight, bias = case(dtype)
    hidden_q, weight_q, bias_q = case(dtype, seed=5)
    head = Head.of_weight(weight, bias, scale=scale, cap=cap)
    head_q = Head.of_weight(weight_q, bias_q, scale=scale, cap=cap)
    p, q = full(hidden, weight, bias, scale, cap), full(hidden_q, weight_q, bias_q, scale, cap)
    one, both = (hidden, weight, bias), (hidden, weight, bias, hidden_q, weight_q, bias_q)
    agree(entropy(head, hidden, tile=tile), -(p * p.log()).sum(1), one, bound)
    agree(kl(head, hidden, head_q, hidden_q, tile=tile), (p * (p / q).log()).sum(1), both, bound)
    agree(kl(head_q, hidden_q, head, hidden, tile=tile), (q * (q / p).log()).sum(1), both, bound)
    for values in (tensor(VOCABULARY, seed=7, dtype=dtype), tensor(VOCABULARY, 3, seed=8, dtype=dtype)):
        agree(expectation(head, hidden, values, tile=tile), p @ values.double(), (*one, values), bound)
    logs, index = top_k(head, hidden, 4, tile=tile)
    order = p.argsort(1, descending=True)[:, :4]
    assert torch.equal(index, order)
    agree(logs, p.gather(1, order).log(), one, bound)
    agree(log_probs_at(head, hidden, order.flip(1), tile=tile), p.gather(1, order.flip(1)).log(), one, bound)
    assert torch.equal(argmax(head, hidden, tile=tile), order[:, 0])
    targets = torch.where(torch.arange(TOKENS) % 2 == 0, order[:, 0], order[:, 1])
    assert correct(head, hidden, targets, tile=tile).tolist() == [i % 2 == 0 for i in range(TOKENS)]


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 30), st.integers(1, 200), st.floats(0.01, 30.0))
def test_identities_at_any_shape(tokens, width, vocabulary, tile, size):
    hidden, weight = size * tensor(tokens, width, seed=tokens).detach(), tensor(vocabulary, width, seed=1).detach()
    other = Head.of_weight(tensor(vocabulary, width, seed=2).detach())
    head = Head.of_weight(weight)
    h = entropy(head, hidden, tile=tile)
    assert ((h >= -1e-12) & (h <= math.log(vocabulary) + 1e-12)).all()
    assert not kl(head, hidden, head, hidden, tile=tile).any()
    assert (kl(head, hidden, other, hidden, tile=tile) >= -1e-12).all()
    ones = torch.ones(vocabulary, dtype=torch.float64)
    torch.testing.assert_close(expectation(head, hidden, ones, tile=tile), torch.ones(tokens, dtype=torch.float64))
    logs, index = top_k(head, hidden, vocabulary, tile=tile)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(tokens, dtype=torch.float64))
    assert torch.equal(index.sort(1).values, torch.arange(vocabulary).expand(tokens, -1))
    # cross-entropy = entropy + KL, the cross-entropy by expectation of -log q, one token at a time
    for i in range(tokens):
        log_q = torch.log_softmax(other.logits(hidden[i : i + 1]), 1)[0]
        crossed = expectation(head, hidden[i : i + 1], -log_q, tile=tile)
        both = h[i : i + 1] + kl(head, hidden[i : i + 1], other, hidden[i : i + 1], tile=tile)
        torch.testing.assert_close(crossed, both, rtol=1e-9, atol=1e-9)


def test_a_uniform_distribution_has_entropy_log_v_and_a_certain_one_none():
    hidden = tensor(TOKENS, WIDTH)
    flat = entropy(Head.of_weight(torch.zeros(VOCABULARY, WIDTH, dtype=torch.float64)), hidden)
    torch.testing.assert_close(flat, torch.full((TOKENS,), math.log(VOCABULARY), dtype=torch.float64))
    certain = torch.full((VOCABULARY,), -torch.inf, dtype=torch.float64)
    certain[4] = 0.0
    head = Head(lambda x: x.sum(1, keepdim=True) * 0 + certain, VOCABULARY)
    value = entropy(head, hidden)
    assert not value.any()
    assert not torch.autograd.grad(value.sum(), hidden)[0].any()
    assert argmax(head, hidden).tolist() == [4] * TOKENS


def test_impossible_entries_count_for_nothing_and_what_only_p_allows_is_infinitely_far():
    hidden, weight, bias = case()
    less = bias.detach().clone()
    less[3:6] = -torch.inf
    kept = [i for i in range(VOCABULARY) if not 3 <= i < 6]
    head, small = Head.of_weight(weight, less), Head.of_weight(weight[kept], bias[kept])
    torch.testing.assert_close(entropy(head, hidden), entropy(small, hidden), rtol=1e-12, atol=1e-12)
    assert gradients(entropy(head, hidden), hidden)[0].isfinite().all()
    whole = Head.of_weight(weight, bias)
    nearer = kl(head, hidden, whole, hidden)
    assert nearer.isfinite().all()
    assert gradients(nearer, hidden)[0].isfinite().all()
    assert kl(whole, hidden, head, hidden).isposinf().all()


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_extreme_logits_stay_finite_in_float32(size):
    hidden, weight, bias = case(torch.float32)
    head, other = Head.of_weight(weight * size, bias), Head.of_weight(weight * -size, bias)
    for value in (entropy(head, hidden), kl(head, hidden, other, hidden), top_k(head, hidden, 3)[0]):
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in gradients(value, hidden, weight))


def test_bfloat16_is_within_what_rounded_logits_cost():
    hidden, weight, bias = case(torch.float32)
    p = full(hidden, weight, bias, 1.0, None)
    with torch.autocast("cpu", torch.bfloat16):
        ours = entropy(Head.of_weight(weight, bias), hidden, tile=60)
        rounded = torch.nn.functional.linear(hidden, weight, bias).double().softmax(1)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), -(rounded * rounded.log()).sum(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.double(), -(p * p.log()).sum(1), rtol=2e-2, atol=2e-2)


def test_a_module_with_lora_on_it_and_dropout_in_it():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, VOCABULARY).double())
    config = peft.LoraConfig(target_modules=["0"], r=2, lora_dropout=0.5, init_lora_weights=False)
    model = peft.get_peft_model(model, config)
    hidden = tensor(TOKENS, WIDTH)
    head = Head(model, VOCABULARY, scale=0.5, cap=2.0)
    model.train()
    value = entropy(head, hidden, tile=2 * VOCABULARY)  # the masks of the backward pass are those of the forward pass
    value.sum().backward()
    assert hidden.grad.isfinite().all()
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2
    logs = torch.log_softmax(2.0 * torch.tanh(0.25 * model(hidden)), 1)
    agree(entropy(head, hidden, tile=2 * VOCABULARY), -(logs.exp() * logs).sum(1), (hidden, *trained))
    targets = torch.arange(TOKENS)
    same = module_log_probs(model, hidden, targets, vocabulary=VOCABULARY, scale=0.5, cap=2.0)
    torch.testing.assert_close(log_probs_at(head, hidden, targets.unsqueeze(1)).squeeze(1), same)


def test_no_tokens():
    hidden, weight, bias = case()
    head = Head.of_weight(weight, bias)
    none = hidden[:0]
    value = entropy(head, none) + kl(head, none, head, none)
    assert value.shape == (0,)
    value.sum().backward()
    assert not weight.grad.any()
    assert top_k(head, none, 3)[1].shape == (0, 3)
    assert argmax(head, none).shape == (0,)


def test_what_cannot_be_asked_is_refused():
    hidden, weight, bias = case()
    head = Head.of_weight(weight, bias)
    with pytest.raises(InputError, match="between 1 and 23"):
        top_k(head, hidden, VOCABULARY + 1)
    with pytest.raises(InputError, match="between 1 and 23"):
        top_k(head, hidden, 0)
    with pytest.raises(InputError, match="different vocabularies: 23 and 20"):
        kl(head, hidden, Head.of_weight(weight[:20]), hidden)
    with pytest.raises(InputError, match="3 values"):
        expectation(head, hidden, torch.ones(3))
    with pytest.raises(InputError, match="lengths"):
        kl(head, hidden, head, hidden[1:])
    with pytest.raises(InputError, match="lengths"):
        log_probs_at(head, hidden, torch.zeros(3, 1, dtype=torch.long))


def test_no_tensor_of_tokens_by_vocabulary_ever_exists():
    tokens, width, vocabulary, tile = 64, 2, 400, 1600
    hidden, weight = tensor(tokens, width), tensor(vocabulary, width, seed=1)
    head, other = Head.of_weight(weight), Head.of_weight(weight.detach() + 0.1)
    with Made() as made:
        value = entropy(head, hidden, tile=tile) + kl(head, hidden, other, hidden, tile=tile)
        value = value + top_k(head, hidden, 2, tile=tile)[0].sum(1)
        value = value + expectation(head, hidden, weight[:, 0], tile=tile)
        value.sum().backward()
        argmax(head, hidden, tile=tile)
    assert made.elements == tile
    with Made() as made:
        torch.log_softmax(head.logits(hidden), 1)
    assert made.elements == tokens * vocabulary  # the watch sees what it should see


def test_any_function_of_logits_and_of_what_belongs_to_the_tokens():
    hidden, weight, bias = case()
    power = tensor(TOKENS, seed=4)

    def compute(logits, exponents):
        return (logits.softmax(1) ** exponents.unsqueeze(1)).sum(1), logits.mean(1)

    sums, means = through_head(compute, (Head.of_weight(weight, bias),), (hidden,), power, tile=50)
    p = full(hidden, weight, bias, 1.0, None)
    agree(sums, (p ** power.unsqueeze(1)).sum(1), (hidden, weight, bias, power))
    agree(means, (hidden @ weight.T + bias).mean(1), (hidden, weight, bias))
