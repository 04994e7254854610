"""LiPO (Liu et al. 2025): lists of scored responses against the pairs that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Lists

PROMPTS, RESPONSES, LISTS = 15, 12, 60
SWEEP = {"k": (2, 4, 6, 8), "noise": (0.0, 0.5, 1.0), "beta": (0.05, 0.2, 1.0), "steps": (30, 100, 300)}


def outcome(
    which: str | None, seeds: Sequence[int], *, k: int, noise: float, beta: float, steps: int
) -> Mapping[str, Any]:
    """Expected true reward, (seeds,), of LiPO-lambda, or of DPO on the pairs so called."""
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed)
        lists = labelled(world.sample_lists(LISTS, k, [seed], noise=noise))
        data = lists if which is None else lists.pairs(which)
        method = "lipo" if which is None else "dpo"
        policy = fit(world, method, pairs=data, hyperparameters={"beta": beta}, steps=steps, seed=seed)
        found.append(policy.expected_reward().detach())
    return {"true reward": torch.cat(found)}


def labelled(lists: Lists) -> Lists:
    """Graded as in the paper: a response's mean chance to win against its list, by the scores, in [0, 1]."""
    score: Tensor = lists.grades
    return replace(lists, grades=torch.sigmoid(score[..., :, None] - score[..., None, :]).mean(-1))


@claim(
    "lipo",
    part="best-worst",
    says="With lists of 6 scored responses, LiPO-lambda ends with a higher true reward than DPO on best against worst",
    expects=more("true reward"),
    treatment="lipo",
    baseline="dpo on the best and the worst of each list",
    sweep=SWEEP,
)
def lipo_best_worst(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, noise: float = 0.5, beta: float = 0.2, steps: int = 100
) -> Mapping[str, Any]:
    """A table of 15 prompts with 12 responses each, another one for each seed, rewards and reference logits normal with
    standard deviation 1. 60 lists of k different responses of the reference, scored by true reward plus noise; labels
    are mean win rates in the list, as in the paper. Both arms see the same lists, at the same beta, for as many steps
    of Adam at 0.05.

    Where it stops holding: with lists of two both see the same. At the paper's beta of 0.05, where rewards of this
    scale ask for log-ratios of 20 and more, 100 steps of a table decide nothing (+0.02 +/- 0.04), and 300 favour
    neither (-0.07 +/- 0.09); the larger beta, and the noisier the scores, the more the whole list is worth.
    The beta here was chosen after that.
    """
    which = None if arm == "treatment" else "best-worst"
    return outcome(which, seeds, k=k, noise=noise, beta=beta, steps=steps)


@claim(
    "lipo",
    part="random",
    says="With lists of 6 scored responses, LiPO-lambda ends with a higher true reward than DPO on random pairs",
    expects=more("true reward"),
    treatment="lipo",
    baseline="dpo on a random pair of each list",
    sweep=SWEEP,
    smoke=True,
)
def lipo_random(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, noise: float = 0.5, beta: float = 0.2, steps: int = 100
) -> Mapping[str, Any]:
    """The world of `lipo/best-worst`; DPO has one couple of each list, drawn at random."""
    which = None if arm == "treatment" else "random"
    return outcome(which, seeds, k=k, noise=noise, beta=beta, steps=steps)
