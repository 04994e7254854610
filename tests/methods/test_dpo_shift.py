"""DPO-Shift: the rejected reward times c <= 1."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from boresight.objectives import dpo_shift as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close, numbers, random_pairs


def dpo_shift(pair: Pair, beta: float, f: float, f_schedule: str) -> float:
    t = pair.around.progress
    c = {"fixed": f, "increase": f * (1 - t) + t, "decrease": 1 - t + f * t}[f_schedule]
    won, lost = implicit_rewards(pair)
    return surprise(beta * won - c * beta * lost)


def gains(chosen: list[float], rejected: list[float], progress: float | None = None) -> PairLogProbs:
    """Pairs of these log-ratios, the reference at -40."""
    a, b = numbers(*chosen), numbers(*rejected)
    base = PairLogProbs.from_sums(a - 40, b - 40, torch.full_like(a, -40), torch.full_like(a, -40))
    return PairLogProbs(base.policy, base.reference, Given(progress=progress))


def test_by_hand() -> None:
    # beta (a - f b) = 0.1 (4 + 0.5 * 12) = 1; with both gains log 3 / beta, f = 1/2 leaves half of it
    close(loss(gains([4.0], [-12.0]), beta=0.1, f=0.5), [math.log1p(math.exp(-1))])
    both = 20 * math.log(3)
    close(loss(gains([both], [both]), beta=0.1, f=0.5), [math.log(4 / 3)])


def test_f_of_one_is_dpo_to_the_last_bit() -> None:
    pairs = random_pairs()
    close(loss(pairs, beta=0.3, f=1.0), dpo(pairs, beta=0.3), 0)


@pytest.mark.parametrize(("schedule", "start", "end"), [("increase", 0.6, 1.0), ("decrease", 1.0, 0.6)])
def test_schedules_go_from_end_to_end_and_through_the_middle(schedule: str, start: float, end: float) -> None:
    for progress, c in ((0.0, start), (1.0, end), (0.5, 0.8), (0.25, start + (end - start) / 4)):
        pairs = gains([1.0, -2.0], [-3.0, 5.0], progress)
        close(loss(pairs, f=0.6, f_schedule=schedule), loss(pairs, f=c))


def test_slopes_on_the_two_sides_stand_as_one_to_f() -> None:
    c, r = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-5.0, -6.0))
    value = loss(PairLogProbs.from_sums(c, r, numbers(-5.5), numbers(-6.5)), f=0.7)
    up, down = torch.autograd.grad(value.sum(), [c, r])
    close(down, -0.7 * up)


def test_progress_is_asked_for_only_by_a_schedule() -> None:
    loss(gains([1.0], [0.0]))
    with pytest.raises(ValueError, match="progress"):
        loss(gains([1.0], [0.0]), f_schedule="increase")


@pytest.mark.parametrize("bad", [{"f": 0.0}, {"f": 1.01}, {"f_schedule": "cosine"}, {"beta": 0.0}])
def test_unusable_values_are_named(bad: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        loss(gains([1.0], [0.0]), **bad)


@pytest.mark.parametrize("f_schedule", ["fixed", "increase", "decrease"])
def test_each_agrees_with_the_rewrite(f_schedule: str) -> None:
    known = objectives()["dpo-shift"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, f_schedule=f_schedule)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, f_schedule=f_schedule), rtol=1e-10, atol=1e-12)
