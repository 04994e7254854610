"""The fused head and loss against plain float64 autograd through a full log-softmax, and the memory it must not use."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.engine.fused import fused_loss
from boresight.errors import InputError
from heads import FORMS, TOKENS, VOCABULARY, Made, inputs, plain


def dpo_like(number, values):
    """Two responses behind each other, the second a third of the tokens; -log sigmoid of the margin to a reference."""
    cut = len(values) - len(values) // 3
    margin = values[:cut].sum() - values[cut:].sum() - 0.3 * number
    return -torch.nn.functional.logsigmoid(0.5 * margin)


def weighted(number, values):
    return (values * torch.linspace(-1, 2, len(values), dtype=values.dtype)).sum() / (number + 1)


def kto_like(number, values):
    sign = 1.0 if number % 2 else -1.0
    return 1.0 - torch.sigmoid(sign * 0.1 * (values.sum() + 1.7))


def curved_and_masked(number, values):
    """Every third token is left out, the others enter with their square."""
    return (values[torch.arange(len(values)) % 3 != 0] ** 2).sum()


LOSSES = [dpo_like, weighted, kto_like, curved_and_masked]


def scattered(tokens, parts, seed=3):
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(parts))


def truth_of(leaves, targets, groups, loss_of, scale=1.0, cap=None):
    """Loss, log-probs and gradients in float64 by autograd through all logits."""
    twins = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]
    values = plain(*twins, targets, scale, cap)
    loss = sum((loss_of(g, values[group]) for g, group in enumerate(groups)), torch.zeros(()))
    return loss.detach(), values.detach(), torch.autograd.grad(loss, [t for t in twins if t is not None])


def agree(ours, truth, **bounds):
    torch.testing.assert_close(ours.double(), truth.double(), **bounds)


@pytest.mark.parametrize("room", [10**6, 5 * VOCABULARY, VOCABULARY - 2, 1])
@pytest.mark.parametrize(("scale", "cap"), FORMS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("loss_of", LOSSES)
def test_equals_autograd_in_float64_loss_values_and_every_gradient(room, scale, cap, biased, loss_of):
    hidden, weight, bias, targets = inputs()
    leaves = (hidden, weight, bias if biased else None)
    groups = scattered(TOKENS, 4)
    loss, values = fused_loss(hidden, weight, targets, groups, loss_of, bias=leaves[2], scale=scale, cap=cap, room=room)
    truth, truth_values, gradients = truth_of(leaves, targets, groups, loss_of, scale, cap)
    assert loss.shape == ()
    assert loss.dtype == values.dtype == torch.float64
    assert not values.requires_grad
    agree(loss, truth, rtol=1e-12, atol=1e-12)
    agree(values, truth_values, rtol=1e-12, atol=1e-12)
    (3.0 * loss).backward()
    for leaf, gradient in zip([x for x in leaves if x is not None], gradients, strict=True):
        agree(leaf.grad, 3.0 * gradient, rtol=1e-10, atol=1e-12)


def test_gradcheck_which_also_asks_for_the_gradient_more_than_once():
    hidden, weight, bias, targets = inputs(tokens=5, width=2, vocabulary=5)
    groups = scattered(5, 2)

    def f(h, w, b):
        return fused_loss(h, w, targets, groups, curved_and_masked, bias=b, scale=0.7, cap=2.0)[0]

    assert torch.autograd.gradcheck(f, (hidden, weight, bias), atol=1e-8, rtol=1e-6, nondet_tol=1e-13)


def test_a_second_backward_pass_gives_the_same_gradient_even_after_the_first_was_altered():
    hidden, weight, bias, targets = inputs()
    loss, _ = fused_loss(hidden, weight, targets, scattered(TOKENS, 3), dpo_like, bias=bias, cap=4.0)
    first = torch.autograd.grad(loss, (hidden, weight, bias), retain_graph=True)
    kept = [x.clone() for x in first]
    for x in first:
        x.zero_()
    second = torch.autograd.grad(2.0 * loss, (hidden, weight, bias))
    for a, b in zip(kept, second, strict=True):
        torch.testing.assert_close(2.0 * a, b, rtol=1e-10, atol=1e-13)


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(1, 300), st.data())
def test_any_shape_any_partition(tokens, width, vocabulary, parts, room, data):
    leaves = inputs(tokens=tokens, width=width, vocabulary=vocabulary, seed=tokens + 100 * vocabulary)
    loss_of, (scale, cap) = data.draw(st.sampled_from(LOSSES)), data.draw(st.sampled_from(FORMS))
    hidden, weight, bias, targets = leaves
    groups = scattered(tokens, parts, seed=room)
    loss, values = fused_loss(hidden, weight, targets, groups, loss_of, bias=bias, scale=scale, cap=cap, room=room)
    truth, truth_values, gradients = truth_of(leaves[:3], targets, groups, loss_of, scale, cap)
    agree(loss, truth, rtol=1e-10, atol=1e-11)
    agree(values, truth_values, rtol=1e-10, atol=1e-11)
    for a, b in zip(torch.autograd.grad(loss, leaves[:3]), gradients, strict=True):
        agree(a, b, rtol=1e-9, atol=1e-10)


def test_no_tokens_is_zero_and_tied_to_every_leaf():
    hidden, weight, bias, targets = inputs()
    for groups in ([], [targets[:0]]):
        loss, values = fused_loss(hidden[:0], weight, targets[:0], groups, weighted, bias=bias)
        assert float(loss.detach()) == 0.0
        assert values.shape == (0,)
        for gradient in torch.autograd.grad(loss, (hidden, weight, bias)):
            assert not gradient.any()


def test_one_word_in_the_vocabulary_is_certain():
    hidden, weight, bias, targets = inputs(vocabulary=1)
    loss, values = fused_loss(hidden, weight, targets, scattered(TOKENS, 2), weighted, bias=bias)
    assert not values.any()
    assert not any(g.any() for g in torch.autograd.grad(loss, (hidden, weight, bias)))


def test_a_hidden_state_picked_twice_gets_both_gradients():
    hidden, weight, bias, targets = inputs()
    pick = torch.arange(TOKENS) // 2
    groups = scattered(TOKENS, 3)
    loss, _ = fused_loss(hidden[pick], weight, targets, groups, dpo_like, bias=bias)
    values = plain(hidden[pick], weight, bias, targets)
    truth = sum(dpo_like(g, values[group]) for g, group in enumerate(groups))
    for a, b in zip(*(torch.autograd.grad(x, (hidden, weight, bias)) for x in (loss, truth)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("room", [10**6, 1])
@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3)))
def test_only_the_gradients_asked_for(wanted, room):
    *leaves, targets = inputs()
    leaves = [leaf.detach().requires_grad_(want) for leaf, want in zip(leaves, wanted, strict=True)]
    groups = scattered(TOKENS, 3)
    loss, _ = fused_loss(leaves[0], leaves[1], targets, groups, dpo_like, bias=leaves[2], room=room)
    assert loss.requires_grad == any(wanted)
    if any(wanted):
        loss.backward()
    truth, _, gradients = truth_of(leaves, targets, groups, dpo_like)
    agree(loss.detach(), truth)
    for leaf, gradient, want in zip(leaves, gradients, wanted, strict=True):
        assert (leaf.grad is not None) == want
        if want:
            torch.testing.assert_close(leaf.grad, gradient, rtol=1e-10, atol=1e-12)


def test_without_grad_mode_there_are_values_and_no_graph():
    hidden, weight, bias, targets = inputs()
    groups = scattered(TOKENS, 3)
    asked = []

    def loss_of(number, values):
        asked.append(values.requires_grad)
        return dpo_like(number, values)

    with torch.no_grad():
        loss, values = fused_loss(hidden, weight, targets, groups, loss_of, bias=bias)
    truth, truth_values, _ = truth_of((hidden, weight, bias), targets, groups, dpo_like)
    assert asked == [False] * 3
    assert not loss.requires_grad
    agree(loss, truth)
    agree(values, truth_values)


def test_a_loss_that_leaves_a_group_out():
    hidden, weight, bias, targets = inputs()
    groups = scattered(TOKENS, 3)

    def loss_of(number, values):
        return values.new_tensor(2.0) if number == 1 else dpo_like(number, values)

    loss, _ = fused_loss(hidden, weight, targets, groups, loss_of, bias=bias)
    truth, _, gradients = truth_of((hidden, weight, bias), targets, groups, loss_of)
    agree(loss.detach(), truth)
    for a, b in zip(torch.autograd.grad(loss, (hidden, weight, bias)), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_comes_through(value):
    hidden, weight, bias, targets = inputs()
    loss, values = fused_loss(
        hidden, weight, targets, scattered(TOKENS, 3), lambda g, v: v.sum() * (value if g == 1 else 1.0), bias=bias
    )
    assert values.isfinite().all()
    assert not loss.isfinite()
    loss.backward()
    assert not weight.grad.isfinite().all()


@pytest.mark.parametrize("room", [10**6, 1])
@pytest.mark.parametrize("size", [1e4, 1e6])
def test_extreme_logits_stay_finite(size, room):
    hidden, weight, bias, targets = inputs(torch.float32)
    groups = scattered(TOKENS, 3)
    loss, values = fused_loss(hidden * size, weight, targets, groups, weighted, bias=bias, room=room)
    truth, truth_values, _ = truth_of((hidden.detach() * size, weight, bias), targets, groups, weighted)
    agree(values, truth_values, rtol=1e-5, atol=0.0)
    agree(loss.detach(), truth, rtol=1e-5, atol=0.0)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (hidden, weight, bias)))


@pytest.mark.parametrize("room", [10**6, 1])
def test_impossible_tokens_have_no_gradient_and_harm_nothing(room):
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        bias[3:5] = -torch.inf
    targets[(targets == 3) | (targets == 4)] = 0
    groups = scattered(TOKENS, 3)
    loss, values = fused_loss(hidden, weight, targets, groups, dpo_like, bias=bias, room=room)
    agree(values, plain(hidden, weight, bias, targets).detach())
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    assert to_hidden.isfinite().all()
    assert not to_weight[3:5].any()


@pytest.mark.parametrize("room", [10**6, 1000])
@pytest.mark.parametrize(("scale", "cap"), FORMS)
def test_float32_within_1e_5_of_float64(scale, cap, room):
    hidden, weight, bias, targets = inputs(torch.float32, tokens=200, width=32, vocabulary=500)
    groups = scattered(200, 5)
    loss, values = fused_loss(hidden, weight, targets, groups, weighted, bias=bias, scale=scale, cap=cap, room=room)
    truth, truth_values, gradients = truth_of((hidden, weight, bias), targets, groups, weighted, scale, cap)
    assert loss.dtype == values.dtype == torch.float32
    agree(values, truth_values, rtol=1e-5, atol=1e-5)
    agree(loss.detach(), truth, rtol=1e-5, atol=1e-4)
    for a, b in zip(torch.autograd.grad(loss, (hidden, weight, bias)), gradients, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("room", [10**6, 9000])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_the_truth_than_plain_half_precision(half, autocast, room):
    dtype = torch.float32 if autocast else half
    leaves = inputs(dtype, tokens=300, width=64, vocabulary=700)
    hidden, weight, bias, targets = leaves
    groups = scattered(300, 5)
    _, truth_values, gradients = truth_of(leaves[:3], targets, groups, weighted)
    with torch.autocast("cpu", half, enabled=autocast):
        loss, values = fused_loss(hidden, weight, targets, groups, weighted, bias=bias, room=room)
        logits = torch.nn.functional.linear(hidden, weight, bias)
        theirs = torch.log_softmax(logits.float(), -1)[torch.arange(300), targets]
        their_loss = sum(weighted(g, theirs[group]) for g, group in enumerate(groups))
    assert loss.dtype == values.dtype == torch.float32
    assert (values - truth_values).norm() <= 1.05 * (theirs - truth_values).norm()
    ours, their = (torch.autograd.grad(x, leaves[:3]) for x in (loss, their_loss))
    for a, b, c in zip(ours, their, gradients, strict=True):
        assert a.dtype == dtype
        # Rounded logits are the larger error in bf16; in fp16 the rounded products are, and ours have two such factors.
        assert (a - c).norm() <= (1.1 if half == torch.bfloat16 else 1.5) * (b - c).norm()


@pytest.mark.parametrize("fault", ["missing", "twice", "outside"])
def test_groups_that_are_no_partition_are_refused(fault):
    hidden, weight, _, targets = inputs()
    order = torch.arange(TOKENS)
    groups = {"missing": [order[:-1]], "twice": [order[:-1], order[:1]], "outside": [order + 1]}[fault]
    with pytest.raises(InputError, match="exactly once"):
        fused_loss(hidden, weight, targets, groups, weighted)


def test_a_loss_that_is_no_scalar_is_refused():
    hidden, weight, _, targets = inputs()
    with pytest.raises(InputError, match=r"scalar.*\n.*sum"):
        fused_loss(hidden, weight, targets, [torch.arange(TOKENS)], lambda _, values: values)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("parts", "room"), [(8, 8 * 400), (1, 3200), (1, 1000), (3, 130)])
def test_no_more_logits_than_the_room(autocast, parts, room):
    tokens, width, vocabulary = 64, 4, 400
    hidden, weight, bias, targets = inputs(torch.float32, tokens, width, vocabulary)
    with Made() as made, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = fused_loss(hidden, weight, targets, scattered(tokens, parts), weighted, bias=bias, cap=5.0, room=room)
        loss.backward()
    assert made.elements <= max(room, width * vocabulary)  # the gradient of the weight has width * vocabulary
    with Made() as made:
        plain(hidden, weight, bias, targets).sum().backward()
    assert made.elements == tokens * vocabulary  # the watch sees what it should see


@pytest.mark.parametrize(("frozen", "products"), [(False, 3), (True, 2)])
def test_three_products_a_group_and_two_when_the_head_is_frozen(frozen, products):
    hidden, weight, _, targets = inputs()
    weight = weight.detach().requires_grad_(not frozen)
    with Made() as made:
        fused_loss(hidden, weight, targets, scattered(TOKENS, 4), weighted)[0].backward()
    assert made.multiplied == 4 * products
