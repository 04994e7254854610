"""Reward-aware preference optimisation (Sun et al. 2025): graded gaps, and what DPO makes of near-ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

PROMPTS, RESPONSES = 20, 8
NAMES = ("correlation with true gaps", "implicit margin of near-ties", "true reward")
SWEEP = {"pairs": (100, 400, 1600), "noise": (0.0, 0.5, 1.0, 2.0), "steps": (50, 200, 800)}


def outcomes(distance: str, seeds: Sequence[int], *, pairs: int, noise: float, steps: int) -> dict[str, Tensor]:
    """Over all couples of responses; distance "" is DPO."""
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed)
        drawn = world.sample_pairs(pairs, [seed], certainty=float("inf"))
        rng = torch.Generator().manual_seed(10_000 + seed)
        scores = [
            world.reward[drawn.prompt, side] + noise * torch.randn(side.shape, generator=rng, dtype=torch.float64)
            for side in (drawn.chosen, drawn.rejected)
        ]
        own = {"beta": 0.2} | ({"distance": distance} if distance else {})
        method = "rpo-reward-aware" if distance else "dpo"
        policy = fit(world, method, pairs=drawn.scored("score", *scores), hyperparameters=own, steps=steps, lr=0.1)
        implicit = gaps(0.2 * (policy.log_probs().detach()[0] - world.reference))
        true = gaps(world.reward)
        ties = implicit[true.abs() < 0.2].abs().mean()
        agree = torch.corrcoef(torch.stack([implicit, true]))[0, 1]
        found.append([float(agree), float(ties), float(policy.expected_reward())])
    return dict(zip(NAMES, torch.tensor(found).T, strict=True))


def gaps(table: Tensor) -> Tensor:
    """The differences of all couples of responses to one prompt."""
    first, second = torch.combinations(torch.arange(table.shape[1])).unbind(1)
    return (table[:, first] - table[:, second]).flatten()


@claim(
    "rpo-reward-aware",
    part="bwd-kl",
    says="With graded gaps, implicit margins follow true gaps better than DPO's, near-ties are pushed less, "
    "and true reward ends higher",
    expects=(more(NAMES[0]), less(NAMES[1]), more(NAMES[2])),
    treatment="rpo-reward-aware distance=bwd-kl",
    baseline="dpo",
    sweep=SWEEP,
)
def backward(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 400, noise: float = 0.0, steps: int = 200
) -> Mapping[str, Any]:
    """A table of 20 prompts with 8 responses, another world for each seed, normal true rewards; 400 pairs, the better
    by true reward chosen and both scored by it, plus normal noise of standard deviation `noise`. Adam, 200 steps at
    0.1, beta 0.2. Correlation and margins (beta times the difference of log-ratios) are over all couples of responses
    to a prompt, drawn or not; near-ties are those whose true rewards are closer than 0.2.
    """
    return outcomes("bwd-kl" if arm == "treatment" else "", seeds, pairs=pairs, noise=noise, steps=steps)


@claim(
    "rpo-reward-aware",
    part="sq",
    says="The same with the squared distance",
    expects=(more(NAMES[0]), less(NAMES[1]), more(NAMES[2])),
    treatment="rpo-reward-aware distance=sq",
    baseline="dpo",
    sweep=SWEEP,
)
def squared(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 400, noise: float = 0.0, steps: int = 200
) -> Mapping[str, Any]:
    """The world of `rpo-reward-aware/bwd-kl`."""
    return outcomes("sq" if arm == "treatment" else "", seeds, pairs=pairs, noise=noise, steps=steps)


@claim(
    "rpo-reward-aware",
    part="fwd-kl",
    says="The same with the forward divergence",
    expects=(more(NAMES[0]), less(NAMES[1]), more(NAMES[2])),
    treatment="rpo-reward-aware distance=fwd-kl",
    baseline="dpo",
    sweep=SWEEP,
)
def forward(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 400, noise: float = 0.0, steps: int = 200
) -> Mapping[str, Any]:
    """The world of `rpo-reward-aware/bwd-kl`."""
    return outcomes("fwd-kl" if arm == "treatment" else "", seeds, pairs=pairs, noise=noise, steps=steps)
