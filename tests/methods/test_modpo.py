"""MODPO: the rewrite, values by hand, DPO at weight 1, and the optimum of the weighted rewards."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide
from oracles import Pair, implicit_rewards, surprise


def modpo(pair: Pair, beta: float, weight: float, others: str) -> float:
    won, lost = implicit_rewards(pair)
    names = [n.strip() for n in others.split(",")]
    rest = [pair.chosen_known.scores[n] - pair.rejected_known.scores[n] for n in names]
    return surprise((beta * (won - lost) - (1 - weight) * sum(rest) / len(rest)) / weight)


def batch(h: float, **scores: tuple[float, float]) -> tuple[PairLogProbs, Tensor]:
    leaf = torch.tensor([h], dtype=torch.float64, requires_grad=True)
    fixed = LogProbs.from_sums(torch.full((1,), -8, dtype=torch.float64))
    given = Given(scores={n: torch.tensor(v, dtype=torch.float64) for n, v in scores.items()})
    policy = PairSide(LogProbs.from_sums(leaf - 8), fixed)
    return PairLogProbs(policy, PairSide(fixed, fixed), given), leaf


def test_by_hand():
    # (0.5 * 2 - 0.75 * (3 - 1)) / 0.25 = -2
    made, _ = batch(2, score=(3.0, 1.0))
    assert o.modpo(made, beta=0.5, weight=0.25).item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-12)


@pytest.mark.parametrize("h", [-20.0, 0.0, 3.0])
def test_at_weight_1_it_is_dpo(h: float):
    made, _ = batch(h, score=(7.0, -3.0))
    torch.testing.assert_close(o.modpo(made, beta=0.2, weight=1.0), o.dpo(made, beta=0.2))


def test_several_scores_share_the_rest():
    made, _ = batch(1, helpfulness=(4.0, 1.0), safety=(0.0, 1.0))
    both = o.modpo(made, beta=0.2, weight=0.5, others="helpfulness, safety")
    expected = math.log(1 + math.exp(-(0.2 - 0.25 * 3 + 0.25 * 1) / 0.5))
    assert both.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight", [0.2, 0.5, 1.0])
def test_least_at_the_margin_of_the_weighted_rewards(weight: float):
    """Preferred with the odds of the first reward, the loss is least where beta * h is the weighted sum's margin."""
    first, other, beta = 0.7, -1.1, 0.3
    share = 1 / (1 + math.exp(-first))
    h = (weight * first + (1 - weight) * other) / beta
    there, leaf = batch(h, score=(other, 0.0))
    (toward,) = torch.autograd.grad(o.modpo(there, beta=beta, weight=weight).sum(), leaf)
    back, leaf = batch(-h, score=(0.0, other))
    (away,) = torch.autograd.grad(o.modpo(back, beta=beta, weight=weight).sum(), leaf)
    assert share * toward.item() == pytest.approx((1 - share) * away.item(), rel=1e-12)


def test_what_cannot_be_used_is_refused():
    made, _ = batch(1, score=(4.0, 1.0))
    with pytest.raises(ValueError, match="safety"):
        o.modpo(made, others="safety")
    with pytest.raises(ValueError, match="no score 'score'"):
        o.modpo(batch(1, score=(math.nan, 1.0))[0])
    for weight in (0.0, 1.5):
        with pytest.raises(ValueError, match="weight"):
            o.modpo(made, weight=weight)
