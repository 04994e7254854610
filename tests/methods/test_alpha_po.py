from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import PairLogProbs, simpo
from boresight.objectives import alpha_po as loss
from oracles import Pair, average, surprise


def alpha_po(pair: Pair, beta: float, alpha: float, gamma: float) -> float:
    def reward(tokens: list[float]) -> float:
        level = average(tokens)
        return level if alpha == 0 else (1 - math.exp(min(-alpha * level, 80))) / alpha

    return surprise(beta * reward(pair.chosen) - beta * reward(pair.rejected) - gamma)


def batch(chosen: list[float], rejected: list[float]) -> PairLogProbs:
    return PairLogProbs.from_sums(*(torch.tensor(x, dtype=torch.float64) for x in (chosen, rejected)))


def test_by_hand() -> None:
    """Probabilities 1/4 and 1/9, alpha 1/2: rewards 2 * (1 - 2) and 2 * (1 - 3), so 2 - 0.5."""
    some = batch([math.log(1 / 4)], [math.log(1 / 9)])
    assert loss(some, beta=1.0, alpha=0.5, gamma=0.5).item() == pytest.approx(surprise(1.5), rel=1e-12)


def test_is_simpo_at_alpha_nought_and_near_it() -> None:
    some = batch([-1.0, -0.2], [-0.5, -3.0])
    expected = simpo(some, beta=2.5, gamma_beta_ratio=0.1 / 2.5)
    torch.testing.assert_close(loss(some, alpha=0.0), expected)
    torch.testing.assert_close(loss(some, alpha=1e-9), expected, rtol=1e-6, atol=0)


def test_a_larger_alpha_pulls_harder_on_unlikely_responses() -> None:
    """At equal log-probs the slope on each side is beta / 2 * p^-alpha: it grows as the response gets less likely."""
    for level in (-1.0, -5.0):
        at = torch.tensor([level], dtype=torch.float64, requires_grad=True)
        other = torch.tensor([level], dtype=torch.float64)
        slope = torch.autograd.grad(loss(PairLogProbs.from_sums(at, other), gamma=0.0).sum(), at)[0].item()
        assert slope == pytest.approx(-2.5 / 2 * math.exp(-0.25 * level), rel=1e-12)
