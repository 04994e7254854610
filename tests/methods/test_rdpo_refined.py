"""Refined DPO: an external score in the loss, in two forms."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives, rpo_reward_aware
from boresight.objectives import rdpo_refined as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, implicit_rewards, probability, surprise
from test_objectives_golden import close, margins, numbers


def rdpo_refined(pair: Pair, beta: float, gamma: float, form: str) -> float:
    won, lost = implicit_rewards(pair)
    h = beta * (won - lost)
    s = gamma * (pair.chosen_known.scores["score"] - pair.rejected_known.scores["score"])
    if form == "offset":
        return surprise(h - s)
    return probability(s) * surprise(h) + (1 - probability(s)) * surprise(-h)


def scored(gap: list[float], *h: float) -> PairLogProbs:
    base = margins(*h)
    return PairLogProbs(base.policy, base.reference, Given(scores={"score": numbers(*gap, *[0.0] * len(gap))}))


def test_by_hand() -> None:
    # policy odds 3, scores' odds 4: soft label 4/5; as an offset odds 3/4
    pairs = scored([math.log(4)], 10 * math.log(3))
    close(loss(pairs, beta=0.1), [0.8 * math.log(4 / 3) + 0.2 * math.log(4)])
    close(loss(pairs, beta=0.1, form="offset"), [math.log(1 + 4 / 3)])


def test_soft_is_dpo_with_the_label_smoothed_by_its_own_score() -> None:
    h = [-4.0, 0.0, 9.0]
    close(loss(scored([math.log(3)] * 3, *h), beta=0.3), dpo(margins(*h), beta=0.3, label_smoothing=0.25))


def test_soft_differs_from_the_reward_aware_divergence_by_the_entropy_of_the_label_alone() -> None:
    h, gap = [-4.0, 0.0, 9.0], [0.3, -2.0, 1.0]
    p = torch.sigmoid(numbers(*gap))
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    close(loss(scored(gap, *h), beta=0.3), rpo_reward_aware(scored(gap, *h), beta=0.3) + entropy)


def test_certain_scores_and_none() -> None:
    h = [-4.0, 0.0, 9.0]
    close(loss(scored([80.0] * 3, *h), beta=0.3), dpo(margins(*h), beta=0.3))
    close(loss(scored([5.0] * 3, *h), beta=0.3, gamma=0.0, form="offset"), dpo(margins(*h), beta=0.3))
    even = (dpo(margins(*h), beta=0.3) + dpo(margins(*[-x for x in h]), beta=0.3)) / 2
    close(loss(scored([5.0] * 3, *h), beta=0.3, gamma=0.0), even)


def test_a_pair_made_worse_is_turned_round_by_one_form_and_asked_less_by_the_other() -> None:
    up, down = loss(scored([-3.0, -3.0], 5.0, -5.0), beta=0.3)
    assert down < up
    kept, worsened = loss(scored([1.0, -1.0], 0.0, 0.0), form="offset")
    assert worsened < kept


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="form"):
        loss(scored([1.0], 1.0), form="hard")
    with pytest.raises(ValueError, match="finite"):
        loss(scored([math.nan], 1.0))
    with pytest.raises(ValueError, match="'score'"):
        loss(margins(1))


@pytest.mark.parametrize("form", ["soft", "offset"])
def test_each_agrees_with_the_rewrite(form: str) -> None:
    known = objectives()["rdpo-refined"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, form=form)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, form=form), rtol=1e-10, atol=1e-12)
