"""Contrastive preference optimisation (Xu et al. 2024): what each of its two terms is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

PROMPTS, RESPONSES, WIDTH = 20, 8, 16
SWEEP = {"pairs": (100, 400, 1600), "width": (8, 16, 32), "beta": (0.1, 0.3, 1.0), "steps": (50, 150, 600)}


def outcomes(
    method: str, lam: float, seeds: Sequence[int], *, pairs: int, width: int, beta: float, steps: int
) -> dict[str, Tensor]:
    """Exact true reward and the chosen log-prob of the training pairs; method "" is the reference."""
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed)
        drawn = world.sample_pairs(pairs, [seed])
        rng = torch.Generator().manual_seed(10_000 + seed)
        features = torch.randn(PROMPTS, RESPONSES, width, generator=rng, dtype=torch.float64)
        features = torch.cat([features, world.reward[..., None]], 2)
        policy = world.policy(1)
        if method:
            own = {"beta": beta, "lam": lam} if method == "cpo" else {}
            policy = fit(world, method, pairs=drawn, hyperparameters=own, features=features, steps=steps)
        found.append([float(policy.expected_reward()), float(policy.mean_log_probs(drawn)[0])])
    return dict(zip(("true reward", "chosen log-prob"), torch.tensor(found).T, strict=True))


@claim(
    "cpo",
    part="sft",
    says="CPO ends with a higher true reward than SFT on the chosen responses of the same pairs",
    expects=more("true reward"),
    treatment="cpo",
    baseline="sft",
    sweep=SWEEP,
)
def against_sft(
    arm: Arm,
    seeds: Sequence[int],
    *,
    pairs: int = 400,
    width: int = WIDTH,
    beta: float = 0.1,
    steps: int = 150,
) -> Mapping[str, Any]:
    """A softmax policy over 20 prompts with 8 responses, another world for each seed; 400 Bradley-Terry pairs from the
    reference. Logits are the reference's plus weights times features, shared by all prompts: 16 random ones and the
    true reward itself, so that there is something to be learnt across prompts. Adam, 150 steps at 0.05, beta 0.1, lam
    1.
    """
    method = "cpo" if arm == "treatment" else "sft"
    found = outcomes(method, 1.0, seeds, pairs=pairs, width=width, beta=beta, steps=steps)
    return {"true reward": found["true reward"]}


@claim(
    "cpo",
    part="alone",
    says="The preference term alone lowers the chosen log-prob",
    expects=less("chosen log-prob"),
    treatment="cpo lam=0",
    baseline="the reference",
    sweep=SWEEP,
)
def alone(
    arm: Arm,
    seeds: Sequence[int],
    *,
    pairs: int = 400,
    width: int = WIDTH,
    beta: float = 0.1,
    steps: int = 150,
) -> Mapping[str, Any]:
    """The world of `cpo/sft`; log-probs are of the training pairs."""
    method = "cpo" if arm == "treatment" else ""
    found = outcomes(method, 0.0, seeds, pairs=pairs, width=width, beta=beta, steps=steps)
    return {"chosen log-prob": found["chosen log-prob"]}


@claim(
    "cpo",
    part="kept",
    says="The likelihood term keeps the chosen log-prob from falling",
    expects=more("chosen log-prob"),
    treatment="cpo",
    baseline="the reference",
    sweep=SWEEP,
)
def kept(
    arm: Arm,
    seeds: Sequence[int],
    *,
    pairs: int = 400,
    width: int = WIDTH,
    beta: float = 0.1,
    steps: int = 150,
) -> Mapping[str, Any]:
    """The world of `cpo/sft`: with both terms it ends above where it began."""
    method = "cpo" if arm == "treatment" else ""
    found = outcomes(method, 1.0, seeds, pairs=pairs, width=width, beta=beta, steps=steps)
    return {"chosen log-prob": found["chosen log-prob"]}
