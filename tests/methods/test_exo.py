"""EXO on pairs: reverse KL to the smoothed preference."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo
from boresight.objectives import exo as loss
from oracles import Pair, implicit_rewards, probability, surprise
from test_objectives_golden import close, margins, numbers

EXEMPT = {
    "gradient_signs": "beyond its target, beta * h = log((1 - eps) / eps), the loss rises towards a bound of almost "
    "nothing; here below, the sign changes there and nowhere else"
}


def exo(pair: Pair, beta: float, eps: float) -> float:
    won, lost = implicit_rewards(pair)
    h = beta * (won - lost)
    right, wrong = probability(h), probability(-h)
    return math.fsum([right * (-surprise(h) - math.log1p(-eps)), wrong * (-surprise(-h) - math.log(eps))])


def test_by_hand() -> None:
    # policy odds 3 to 1 and 1 to 3, target 9 to 1
    pairs = margins(10 * math.log(3), -10 * math.log(3))
    expected = [
        0.75 * math.log(0.75 / 0.9) + 0.25 * math.log(0.25 / 0.1),
        0.25 * math.log(0.25 / 0.9) + 0.75 * math.log(0.75 / 0.1),
    ]
    close(loss(pairs, beta=0.1, eps=0.1), expected)


def test_slope_changes_sign_at_the_target_and_nowhere_else() -> None:
    target = math.log(999)
    h = torch.tensor([target + d for d in (-300, -9, -0.01, 0, 0.01, 9, 300)], dtype=torch.float64, requires_grad=True)
    value = loss(PairLogProbs.from_sums(h, torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h)), beta=1.0)
    slope = torch.autograd.grad(value.sum(), h)[0]
    close(value[3:4], [0])
    close(slope[3:4], [0])
    assert (slope[1:3] < 0).all()
    assert (slope[4:6] > 0).all()
    close(slope[[0, 6]], [0, 0], 1e-100)


def test_it_is_bounded_on_both_sides() -> None:
    close(loss(margins(1e5, -1e5), beta=0.1, eps=0.01), [-math.log(0.99), -math.log(0.01)])


def test_slope_is_that_of_the_reverse_kl() -> None:
    """p (1 - p) (beta h - log((1 - eps) / eps)), with p = sigmoid(beta h): DPO's, -(1 - p), has no factor p."""
    h = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(h)
    value = loss(PairLogProbs.from_sums(h, zero, zero, zero), beta=1.0, eps=0.1)
    p = h.detach().sigmoid()
    close(torch.autograd.grad(value.sum(), h)[0], p * (1 - p) * (h.detach() - math.log(9)))


def test_the_other_direction_is_dpo_with_label_smoothing() -> None:
    """KL(target, policy) = cDPO - entropy of the target; the two agree to second order at the target alone."""
    at = margins((math.log(9) + 1e-3) / 0.1)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    forward = dpo(at, beta=0.1, label_smoothing=0.1) - entropy
    close(loss(at, beta=0.1, eps=0.1) / forward, [1.0], 2e-3)
    far = margins(-50)
    assert loss(far, beta=0.1, eps=0.1) < dpo(far, beta=0.1, label_smoothing=0.1) - entropy


def test_unusable_values_are_named() -> None:
    for bad in ({"eps": 0.0}, {"eps": 0.5}, {"beta": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(PairLogProbs.from_sums(*(numbers(v) for v in (1, 0, 0, 0))), **bad)
