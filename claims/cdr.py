"""Density ratios of strong over weak: the further apart the two are in alignment, the better their ratio prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more

PROMPTS, RESPONSES, STAGES = 12, 10, 6
PARTS = STAGES * (STAGES + 1) // 2
"""Couples of the policies of a run."""


@cache
def couples(seed: int, pairs: int, beta: float, flip: float) -> list[tuple[float, float]]:
    """Of each couple of policies of one run the gap in expected reward and the accuracy of its ratio, sorted by gap."""
    world = TabularWorld.random(PROMPTS, RESPONSES, seed)
    policies = [world.reference]
    for stage in range(STAGES):
        drawn = world.sample_pairs(pairs, [1000 * seed + stage], flip=flip)
        before = policies[-1]
        options: dict[str, Any] = {"hyperparameters": {"beta": beta}, "steps": 50, "start": before, "reference": before}
        policies.append(fit(world, "dpo", pairs=drawn, **options).logits[0].detach().log_softmax(-1))
    found = []
    for weak, strong in combinations(policies, 2):
        gap = float(world.expected_reward(strong) - world.expected_reward(weak))
        found.append((gap, float(world.accuracy((strong - weak)[None], ratio=False)[0])))
    return sorted(found)


@claim(
    "cdr",
    says="Of pairs (strong, weak) from one alignment run, those far apart in alignment have ratios that prefer better",
    expects=more("accuracy"),
    treatment="ratios of the third of couples with the widest gap",
    baseline="ratios of the third with the narrowest gap",
    sweep={"pairs": (20, 60, 200, 1000), "beta": (0.1, 0.5, 1.0), "flip": (0.0, 0.2, 0.4)},
    smoke=True,
)
def density_ratios(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 60, beta: float = 0.5, flip: float = 0.2
) -> Mapping[str, Any]:
    """Tabular policies stand for the two models: 12 prompts with 10 responses, normal rewards. One alignment run of six
    stages, each DPO (50 steps of Adam at .05) from the policy before it, which is its reference too, on 60 pairs drawn
    from the reference policy, labelled by Bradley-Terry odds, a fifth of them flipped. Of the run's seven policies all
    21 couples are a strong and a weak one, the later being the strong one; their log-ratio is the reward. Couples are
    sorted by the gap of exact expected reward between the two; the outcome is the share of all couples of responses
    that the log-ratio puts in the right order, mean over the third with the widest gap or with the narrowest.

    The order was the same at every value that was tried (over four seeds): by .05 with 1000 pairs without flips, where
    narrow couples are right in .83 already, by .04 with two fifths flipped; with 20 pairs a stage it is undecided at
    four seeds. beta, from .1 to 1, hardly matters.
    """
    third = PARTS // 3
    place = slice(-third, None) if arm == "treatment" else slice(third)
    return {"accuracy": np.array([np.mean([a for _, a in couples(s, pairs, beta, flip)[place]]) for s in seeds])}
