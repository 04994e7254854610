"""Provably robust DPO (Ray Chowdhury et al. 2024): against DPO and conservative DPO where labels are flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

PROMPTS, RESPONSES, BETA = 40, 6, 1.0
METHODS = {"rdpo": "rdpo-robust", "dpo": "dpo", "cdpo": "dpo"}


def outcomes(method: str, seeds: Sequence[int], *, flip: float, pairs: int, beta: float, eps: float) -> Tensor:
    """(seeds, 2): the share of all pairs that the policy ranks as true reward does, and its expected true reward."""
    own = {"rdpo": {"eps": eps}, "dpo": {}, "cdpo": {"label_smoothing": eps}}[method]
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed, reward_scale=2.0)
        drawn = world.sample_pairs(pairs, [seed], flip=flip)
        policy = fit(world, METHODS[method], pairs=drawn, hyperparameters={"beta": beta, **own})
        with torch.no_grad():
            found.append([accuracy(world, policy.logits[0]), float(world.expected_reward(policy.logits))])
    return torch.tensor(found)


def accuracy(world: TabularWorld, logits: Tensor) -> float:
    """Share of pairs of the reference's responses that the implicit reward orders as true reward does."""
    ours, truth, weight = logits.log_softmax(-1) - world.reference, world.reward, world.reference.exp()
    better = truth.unsqueeze(-1) > truth.unsqueeze(-2)
    weights = weight.unsqueeze(-1) * weight.unsqueeze(-2) * better
    return float((weights * (ours.unsqueeze(-1) > ours.unsqueeze(-2))).sum() / weights.sum())


SWEEP = {"flip": (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45), "pairs": (300, 1200, 4800), "beta": (0.1, 0.3, 1.0, 3.0)}


@claim(
    "rdpo-robust",
    part="accuracy",
    says="With 35% of the labels flipped, rDPO ranks more pairs by true reward than DPO",
    expects=more("true accuracy"),
    treatment="rdpo-robust eps=0.35",
    baseline="dpo",
    sweep=SWEEP,
)
def rdpo_accuracy(
    arm: Arm, seeds: Sequence[int], *, flip: float = 0.35, pairs: int = 1200, beta: float = BETA
) -> Mapping[str, Any]:
    """A table of 40 prompts with 6 responses each, another one for each seed: normal true rewards of standard deviation
    2, a random reference, 1200 pairs whose Bradley-Terry labels are each turned over with probability `flip`, eps set
    to it, beta 1, 300 steps of Adam at 0.05. Accuracy is over all pairs of each prompt, drawn or not.
    """
    method = "rdpo" if arm == "treatment" else "dpo"
    return {"true accuracy": outcomes(method, seeds, flip=flip, pairs=pairs, beta=beta, eps=flip)[:, 0]}


@claim(
    "rdpo-robust",
    part="accuracy-cdpo",
    says="With 35% of the labels flipped, rDPO ranks more pairs by true reward than conservative DPO",
    expects=more("true accuracy"),
    treatment="rdpo-robust eps=0.35",
    baseline="dpo label_smoothing=0.35",
    sweep=SWEEP,
)
def rdpo_accuracy_cdpo(
    arm: Arm, seeds: Sequence[int], *, flip: float = 0.35, pairs: int = 1200, beta: float = BETA
) -> Mapping[str, Any]:
    """The world of `rdpo-robust/accuracy`, against DPO with labels smoothed by the share that is flipped."""
    method = "rdpo" if arm == "treatment" else "cdpo"
    return {"true accuracy": outcomes(method, seeds, flip=flip, pairs=pairs, beta=beta, eps=flip)[:, 0]}


@claim(
    "rdpo-robust",
    part="reward",
    says="With 35% of the labels flipped, rDPO's policy has a higher true reward than DPO's",
    expects=more("true reward"),
    treatment="rdpo-robust eps=0.35",
    baseline="dpo",
    sweep=SWEEP,
    smoke=True,
)
def rdpo_reward(
    arm: Arm, seeds: Sequence[int], *, flip: float = 0.35, pairs: int = 1200, beta: float = BETA
) -> Mapping[str, Any]:
    """The world of `rdpo-robust/accuracy`; the outcome is the policy's expected true reward, at the same beta.

    Flipped labels tell DPO that preferences are weaker than they are, and it moves less far; rDPO undoes that, in the
    mean over flips.
    """
    method = "rdpo" if arm == "treatment" else "dpo"
    return {"true reward": outcomes(method, seeds, flip=flip, pairs=pairs, beta=beta, eps=flip)[:, 1]}


@claim(
    "rdpo-robust",
    part="clean",
    says="With many pairs rDPO on flipped labels comes nearer than DPO to the policy that DPO learns of clean labels",
    expects=less("KL to the clean policy"),
    treatment="rdpo-robust eps=0.35",
    baseline="dpo",
    sweep={"flip": (0.1, 0.2, 0.3, 0.35, 0.4, 0.45), "pairs": (300, 1200, 4800, 19200)},
    smoke=True,
)
def rdpo_clean(arm: Arm, seeds: Sequence[int], *, flip: float = 0.35, pairs: int = 4800) -> Mapping[str, Any]:
    """The world of `rdpo-robust/accuracy` with 4800 pairs. The clean policy is the optimum, reference * exp(reward /
    beta) / Z, which DPO reaches with unlimited clean pairs; the outcome is KL(clean || learned), nats a prompt.
    """
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed, reward_scale=2.0)
        drawn = world.sample_pairs(pairs, [seed], flip=flip)
        own = {"eps": flip} if arm == "treatment" else {}
        method = "rdpo-robust" if arm == "treatment" else "dpo"
        policy = fit(world, method, pairs=drawn, hyperparameters={"beta": BETA, **own})
        clean = world.tilted(BETA)
        with torch.no_grad():
            found.append(float((clean.exp() * (clean - policy.logits[0].log_softmax(-1))).sum(-1).mean()))
    return {"KL to the clean policy": torch.tensor(found)}
