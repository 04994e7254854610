"""MRPO: the rewrite, values by hand, DPO where nothing is added, which reference counts, and clipping."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import boresight.objectives as o
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide
from oracles import Pair, surprise, total

EXEMPT = {
    "falls_towards_its_target": "the further references of the check move with the policy's margin, and R with them; "
    "test_falls_with_the_margin holds them still"
}


def mrpo(pair: Pair, beta: float, eta: float, split: bool, weights: str, form: str) -> float:
    assert (weights, form) == ("adaptive", "paper")
    chosen = [total(pair.ref_chosen), *(total(x) for x in pair.chosen_known.others)]
    rejected = [total(pair.ref_rejected), *(total(x) for x in pair.rejected_known.others)]
    apart = [abs(c - r) + 1e-6 for c, r in zip(chosen, rejected, strict=True)]
    inverse = [[], []]
    for k, (c, r) in enumerate(zip(chosen, rejected, strict=True)):
        sizes = [abs((c + chosen[0]) / 2), abs((r + rejected[0]) / 2)]
        for side, (mine, main) in enumerate(((c, chosen[0]), (r, rejected[0]))):
            part = sizes[side] / sum(sizes) if sum(sizes) else 0.5
            room = eta * (part if split else 1) * abs(main)
            inverse[side].append(math.log(apart[k] / sum(apart)) - min(max(mine, main - room), main + room))
    combined = [-(max(x) + math.log(math.fsum(math.exp(v - max(x)) for v in x))) for x in inverse]
    return surprise(beta * (total(pair.chosen) - combined[0] - total(pair.rejected) + combined[1]))


def sums(value: float) -> LogProbs:
    return LogProbs.from_sums(torch.tensor([value], dtype=torch.float64))


def side(chosen: float, rejected: float) -> PairSide:
    return PairSide(sums(chosen), sums(rejected))


def batch(policy: PairSide, main: PairSide, *others: PairSide) -> PairLogProbs:
    return PairLogProbs(policy, main, Given(others=others))


POLICY, MAIN = side(-9.0, -11.0), side(-10.0, -12.0)


def test_by_hand():
    # weights 2/8 and 6/8; no clipping at eta = 1 without split
    made = batch(POLICY, MAIN, side(-8.0, -14.0))
    chosen = -math.log(0.25 * math.exp(10) + 0.75 * math.exp(8))
    rejected = -math.log(0.25 * math.exp(12) + 0.75 * math.exp(14))
    expected = math.log(1 + math.exp(-0.5 * (2 - (chosen - rejected))))
    found = o.mrpo(made, beta=0.5, eta=1.0, split=False).item()
    assert found == pytest.approx(expected, rel=1e-6)  # the weights have 1e-6 added


def test_the_code_has_the_weights_the_other_way_round():
    made = batch(POLICY, MAIN, side(-8.0, -14.0))
    chosen = -math.log(0.75 * math.exp(10) + 0.25 * math.exp(8))
    rejected = -math.log(0.75 * math.exp(12) + 0.25 * math.exp(14))
    expected = math.log(1 + math.exp(-0.5 * (2 - (chosen - rejected))))
    found = o.mrpo(made, beta=0.5, eta=1.0, split=False, form="code").item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_clipping_by_hand():
    # chosen: mean of -10 and -8 is 9, rejected: of -12 and -14 is 13; shares 9/22 and 13/22 of eta = 0.22: 0.09, 0.13
    made = batch(POLICY, MAIN, side(-8.0, -14.0))
    margin = -10 * (1 - 0.09) + 12 * (1 + 0.13)
    expected = math.log(1 + math.exp(-0.5 * (2 - margin)))
    assert o.mrpo(made, beta=0.5, eta=0.22, weights="0,1").item() == pytest.approx(expected, rel=1e-12)
    whole = -10 * (1 - 0.1) + 12 * (1 + 0.1)
    expected = math.log(1 + math.exp(-0.5 * (2 - whole)))
    assert o.mrpo(made, beta=0.5, eta=0.1, split=False, weights="0,1").item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_dpo_where_the_further_reference_adds_nothing(form: str):
    made = batch(POLICY, MAIN, side(-3.0, -40.0))
    expected = o.dpo(made, beta=0.3)
    torch.testing.assert_close(o.mrpo(made, beta=0.3, eta=0.0, form=form), expected)
    same = batch(POLICY, MAIN, MAIN)
    torch.testing.assert_close(o.mrpo(same, beta=0.3, form=form), expected)
    alone = "5,0" if form == "paper" else "0,5"
    torch.testing.assert_close(o.mrpo(made, beta=0.3, weights=alone, form=form), expected)


def test_all_the_weight_on_a_further_reference_is_dpo_with_it():
    other = side(-9.5, -13.0)
    made = batch(POLICY, MAIN, other)
    expected = o.dpo(PairLogProbs(POLICY, other), beta=0.3)
    torch.testing.assert_close(o.mrpo(made, beta=0.3, eta=1.0, weights="0,1"), expected)


def test_order_of_further_references_does_not_matter():
    a, b = side(-9.5, -13.0), side(-10.5, -11.0)
    torch.testing.assert_close(o.mrpo(batch(POLICY, MAIN, a, b)), o.mrpo(batch(POLICY, MAIN, b, a)))


def test_references_that_tell_nothing_apart_count_alike():
    a = side(-7.0, -7.0)
    made = batch(POLICY, a, side(-7.3, -7.3))
    torch.testing.assert_close(o.mrpo(made), o.mrpo(made, weights="uniform"))


def test_falls_with_the_margin():
    found = [o.mrpo(batch(side(-50 + h, -50 - h), MAIN, side(-8.0, -14.0))).item() for h in range(-40, 41)]
    assert all(a > b for a, b in pairwise(found))


def test_what_cannot_be_used_is_refused():
    made = batch(POLICY, MAIN, MAIN)
    for weights in ("1", "1,2,3", "x", "-1,2", "0,0", "nan,1", ""):
        with pytest.raises(ValueError, match="weights"):
            o.mrpo(made, weights=weights)
    with pytest.raises(ValueError, match="form"):
        o.mrpo(made, form="theirs")
    with pytest.raises(ValueError, match="two references"):
        o.mrpo(batch(POLICY, MAIN, MAIN, MAIN), form="code")
    with pytest.raises(ValueError, match="further references"):
        o.mrpo(PairLogProbs(POLICY, MAIN))
