"""LD-DPO: the tail of the longer response counts alpha times."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo
from boresight.objectives import ld_dpo as loss
from oracles import Pair, surprise
from test_objectives_golden import close, margins, numbers, random_pairs


def ld_dpo(pair: Pair, beta: float, alpha: float) -> float:
    shared = min(len(pair.chosen), len(pair.rejected))

    def likelihood(tokens: list[float]) -> float:
        return math.fsum(tokens[:shared]) + alpha * math.fsum(tokens[shared:])

    won = likelihood(pair.chosen) - likelihood(pair.ref_chosen)
    lost = likelihood(pair.rejected) - likelihood(pair.ref_rejected)
    return surprise(beta * (won - lost))


def pairs_of(*pairs: tuple[list[float], list[float]]) -> PairLogProbs:
    """Pairs of these per-token log-ratios; the reference is -9 on each token."""

    def side(index: int, of_policy: bool) -> LogProbs:
        return LogProbs.from_sequences([numbers(*p[index]) * of_policy - 9 for p in pairs])

    return PairLogProbs(PairSide(side(0, True), side(1, True)), PairSide(side(0, False), side(1, False)))


def test_by_hand() -> None:
    # chosen longer by two tokens of +4 each: 1 + 1 + alpha * 8; rejected: -2
    pairs = pairs_of(([1, 1, 4, 4], [-1, -1]), ([-1, -1], [1, 1, 4, 4]))
    for alpha, h in ((0.0, 4.0), (0.25, 6.0), (1.0, 12.0)):
        expected = [math.log1p(math.exp(-h / 2)), math.log1p(math.exp(h / 2))]
        close(loss(pairs, beta=0.5, alpha=alpha), expected)


def test_alpha_of_one_is_dpo() -> None:
    close(loss(random_pairs(), beta=0.3, alpha=1.0), dpo(random_pairs(), beta=0.3))


def test_equal_lengths_are_dpo_whatever_alpha_is() -> None:
    pairs = random_pairs(length=5)
    for alpha in (0.0, 0.3):
        close(loss(pairs, beta=0.3, alpha=alpha), dpo(pairs, beta=0.3))


def test_alpha_of_zero_does_not_see_the_tail() -> None:
    close(loss(pairs_of(([1, 2, 50, -70], [0.5, 3])), alpha=0.0), loss(pairs_of(([1, 2], [0.5, 3])), alpha=0.0))


def test_slopes_of_head_and_tail_stand_as_one_to_alpha() -> None:
    tokens = torch.full((5,), -1.0, dtype=torch.float64, requires_grad=True)
    chosen = LogProbs(tokens, torch.zeros(5, dtype=torch.int64), 1)
    rejected = LogProbs.from_sequences([numbers(-1, -1)])
    fixed = PairSide(LogProbs.from_sequences([numbers(-2, -2, -2, -2, -2)]), rejected)
    value = loss(PairLogProbs(PairSide(chosen, rejected), fixed), alpha=0.4)
    slope = torch.autograd.grad(value.sum(), tokens)[0]
    close(slope / slope[0], [1, 1, 0.4, 0.4, 0.4])


def test_tokens_may_lie_in_any_order_of_responses() -> None:
    """Packed rows hand in tokens of several responses side by side."""
    straight = pairs_of(([1, 2, 3], [4]), ([5], [6, 7]))
    mixed = LogProbs(numbers(5, 1, 2, 3) - 9, torch.tensor([1, 0, 0, 0]), 2)
    fixed = LogProbs(numbers(0, 0, 0, 0) - 9, torch.tensor([1, 0, 0, 0]), 2)
    policy, reference = straight.policy, straight.reference
    moved = PairLogProbs(PairSide(mixed, policy.rejected), PairSide(fixed, reference.rejected))
    close(loss(moved), loss(straight))


def test_unusable_values_are_named() -> None:
    for bad in ({"alpha": -0.1}, {"alpha": 1.1}, {"beta": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(margins(1), **bad)
