"""DPO with an offset (Amini et al. 2024): scores in the margin, against DPO at the same distance from the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more

PROMPTS, RESPONSES, STEPS = 20, 8, 150


@claim(
    "odpo",
    says="With a few hundred scored pairs, ODPO reaches a higher true reward than DPO at the same KL",
    expects=more("true reward at this KL"),
    treatment="odpo",
    baseline="dpo",
    sweep={
        "kl": (0.1, 0.2, 0.4, 0.6, 0.8),
        "pairs": (100, 300, 1000, 3000),
        "scale": (0.3, 1.0, 3.0),
        "beta": (0.1, 0.3, 1.0),
    },
)
def odpo(
    arm: Arm, seeds: Sequence[int], *, kl: float = 0.6, pairs: int = 300, scale: float = 1.0, beta: float = 0.1
) -> Mapping[str, Any]:
    """A table of 20 prompts with 8 responses, another world for each seed, true rewards of standard deviation `scale`.
    300 pairs drawn from the reference, the better by true reward chosen, scored by true reward. Each arm is trained for
    150 steps of Adam at 0.1 with beta 0.1; its path leads away from the reference, and the outcome is the exact
    true reward where it passes the KL of 0.6 nats, between two steps by a straight line.
    """
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed, reward_scale=scale)
        drawn = world.sample_pairs(pairs, [seed], certainty=float("inf"))
        path = [(0.0, float(world.expected_reward(world.reference)))]
        fit(
            world,
            "odpo" if arm == "treatment" else "dpo",
            pairs=drawn,
            hyperparameters={"beta": beta},
            steps=STEPS,
            lr=0.1,
            decay=False,
            watch=lambda _, p, path=path: path.append((float(p.kl()), float(p.expected_reward()))),
        )
        gone, reward = np.maximum.accumulate([k for k, _ in path]), [r for _, r in path]
        if gone[-1] < kl:
            raise RuntimeError(f"the path of seed {seed} ends at a KL of {gone[-1]:.2f}, before {kl}")
        found.append(float(np.interp(kl, gone, reward)))
    return {"true reward at this KL": found}
