"""Implicit reward gaps matched to explicit ones under three distances."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, ipo, objectives
from boresight.objectives import rpo_reward_aware as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, implicit_rewards, probability, surprise
from test_objectives_golden import close, margins, numbers

DISTANCES = ("sq", "bwd-kl", "fwd-kl")


def rpo_reward_aware(pair: Pair, beta: float, eta: float, distance: str) -> float:
    won, lost = implicit_rewards(pair)
    h = beta * (won - lost)
    g = eta * (pair.chosen_known.scores["score"] - pair.rejected_known.scores["score"])
    if distance == "sq":
        return (h - g) ** 2
    p, q = (g, h) if distance == "bwd-kl" else (h, g)
    return math.fsum(
        [
            probability(p) * (surprise(q) - surprise(p)),
            probability(-p) * (surprise(-q) - surprise(-p)),
        ]
    )


def scored(gap: list[float], *h: float) -> PairLogProbs:
    base = margins(*h)
    zero = [0.0] * len(gap)
    return PairLogProbs(base.policy, base.reference, Given(scores={"score": numbers(*gap, *zero)}))


def test_by_hand() -> None:
    # policy odds 3, target odds 1 (no gap): KL(1/2, 3/4) and KL(3/4, 1/2)
    pairs = scored([0.0], 10 * math.log(3))
    close(loss(pairs, beta=0.1), [0.5 * math.log((1 / 2) / (3 / 4)) + 0.5 * math.log((1 / 2) / (1 / 4))])
    close(loss(pairs, beta=0.1, distance="fwd-kl"), [0.75 * math.log(1.5) + 0.25 * math.log(0.5)])
    close(loss(scored([3.0], 5.0), beta=0.4, eta=0.5, distance="sq"), [0.25])


@pytest.mark.parametrize("distance", DISTANCES)
def test_nothing_is_left_at_the_target(distance: str) -> None:
    h = torch.tensor([-8.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    base = margins(0, 0, 0)
    gap = {"score": torch.cat([numbers(-2, 0, 0.75), numbers(0, 0, 0)])}
    policy = PairLogProbs.from_sums(h - 50, numbers(-50, -50, -50)).policy
    value = loss(PairLogProbs(policy, base.reference, Given(scores=gap)), beta=0.25, distance=distance)
    close(value, [0, 0, 0])
    close(torch.autograd.grad(value.sum(), h)[0], [0, 0, 0])


def test_backward_kl_becomes_dpo_as_the_gap_grows() -> None:
    h = [-3.0, 0.0, 7.0]
    close(loss(scored([60.0] * 3, *h), beta=0.3), dpo(margins(*h), beta=0.3), 1e-12)


def test_backward_kl_is_cross_entropy_on_a_soft_label_less_its_entropy() -> None:
    """Its slope is that of DPO with label smoothing 1/4, where the gap says 3 to 1."""
    h = [-3.0, 0.0, 7.0]
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    smoothed = dpo(margins(*h), beta=0.3, label_smoothing=0.25)
    close(loss(scored([math.log(3)] * 3, *h), beta=0.3), smoothed - entropy)


def test_squares_with_a_gap_of_one_half_are_ipo() -> None:
    h = [-3.0, 0.0, 7.0]
    close(loss(scored([0.5] * 3, *h), beta=0.3, distance="sq"), 0.09 * ipo(margins(*h), beta=0.3))


def test_near_the_target_both_divergences_are_half_the_fisher_information_times_the_square() -> None:
    e = 1e-3
    for distance in ("bwd-kl", "fwd-kl"):
        value = loss(scored([math.log(3)], 10 * (math.log(3) + e)), beta=0.1, distance=distance)
        close(value / e**2, [0.5 * 3 / 16], 1e-3)


def test_a_worse_chosen_response_is_pushed_down() -> None:
    for distance in DISTANCES:
        high, low = loss(scored([-1.0, -1.0], 5.0, -5.0), beta=0.2, distance=distance)
        assert low < high


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="distance"):
        loss(scored([1.0], 1.0), distance="kl")
    with pytest.raises(ValueError, match="finite"):
        loss(scored([math.inf], 1.0))
    with pytest.raises(ValueError, match="'score'"):
        loss(margins(1))


@pytest.mark.parametrize("distance", ["sq", "bwd-kl", "fwd-kl"])
def test_each_agrees_with_the_rewrite(distance: str) -> None:
    known = objectives()["rpo-reward-aware"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, distance=distance)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, distance=distance), rtol=1e-10, atol=1e-12)
