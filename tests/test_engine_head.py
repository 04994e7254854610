"""The chunked head against a plain log-softmax, and the memory it must not use."""

from __future__ import annotations

import itertools

import pytest
import torch

from boresight.engine import head
from boresight.engine.head import TILE, module_log_probs, settled, tiling_of, token_log_probs
from heads import FORMS, VOCABULARY, WIDTH, Made, inputs, plain


def gradients(values, *leaves):
    g = torch.Generator().manual_seed(9)
    seed = torch.randn(values.shape, generator=g, dtype=torch.float64).to(values.dtype)
    return torch.autograd.grad((values * seed).sum(), leaves, retain_graph=True)


@pytest.mark.parametrize("chunk", [1, 7, VOCABULARY, VOCABULARY + 3])
@pytest.mark.parametrize(("scale", "cap"), FORMS)
@pytest.mark.parametrize("biased", [True, False])
def test_equals_log_softmax_in_float64_values_and_every_gradient(chunk, scale, cap, biased):
    hidden, weight, bias, targets = inputs()
    bias = bias if biased else None
    leaves = (hidden, weight, bias) if biased else (hidden, weight)
    truth = plain(hidden, weight, bias, targets, scale, cap)
    for tile in (1, 5, 50, TILE):
        ours = token_log_probs(hidden, weight, targets, bias=bias, scale=scale, cap=cap, tile=tile, vocab_chunk=chunk)
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
        for a, b in zip(gradients(ours, *leaves), gradients(truth, *leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    hidden, weight, bias, targets = inputs(tokens=3, width=2, vocabulary=5)

    def f(h, w, b):
        return token_log_probs(h, w, targets, bias=b, scale=0.7, cap=2.0, tile=4)

    assert torch.autograd.gradcheck(f, (hidden, weight, bias), atol=1e-9, rtol=1e-7)


def test_probabilities_sum_to_one():
    hidden, weight, bias, _ = inputs(tokens=1)
    every = torch.arange(VOCABULARY)
    values = token_log_probs(hidden.expand(VOCABULARY, -1), weight, every, bias=bias, tile=40)
    assert abs(float(values.detach().exp().sum()) - 1.0) < 1e-13


@pytest.mark.parametrize(("frozen", "wanted"), itertools.product(range(3), [True, False]))
def test_only_the_gradients_asked_for(frozen, wanted):
    leaves = list(inputs()[:3])
    targets = inputs()[3]
    leaves[frozen] = leaves[frozen].detach().requires_grad_(wanted)
    token_log_probs(leaves[0], leaves[1], targets, bias=leaves[2], tile=40).sum().backward()
    assert (leaves[frozen].grad is not None) == wanted
    truth = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    plain(*truth, targets).sum().backward()
    for mine, other in zip(leaves, truth, strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", ["chunked", "module"])
def test_no_tokens(head):
    hidden, weight, bias, targets = inputs()
    none = targets[:0]
    if head == "chunked":
        values = token_log_probs(hidden[:0], weight, none, bias=bias)
    else:
        values = module_log_probs(lambda h: h @ weight.T + bias, hidden[:0], none, vocabulary=VOCABULARY)
    values.sum().backward()
    assert values.shape == (0,)
    assert not weight.grad.any()


@pytest.mark.parametrize("scale", [1e4, 1e6])
def test_extreme_logits_stay_finite(scale):
    hidden, weight, bias, targets = inputs(torch.float32)
    values = token_log_probs(hidden * scale, weight, targets, bias=bias, tile=10)
    torch.testing.assert_close(values, plain(hidden * scale, weight, bias, targets), rtol=1e-5, atol=0.0)
    assert all(g.isfinite().all() for g in gradients(values, hidden, weight, bias))


def test_impossible_tokens_have_no_gradient_and_harm_nothing():
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        bias[3:5] = -torch.inf
    targets[(targets == 3) | (targets == 4)] = 0
    for chunk in (1, 2, VOCABULARY):
        values = token_log_probs(hidden, weight, targets, bias=bias, vocab_chunk=chunk)
        torch.testing.assert_close(values, plain(hidden, weight, bias, targets))
        to_hidden, to_weight = gradients(values, hidden, weight)
        assert to_hidden.isfinite().all()
        assert not to_weight[3:5].any()


@pytest.mark.parametrize(("scale", "cap"), FORMS)
def test_float32_within_1e_5_of_float64(scale, cap):
    hidden, weight, bias, targets = inputs(torch.float32, tokens=200, width=32, vocabulary=500)
    truth = plain(*(x.double() for x in (hidden, weight, bias)), targets, scale, cap)
    ours = token_log_probs(hidden, weight, targets, bias=bias, scale=scale, cap=cap, tile=3000)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-5)
    leaves = (hidden, weight, bias)
    for a, b in zip(gradients(ours, *leaves), gradients(truth, *leaves), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_no_further_from_the_truth_than_plain_bfloat16(autocast):
    dtype = torch.float32 if autocast else torch.bfloat16
    hidden, weight, bias, targets = inputs(dtype, tokens=300, width=64, vocabulary=700)
    truth = plain(*(x.double() for x in (hidden, weight, bias)), targets)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = token_log_probs(hidden, weight, targets, bias=bias, tile=9000)
        logits = torch.nn.functional.linear(hidden, weight, bias)
        half = torch.log_softmax(logits.float(), -1)[torch.arange(300), targets]
    assert ours.dtype == torch.float32
    assert (ours - truth).norm() <= 1.05 * (half - truth).norm()
    leaves = (hidden, weight, bias)
    for a, b, c in zip(*(gradients(v, *leaves) for v in (ours, half, truth)), strict=True):
        assert a.dtype == dtype
        assert (a - c).norm() <= 1.1 * (b - c).norm()


def test_module_head_equals_log_softmax_with_dropout_masks_kept_for_the_backward_pass():
    hidden, weight, _, targets = inputs()
    mask = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1)) > 0.5

    def head(h):
        return (h * mask) @ weight.T

    ours = module_log_probs(head, hidden, targets, vocabulary=VOCABULARY, scale=0.5, cap=2.0, tile=2 * VOCABULARY)
    truth = plain(hidden * mask, weight, None, targets, 0.5, 2.0)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(ours, hidden, weight), gradients(truth, hidden, weight), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [8, 8 * 30, 8 * 61])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_rows_worked_on_at_a_time_changes_nothing(monkeypatch, size, dtype):
    hidden, weight, bias, targets = inputs(dtype, tokens=20, vocabulary=101)

    def both():
        # the last chunk of the vocabulary is the narrowest: 41 + 41 + 19
        values = token_log_probs(hidden, weight, targets, bias=bias, cap=3.0, tile=500, vocab_chunk=41)
        return values, *gradients(values, hidden, weight, bias)

    usual = both()
    monkeypatch.setattr(head, "TILE", size)
    for a, b in zip(both(), usual, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)


