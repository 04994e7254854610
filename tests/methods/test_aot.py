from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo, objectives
from objective_checks import CHECKS
from oracles import Pair, surprise, total

loss = objectives()["aot"].function


def aot(examples: list[Pair], beta: float, label_smoothing: float, form: str) -> list[float]:
    if form == "paired":
        upper = [total(e.chosen) - total(e.rejected) for e in examples]
        lower = [total(e.ref_chosen) - total(e.ref_rejected) for e in examples]
    else:
        upper = [total(e.chosen) - total(e.ref_chosen) for e in examples]
        lower = [total(e.rejected) - total(e.ref_rejected) for e in examples]
    found = [0.0] * len(examples)
    for place, value in zip(sorted(range(len(examples)), key=lambda i: upper[i]), sorted(lower), strict=True):
        d = beta * (upper[place] - value)
        found[place] = (1 - label_smoothing) * surprise(d) + label_smoothing * surprise(-d)
    return found


def batch(won: list[float], lost: list[float], ref_won: list[float], ref_lost: list[float]) -> PairLogProbs:
    return PairLogProbs.from_sums(*(torch.tensor(x, dtype=torch.float64) for x in (won, lost, ref_won, ref_lost)))


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


SOME = batch([-1, -5, -3], [-4, -4, -4], [-2, -6, -1], [-3, -3, -5])


def test_paired_by_hand() -> None:
    """Margins 3, -1, 1 of the policy and 1, -3, 4 of the reference: places 3, 1, 2 meet 4, -3, 1."""
    close(loss(SOME, beta=1.0), [surprise(-1), surprise(2), surprise(0)])


def test_unpaired_by_hand() -> None:
    """Chosen gains 1, 1, -2 and rejected gains -1, -1, 1: sorted, -2 meets -1, 1 meets -1, 1 meets 1."""
    close(loss(SOME, beta=1.0, form="unpaired"), [surprise(2), surprise(0), surprise(-1)])


def test_one_pair_is_dpo_in_both_forms() -> None:
    one = batch([-1], [-4], [-2], [-3])
    for form in ("paired", "unpaired"):
        torch.testing.assert_close(loss(one, form=form, label_smoothing=0.1), dpo(one, label_smoothing=0.1))


def test_which_rejected_came_with_which_chosen_does_not_matter_without_pairs() -> None:
    again = batch([-1, -5, -3], [-4, -4, -4], [-2, -6, -1], [-5, -3, -3])
    torch.testing.assert_close(loss(SOME, form="unpaired"), loss(again, form="unpaired"))
    assert not torch.allclose(loss(SOME), loss(again))


def test_sorting_costs_least_of_all_ways_to_match() -> None:
    """A convex loss of differences is least when both sides are sorted alike: optimal transport on a line."""
    policy, reference = [3.0, -1.0, 1.0], [1.0, -3.0, 4.0]
    costs = [
        sum(surprise(a - b) for a, b in zip(policy, order, strict=True)) for order in itertools.permutations(reference)
    ]
    assert loss(SOME, beta=1.0).sum().item() == pytest.approx(min(costs))
    assert min(costs) < surprise(2) + surprise(2) + surprise(-3), "DPO matches each pair with itself"


@pytest.mark.parametrize("check", sorted(set(CHECKS) - {"declares_what_it_is", "falls_towards_its_target"}))
def test_unpaired_form_passes_the_checks(check: str) -> None:
    """But one: there each batch holds opposite margins, whose sorted sides are equal, so that all losses are log 2."""
    known = objectives()["aot"]
    told = known.hyperparameters | {"form": replace(known.hyperparameters["form"], default="unpaired")}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, form="unpaired")))


def test_unpaired_loss_falls_as_all_chosen_rise() -> None:
    found = [
        loss(batch([m - 1, m - 2], [-1, -2], [-1, -2], [-1, -2]), form="unpaired").sum().item() for m in range(-9, 9)
    ]
    assert all(a > b for a, b in itertools.pairwise(found))
    assert found[9] == pytest.approx(2 * math.log(2))


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match="form"):
        loss(SOME, form="pair")
