"""Differential information (Won et al. 2025): which rejected responses make a given target the optimum of DPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.diagnostics import rejected_law
from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, identity, less
from boresight.lab.drawn import Pairs

PROMPTS, RESPONSES = 4, 6


def distance(
    method: str, seeds: Sequence[int], *, law: str, beta: float, power: float = 1.0, scale: float = 1.0
) -> Tensor:
    """KL(target || policy) in nats after training on all pairs of chosen ~ reference and rejected ~ law, (seeds,).

    law: "right", its (reference / target) to `power` times beta; "even"; or "tilted", another random target's.
    """
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        draws = scale * torch.randn(3, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        reference, target, another = draws.log_softmax(-1)
        world = TabularWorld(torch.zeros_like(reference), reference)
        rejected = torch.zeros_like(reference)
        if law != "even":
            rejected = rejected_law(reference, target if law == "right" else another, power * beta)
        pairs: Pairs = world.population(rejected=rejected)
        own = {"beta": beta} if method != "simpo" else {"beta": beta, "gamma_beta_ratio": 0.0}
        policy = fit(world, method, pairs=pairs, hyperparameters=own, steps=300, lr=0.1)
        learned = policy.log_probs()[0].detach()
        found.append((target.exp() * (target - learned)).sum(-1).mean())
    return torch.stack(found)


@identity(
    "differential-information",
    part="recovers",
    says="With the chosen from the reference and the rejected from ref * (ref / target)^beta, DPO's optimum is the "
    "target",
    tolerance=1e-2,
    altered="the rejected from ref * (ref / target)^(2 beta)",
    smoke=True,
)
def recovers(seeds: Sequence[int], *, altered: bool) -> Tensor:
    """Four prompts with 6 responses, another reference and target for each seed; every pair, weighted by how often it
    occurs. The residual is KL(target || policy) after 300 steps of Adam at 0.1, beta 0.5;
    what is left of it is what more steps would take away.
    """
    return distance("dpo", seeds, law="right", beta=0.5, power=2.0 if altered else 1.0)


@claim(
    "differential-information",
    part="law",
    says="DPO comes nearer to the target with that law of the rejected than with an even one",
    expects=less("KL to the target"),
    treatment="rejected from ref * (ref / target)^beta",
    baseline="rejected drawn evenly",
    sweep={"beta": (0.1, 0.5, 1.0, 2.0), "scale": (0.5, 1.0, 2.0), "other": ("even", "tilted")},
    smoke=True,
)
def law(
    arm: Arm, seeds: Sequence[int], *, beta: float = 0.5, scale: float = 1.0, other: str = "even"
) -> Mapping[str, Any]:
    """The world of `differential-information/recovers`. other="tilted": the law that is right for another target."""
    which = "right" if arm == "treatment" else other
    return {"KL to the target": distance("dpo", seeds, law=which, beta=beta, scale=scale)}


@claim(
    "differential-information",
    part="reward",
    says="On the same pairs, DPO's log-ratio comes nearer to the target than a reward without the reference",
    expects=less("KL to the target"),
    treatment="dpo",
    baseline="simpo without its margin",
    sweep={"beta": (0.1, 0.5, 1.0, 2.0), "scale": (0.5, 1.0, 2.0)},
    smoke=True,
)
def log_ratio(arm: Arm, seeds: Sequence[int], *, beta: float = 0.5, scale: float = 1.0) -> Mapping[str, Any]:
    """The world of `differential-information/recovers`, with the right law of the rejected in both arms. Responses are
    one token, so that SimPO without its margin is beta times the log-prob.
    """
    method = "dpo" if arm == "treatment" else "simpo"
    return {"KL to the target": distance(method, seeds, law="right", beta=beta, scale=scale)}
