"""Dynamic beta (Wu et al. 2024) against DPO over a range of betas, where labels are flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

BETAS = (0.1, 0.3, 1.0, 3.0)


@claim(
    "beta-dpo",
    says="With 30% of the labels flipped, dynamic beta with filtering loses less true reward over a range of betas "
    "than DPO: a higher mean, nearer to the best",
    expects=(more("mean true reward"), less("lost against its best beta")),
    treatment="beta-dpo",
    baseline="dpo",
    sweep={
        "flip": (0.0, 0.15, 0.3, 0.4),
        "a": (0.0, 0.6, 2.0),
        "rho": (0.5, 0.8, 1.0),
    },
)
def beta_dpo(
    arm: Arm,
    seeds: Sequence[int],
    *,
    flip: float = 0.3,
    scale: float = 2.0,
    a: float = 0.6,
    rho: float = 0.8,
    steps: int = 150,
) -> Mapping[str, Any]:
    """A table of 40 prompts with 6 responses each, another one for each seed: normal true rewards of standard deviation
    2 (so gaps of pairs vary widely), a random reference, 1200 Bradley-Terry pairs, 30% turned over. Both methods are
    trained for 150 steps with batches of 64 at beta 0.1, 0.3, 1 and 3; the outcomes are the policy's exact expected
    true reward, its mean over the four betas, and how far that mean lies below the best of the four.

    It is the filter that does it: without dynamic beta (a = 0) the mean is as much above DPO's (0.039 +- 0.021, against
    0.040 +- 0.020), and without the filter (rho = 1) nothing is left of it (0.000 +- 0.001).
    """
    mean, lost = [], []
    for seed in seeds:
        world = TabularWorld.random(40, 6, seed, reward_scale=scale)
        pairs = world.sample_pairs(1200, [seed], flip=flip)
        own: dict[str, Any] = {"a": a, "rho": rho} if arm == "treatment" else {}
        method = "beta-dpo" if arm == "treatment" else "dpo"
        rewards = [
            float(
                fit(
                    world, method, pairs=pairs, hyperparameters={"beta": beta, **own}, steps=steps, batch=64
                ).expected_reward()
            )
            for beta in BETAS
        ]
        mean.append(sum(rewards) / len(rewards))
        lost.append(max(rewards) - mean[-1])
    return {"mean true reward": torch.tensor(mean), "lost against its best beta": torch.tensor(lost)}
