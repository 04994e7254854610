"""Stepwise DPO: its loss by hand, and two steps of it against one."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.lab import TabularWorld, fit
from boresight.objectives import PairLogProbs, dpo
from boresight.objectives import sdpo_stepwise as loss
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close, margins, numbers, random_pairs


def sdpo_stepwise(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * (won - lost))


def test_by_hand() -> None:
    # odds of 3 and of 1/3: probabilities 3/4 and 1/4
    close(loss(margins(10 * math.log(3), -10 * math.log(3)), beta=0.1), [math.log(4 / 3), math.log(4)])


def test_each_step_is_dpo() -> None:
    pairs = random_pairs(3)
    torch.testing.assert_close(loss(pairs, beta=0.2), dpo(pairs, beta=0.2), rtol=0, atol=0)


def test_a_reference_that_has_gone_further_asks_for_more() -> None:
    policy, start, stepped = numbers(4.0), numbers(0.0), numbers(3.0)
    zero = numbers(0.0)
    first, second = (PairLogProbs.from_sums(policy, zero, r, zero) for r in (start, stepped))
    close(loss(second, beta=1.0) - loss(first, beta=1.0), [math.log1p(math.exp(-1)) - math.log1p(math.exp(-4))])


def test_the_optimum_of_two_steps_is_that_of_half_the_beta() -> None:
    """Unlimited pairs: each step tilts its reference by exp(reward / beta), so two tilt by exp(2 * reward / beta)."""
    world = TabularWorld.random(3, 4, 0, reward_scale=0.5)
    options = {"pairs": world.population(), "hyperparameters": {"beta": 1.0}, "steps": 800, "lr": 0.1}
    first = fit(world, "sdpo-stepwise", **options)
    second = fit(world, "sdpo-stepwise", start=first, reference=first, **options)
    for policy, beta in ((first, 1.0), (second, 0.5)):
        found = policy.logits[0].detach().log_softmax(-1)
        torch.testing.assert_close(found, world.tilted(beta), atol=1e-4, rtol=0)


def test_unusable() -> None:
    with pytest.raises(ValueError, match="beta"):
        loss(margins(0.0), beta=0.0)
