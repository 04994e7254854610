"""SGDPO: pilots picked by noise, by hand; limits; what gradients reach."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import boresight.objectives as room
from boresight.objectives import LogProbs, PairLogProbs, PairSide
from oracles import Pair, surprise

EXEMPT = {
    "every_hyperparameter_has_effect": "a ratio counts whole tokens, so a slightly other one may count as many; "
    "test_a_ratio_has_effect_where_it_counts_another_token",
}


def sgdpo(pair: Pair, beta: float, chosen_ratio: float, rejected_ratio: float) -> float:
    shorter = min(len(pair.chosen), len(pair.rejected))

    def sums(policy: list[float], reference: list[float], noise: list[float], ratio: float) -> tuple[float, float]:
        ratios = [p - r for p, r in zip(policy, reference, strict=True)]
        places = sorted(range(len(ratios)), key=lambda i: (noise[i], i))[: max(int(shorter * ratio), 1)]
        return math.fsum(ratios), math.fsum(ratios[i] for i in places)

    won, pilot_won = sums(pair.chosen, pair.ref_chosen, pair.chosen_known.per_token["noise"], chosen_ratio)
    lost, pilot_lost = sums(pair.rejected, pair.ref_rejected, pair.rejected_known.per_token["noise"], rejected_ratio)
    return 0.5 * surprise(beta * (won - pilot_lost)) + 0.5 * surprise(beta * (pilot_won - lost))


def made(sides: list[list[list[float]]], noises: list[list[list[float]]]) -> tuple[PairLogProbs, list[Tensor]]:
    """Pairs against a reference of 0: sides[0] the chosen, sides[1] the rejected log-ratios; and the leaves."""
    leaves = [[torch.tensor(r, dtype=torch.float64, requires_grad=True) for r in side] for side in sides]
    noise = [[torch.tensor(n, dtype=torch.float64) for n in side] for side in noises]
    policy = PairSide(*(LogProbs.from_sequences(x, noise=n) for x, n in zip(leaves, noise, strict=True)))
    zero = PairSide(*(LogProbs.from_sequences([torch.zeros_like(r) for r in side]) for side in leaves))
    return PairLogProbs(policy, zero), [r for side in leaves for r in side]


def test_by_hand() -> None:
    """Four and three tokens: m = 3. r1 = 0.7: 2 of the chosen (noise .1 and .2: 1 and 8); r2 = 0.4: 1 (noise 0: -5)."""
    pairs, _ = made([[[1, 2, 4, 8]], [[-1, -3, -5]]], [[[0.1, 0.9, 0.5, 0.2]], [[0.3, 0.9, 0.0]]])
    found = room.sgdpo(pairs, beta=0.1, chosen_ratio=0.7, rejected_ratio=0.4)
    expected = 0.5 * math.log1p(math.exp(-0.1 * (15 + 5))) + 0.5 * math.log1p(math.exp(-0.1 * (9 + 9)))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_with_whole_responses_as_pilots_it_has_dpos_value_and_half_its_gradient() -> None:
    """Of one length and with ratios of 1 both halves are DPO, but each lets the gradient into one side only."""
    pairs, leaves = made([[[1, -2, 0.5]], [[0.3, 0.2, -1]]], [[[0.1, 0.2, 0.3]], [[0.9, 0.2, 0.3]]])
    found = room.sgdpo(pairs, beta=0.4, chosen_ratio=1, rejected_ratio=1)
    expected = room.dpo(pairs, beta=0.4)
    torch.testing.assert_close(found, expected)
    mine, dpos = torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves)
    for a, b in zip(mine, dpos, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_pilots_take_no_gradient_and_set_how_steep_the_other_side_is() -> None:
    pairs, (chosen, rejected) = made([[[2.0, 3.0]], [[-1.0, -4.0]]], [[[0.1, 0.2]], [[0.2, 0.1]]])
    losses = room.sgdpo(pairs, beta=1, chosen_ratio=0.5, rejected_ratio=0.5)
    won, lost = torch.autograd.grad(losses.sum(), [chosen, rejected])
    steep_won, steep_lost = 0.5 / (1 + math.exp(5 + 4)), 0.5 / (1 + math.exp(2 + 5))
    torch.testing.assert_close(won, torch.full((2,), -steep_won, dtype=torch.float64))
    torch.testing.assert_close(lost, torch.full((2,), steep_lost, dtype=torch.float64))


@pytest.mark.parametrize("name", ["chosen_ratio", "rejected_ratio"])
def test_a_ratio_has_effect_where_it_counts_another_token(name: str) -> None:
    pairs, _ = made([[[1.0, 2.0, 4.0]], [[-1.0, -2.0, -4.0]]], [[[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]]])
    one, two, still_two = (room.sgdpo(pairs, **{name: ratio}).item() for ratio in (0.5, 0.67, 0.9))
    assert one > two == still_two


def test_a_short_partner_shortens_the_pilot() -> None:
    """Nine tokens beside one: the pilot has one token, whatever the ratios."""
    pairs, _ = made([[list(range(1, 10))], [[-1.0]]], [[[0.9, 0.8, 0.7, 0.6, 0.05, 0.4, 0.3, 0.2, 0.1]], [[0.5]]])
    found = room.sgdpo(pairs, beta=0.1, chosen_ratio=1, rejected_ratio=0.1)
    expected = 0.5 * math.log1p(math.exp(-0.1 * 46)) + 0.5 * math.log1p(math.exp(-0.1 * (5 + 1)))
    assert found.item() == pytest.approx(expected, rel=1e-12)


ragged = st.lists(st.lists(st.tuples(st.floats(-3, 3), st.integers(0, 3)), min_size=1, max_size=7), min_size=1)


@settings(max_examples=60)
@given(ragged, st.floats(0.05, 1), st.floats(0.05, 1))
def test_ragged_batches_with_equal_noise(some: list[list[tuple[float, int]]], r1: float, r2: float) -> None:
    """Every response against the next one; noise of four values only, so that many are equal: the first one counts."""
    other = some[1:] + some[:1]
    sides = [[[v for v, _ in r] for r in side] for side in (some, other)]
    noises = [[[n / 4 for _, n in r] for r in side] for side in (some, other)]
    pairs, _ = made(sides, noises)
    expected = []
    for i in range(len(some)):
        pair = Pair(sides[0][i], sides[1][i], [0.0] * len(sides[0][i]), [0.0] * len(sides[1][i]))
        pair.chosen_known.per_token["noise"], pair.rejected_known.per_token["noise"] = noises[0][i], noises[1][i]
        expected.append(sgdpo(pair, 0.3, r1, r2))
    found = room.sgdpo(pairs, beta=0.3, chosen_ratio=r1, rejected_ratio=r2)
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64))


def test_tokens_may_lie_in_any_order() -> None:
    """Owners need not ascend: the same tokens shuffled give the same losses."""
    pairs, _ = made([[[1, 2], [3, 4, 5]], [[-1, -2], [-3]]], [[[0.3, 0.1], [0.2, 0.6, 0.4]], [[0.1, 0.2], [0.7]]])
    expected = room.sgdpo(pairs)
    order = torch.tensor([4, 0, 2, 1, 3])
    one = pairs.policy.chosen
    mixed = LogProbs(one.values[order], one.owner[order], 2, {"noise": one.token("noise")[order]})
    fixed = LogProbs(pairs.reference.chosen.values[order], one.owner[order], 2)
    moved = PairLogProbs(PairSide(mixed, pairs.policy.rejected), PairSide(fixed, pairs.reference.rejected))
    torch.testing.assert_close(room.sgdpo(moved), expected)


def test_unusable_ratios() -> None:
    pairs, _ = made([[[1.0]], [[0.0]]], [[[0.1]], [[0.1]]])
    for bad in (0.0, 1.01):
        for name in ("chosen_ratio", "rejected_ratio"):
            with pytest.raises(ValueError, match=name):
                room.sgdpo(pairs, **{name: bad})
