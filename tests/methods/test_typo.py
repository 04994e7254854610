"""TYPO: the rewrite, values by hand, and what each of its two terms moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import Given, ListLogProbs, LogProbs, PairLogProbs, PairSide
from oracles import Pair, surprise, total


def typo(pair: Pair, lam: float) -> float:
    own = [total(p) for p, _ in pair.around.samples]
    return surprise(total(pair.chosen) - total(pair.rejected)) - lam * sum(own) / len(own)


def batch(won: float, lost: float, own: list[float]) -> tuple[PairLogProbs, Tensor]:
    """Log-probs of a pair and of samples; the leaf is all of them in this order."""
    leaf = torch.tensor([won, lost, *own], dtype=torch.float64, requires_grad=True)
    of = torch.zeros(len(own), dtype=torch.int64)
    samples = ListLogProbs(LogProbs.from_sums(leaf[2:]), list_of=of, count=1)
    policy = PairSide(LogProbs.from_sums(leaf[:1]), LogProbs.from_sums(leaf[1:2]))
    return PairLogProbs(policy, given=Given(samples=samples)), leaf


def test_by_hand():
    found = o.typo(batch(-1, -3, [-2, -4])[0], lam=0.5).item()
    assert found == pytest.approx(math.log(1 + math.exp(-2)) + 1.5, rel=1e-12)


def test_likelihood_of_samples_and_the_pair_are_apart():
    made, leaf = batch(-1, -1, [-2, -4])
    (found,) = torch.autograd.grad(o.typo(made, lam=0.4).sum(), leaf)
    torch.testing.assert_close(found, torch.tensor([-0.5, 0.5, -0.2, -0.2], dtype=torch.float64))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_first_term_is_least_at_the_odds_of_the_preferences(share: float):
    """Chosen in this share of the comparisons, a response's odds are share to 1 - share, whatever the reference."""
    odds = math.log(share / (1 - share))
    gap = torch.tensor([odds], dtype=torch.float64, requires_grad=True)
    loss = 0.0
    for weight, sign in ((share, 1), (1 - share, -1)):
        sides = PairSide(LogProbs.from_sums(sign * gap / 2), LogProbs.from_sums(-sign * gap / 2))
        fixed = LogProbs.from_sums(torch.zeros(1, dtype=torch.float64))
        samples = ListLogProbs(fixed, list_of=torch.zeros(1, dtype=torch.int64), count=1)
        loss = loss + weight * o.typo(PairLogProbs(sides, given=Given(samples=samples)), lam=3.0)
    assert torch.autograd.grad(loss.sum(), gap)[0].item() == pytest.approx(0, abs=1e-12)


def test_no_reference_is_needed_and_samples_are():
    made, _ = batch(-1, -3, [-2])
    assert not made.has_reference
    with pytest.raises(ValueError, match="samples"):
        o.typo(PairLogProbs(made.policy))
