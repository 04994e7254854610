from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from objective_checks import CHECKS
from oracles import Pair, implicit_rewards, probability, surprise

loss = objectives()["dpo-soft"].function


def dpo_soft(pair: Pair, beta: float, temperature: float, form: str, attribute: str, probabilities: bool) -> float:
    better, worse = pair.chosen_known.scores[attribute], pair.rejected_known.scores[attribute]
    p = better if probabilities else probability((better - worse) / temperature)
    won, lost = implicit_rewards(pair)
    h = beta * (won - lost)
    return surprise((2 * p - 1) * h) if form == "geometric" else p * surprise(h) + (1 - p) * surprise(-h)


def batch(h: list[float], better: list[float], worse: list[float], attribute: str = "score") -> PairLogProbs:
    m = torch.tensor(h, dtype=torch.float64)
    zero = torch.zeros_like(m)
    made = PairLogProbs.from_sums(m - 9, zero - 9, zero, zero)
    made.given = Given(scores={attribute: torch.tensor(better + worse, dtype=torch.float64)})
    return made


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    """Scores log 3 apart, p = 3/4; margin at odds three to one: the entropy of a quarter, the least there is."""
    some = batch([10 * math.log(3)], [math.log(3) + 2], [2.0])
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    close(loss(some, beta=0.1), [entropy])
    close(loss(some, beta=0.1, form="geometric"), [surprise(0.5 * math.log(3))])
    close(loss(some, beta=0.1, temperature=0.5), [0.9 * math.log(4 / 3) + 0.1 * math.log(4)])  # odds 9


def test_certain_labels_are_dpo_and_one_probability_for_all_is_label_smoothing() -> None:
    h = [3.0, -2.0, 40.0]
    sure = batch(h, [1e3] * 3, [0.0] * 3)
    for form in ("mixed", "geometric"):
        torch.testing.assert_close(loss(sure, form=form), dpo(sure))
    smooth = batch(h, [0.8] * 3, [math.nan] * 3)
    torch.testing.assert_close(loss(smooth, probabilities=True), dpo(smooth, label_smoothing=0.2))


def test_an_even_pair_is_drawn_to_even_odds_or_left_alone() -> None:
    m = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    even = PairLogProbs.from_sums(m, zero, zero, zero)
    even.given = Given(scores={"score": torch.zeros(2, dtype=torch.float64)})
    assert torch.autograd.grad(loss(even, beta=1.0).sum(), m)[0].item() > 0.4
    assert torch.autograd.grad(loss(even, beta=1.0, form="geometric").sum(), m)[0].item() == 0


@pytest.mark.parametrize("check", sorted(set(CHECKS) - {"declares_what_it_is"}))
def test_geometric_form_passes_the_checks(check: str) -> None:
    known = objectives()["dpo-soft"]
    told = known.hyperparameters | {"form": replace(known.hyperparameters["form"], default="geometric")}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, form="geometric")))


def test_other_attributes_and_what_is_missing_or_no_probability() -> None:
    named = batch([1.0], [2.0], [1.0], "quality")
    close(loss(named, attribute="quality"), [dpo_by_odds(1.0, 0.1)])
    with pytest.raises(ValueError, match="'score'"):
        loss(named)
    with pytest.raises(ValueError, match="some have none"):
        loss(batch([1.0], [math.nan], [1.0]))
    with pytest.raises(ValueError, match="probabilities from 0 to 1"):
        loss(batch([1.0], [1.5], [0.0]), probabilities=True)
    with pytest.raises(ValueError, match="form"):
        loss(batch([1.0], [1.5], [0.0]), form="hard")


def dpo_by_odds(apart: float, h: float) -> float:
    p = probability(apart)
    return p * surprise(h) + (1 - p) * surprise(-h)
