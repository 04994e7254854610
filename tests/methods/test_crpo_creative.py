"""CrPO: DPO's loss times the chosen response's creativity."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from boresight.objectives import crpo_creative as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close, margins, numbers

KINDS = ("diversity", "novelty", "surprise", "quality")
NONE = {f"lam_{kind}": 0.0 for kind in KINDS}


def crpo_creative(
    pair: Pair,
    beta: float,
    lam_diversity: float,
    lam_novelty: float,
    lam_surprise: float,
    lam_quality: float,
    form: str,
) -> float:
    lambdas = dict(zip(KINDS, (lam_diversity, lam_novelty, lam_surprise, lam_quality), strict=True))
    weight = 0.0
    for kind, lam in lambdas.items():
        score = pair.chosen_known.scores[kind]
        if form == "code":
            score = max(0.0, score - pair.rejected_known.scores[kind])
        weight += lam * score
    won, lost = implicit_rewards(pair)
    return (weight if any(lambdas.values()) else 1.0) * surprise(beta * (won - lost))


def scored(h: list[float], **scores: list[float]) -> PairLogProbs:
    base = margins(*h)
    return PairLogProbs(base.policy, base.reference, Given(scores={n: numbers(*s) for n, s in scores.items()}))


def test_by_hand() -> None:
    pairs = scored(
        [10 * math.log(3)], diversity=[0.1, 0.9], novelty=[0.5, 0.2], surprise=[0.0, 1.0], quality=[1.0, 0.4]
    )
    weights = {"lam_diversity": 2.0, "lam_novelty": 1.0, "lam_surprise": 3.0, "lam_quality": 0.5}
    close(loss(pairs, beta=0.1, **weights), [(0.2 + 0.5 + 0.0 + 0.5) * math.log(4 / 3)])
    close(loss(pairs, beta=0.1, form="code", **weights), [(0.0 + 0.3 + 0.0 + 0.3) * math.log(4 / 3)])


def test_all_weights_zero_is_dpo_and_asks_for_no_score() -> None:
    close(loss(margins(-4, 0, 9), **NONE), dpo(margins(-4, 0, 9)), 0)


def test_a_score_of_one_under_a_single_weight_is_dpo() -> None:
    pairs = scored([-4.0, 9.0], novelty=[1.0, 1.0, 0.0, 0.0])
    for form in ("paper", "code"):
        close(loss(pairs, **NONE | {"lam_novelty": 1.0}, form=form), dpo(margins(-4, 9)))


def test_weights_add_up() -> None:
    pairs = scored([-4.0, 9.0], novelty=[0.3, 0.9, 0.0, 0.0], quality=[0.8, 0.1, 0.0, 0.0])
    one, other = loss(pairs, **NONE | {"lam_novelty": 2.0}), loss(pairs, **NONE | {"lam_quality": 0.5})
    close(loss(pairs, **NONE | {"lam_novelty": 2.0, "lam_quality": 0.5}), one + other)


def test_a_dull_pair_teaches_nothing() -> None:
    close(loss(scored([-4.0, -4.0], novelty=[0.0, 0.5, 0.2, 0.9]), **NONE | {"lam_novelty": 1.0})[:1], [0])
    close(loss(scored([-4.0], novelty=[0.5, 0.9]), **NONE | {"lam_novelty": 1.0}, form="code"), [0])


def test_a_score_that_counts_must_be_there() -> None:
    pairs = scored([1.0], novelty=[0.5, 0.5])
    loss(pairs, **NONE | {"lam_novelty": 1.0})
    with pytest.raises(ValueError, match="'quality'"):
        loss(pairs, **NONE | {"lam_novelty": 1.0, "lam_quality": 0.1})
    for bad in (math.nan, -0.1):
        with pytest.raises(ValueError, match="novelty"):
            loss(scored([1.0], novelty=[bad, 0.5]), **NONE | {"lam_novelty": 1.0})
    with pytest.raises(ValueError, match="form"):
        loss(pairs, **NONE, form="mult")


@pytest.mark.parametrize("form", ["paper", "code"])
def test_each_agrees_with_the_rewrite(form: str) -> None:
    known = objectives()["crpo-creative"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, form=form)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, form=form), rtol=1e-10, atol=1e-12)