@pytest.mark.parametrize("head", ["chunked", "autocast", "module"])
def test_no_tensor_of_tokens_by_vocabulary_ever_exists(head):
    tokens, width, vocabulary, tile = 64, 8, 400, 1000
    hidden, weight, bias, targets = inputs(torch.float32, tokens, width, vocabulary)
    with Made() as made:
        if head == "module":
            values = module_log_probs(
                lambda h: torch.nn.functional.linear(h, weight, bias), hidden, targets, vocabulary=vocabulary, tile=tile
            )
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=head == "autocast"):
                values = token_log_probs(hidden, weight, targets, bias=bias, tile=tile, cap=5.0)
        values.sum().backward()
    assert made.elements == max(tile, width * vocabulary)  # the gradient of the weight is the largest, not logits
    assert made.elements < tokens * vocabulary / 4
    with Made() as made:
        plain(hidden, weight, bias, targets).sum().backward()
    assert made.elements == tokens * vocabulary  # the watch sees what it should see


def test_tiles_stay_within_their_bound():
    for tokens, vocabulary, tile, chunk in itertools.product(
        [0, 1, 10, 5000], [1, 97, 151_936], [1, 7, 1000, TILE], [None, 1, 50]
    ):
        rows, columns = tiling_of(tokens, vocabulary, tile, chunk)
        assert rows >= 1
        assert columns >= 1
        assert rows * columns <= max(tile, chunk or 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_of_nearly_nothing_count_as_none(dtype):
    """Their products would be subnormal; what is above the bound is exact, and NaN stays NaN."""
    bound = torch.finfo(dtype).tiny * 2**40
    given = torch.tensor([0.0, bound / 2, -bound / 2, bound * 2, -bound * 2, 1.0, torch.nan, torch.inf], dtype=dtype)
    expected = torch.tensor([0.0, 0.0, 0.0, bound * 2, -bound * 2, 1.0, torch.nan, torch.inf], dtype=dtype)
    torch.testing.assert_close(settled(given), expected, rtol=0, atol=0, equal_nan=True)
    torch.manual_seed(0)
    hidden = torch.randn(3, 4, dtype=dtype, requires_grad=True)
    values = token_log_probs(hidden, torch.randn(7, 4, dtype=dtype), torch.tensor([1, 2, 3]))
    (values * torch.tensor([bound / 2, bound * 1e6, 0.0], dtype=dtype)).sum().backward()
    assert hidden.grad is not None
    assert [bool(row.any()) for row in hidden.grad] == [False, True, False]
