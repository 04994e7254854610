"""D2O: the rewrite, values by hand, and which way samples and undesirable responses go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import Given, ListLogProbs, LogProbs, PairLogProbs, ResponseLogProbs
from oracles import Single, surprise, total

EXEMPT = {"closed_form_at_zero_margin": "its samples are drawn apart from the reference there; own test below"}


def d2o(example: Single, beta: float, alpha: float) -> float:
    own = [total(p) - total(r) for p, r in example.around.samples]
    return surprise(beta * sum(own) / len(own) - alpha * (total(example.policy) - total(example.reference)))


def batch(gain: float, own: list[float]) -> tuple[ResponseLogProbs, Tensor, Tensor]:
    """One undesirable response with this log-ratio, and samples with theirs."""
    leaf = torch.tensor([gain], dtype=torch.float64, requires_grad=True)
    said = torch.tensor(own, dtype=torch.float64, requires_grad=True)
    samples = ListLogProbs(
        LogProbs.from_sums(said - 9),
        LogProbs.from_sums(torch.full_like(said, -9).detach()),
        list_of=torch.zeros(len(own), dtype=torch.int64),
        count=1,
    )
    given = Given(samples=samples)
    fixed = LogProbs.from_sums(torch.full_like(leaf, -7).detach())
    return ResponseLogProbs(LogProbs.from_sums(leaf - 7), fixed, given=given), leaf, said


def test_by_hand():
    # 0.5 * mean(2, 4) - 0.25 * 2 = 1
    assert o.d2o(batch(2, [2, 4])[0], beta=0.5, alpha=0.25).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_at_the_reference_it_is_log_two():
    assert o.d2o(batch(0, [0, 0, 0])[0]).item() == pytest.approx(math.log(2), rel=1e-15)
    assert o.objectives()["d2o"].closed_form() == math.log(2)


def test_samples_rise_together_and_the_response_falls():
    made, leaf, said = batch(0, [0, 0, 0, 0])
    down, up = torch.autograd.grad(o.d2o(made, beta=0.2, alpha=0.1).sum(), (leaf, said))
    torch.testing.assert_close(down, torch.tensor([0.05], dtype=torch.float64))
    torch.testing.assert_close(up, torch.full((4,), -0.025, dtype=torch.float64))


@pytest.mark.parametrize("h", [-20.0, 0.0, 3.0])
def test_one_sample_and_equal_weights_is_dpo_with_the_sample_as_chosen(h: float):
    pair = PairLogProbs.from_sums(*(torch.tensor([v], dtype=torch.float64) for v in (h - 9, -6, -9, -7)))
    torch.testing.assert_close(o.d2o(batch(1, [h])[0], beta=0.3, alpha=0.3), o.dpo(pair, beta=0.3))


def test_samples_are_needed():
    one = LogProbs.from_sums(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="samples"):
        o.d2o(ResponseLogProbs(one, one))
