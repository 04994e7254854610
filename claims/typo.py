"""TYPO (Hu et al. 2024): good prompts kept while bad ones are mended, where DPO must trade one for the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, same

PROMPTS, RESPONSES = 6, 4
BETAS = (0.1, 0.3, 1.0, 3.0, 10.0)


def made(seed: int) -> tuple[TabularWorld, Tensor]:
    """Prompts of which the first half has the best policy as reference and the others its opposite; the best policy."""
    rng = torch.Generator().manual_seed(seed)
    reward = torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
    good = torch.arange(PROMPTS)[:, None] < PROMPTS // 2
    return TabularWorld(reward, torch.where(good, reward, -reward)), reward.log_softmax(-1)


def distances(method: str, seed: int, own: dict[str, float], steps: int) -> Tensor:
    """KL(best || policy) in nats, mean over the good and over the bad prompts, (2,)."""
    world, wanted = made(seed)
    even = torch.zeros_like(world.reference)
    data = world.population(proposal=even)
    policy = fit(world, method, pairs=data, hyperparameters=own, steps=steps, lr=0.1, samples=16, seed=seed)
    with torch.no_grad():
        apart = (wanted.exp() * (wanted - policy.logits[0].log_softmax(-1))).sum(-1)
    return apart.view(2, -1).mean(1)


def best(seed: int, method: str, steps: int) -> Tensor:
    """The distances of a method at that beta at which the larger of the two is least."""
    found = [distances(method, seed, {"beta": beta}, steps) for beta in BETAS]
    return min(found, key=lambda pair: float(pair.max()))


SWEEP = {"lam": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "steps": (50, 100, 300)}


@claim(
    "typo",
    part="dpo",
    says="With half of the prompts right TYPO is nearer to the best policy on its worse half than DPO at any beta",
    expects=less("KL on the worse half"),
    treatment="typo lam=0.01",
    baseline="dpo at the best of five beta",
    sweep=SWEEP,
)
def typo_dpo(arm: Arm, seeds: Sequence[int], *, lam: float = 0.01, steps: int = 100) -> Mapping[str, Any]:
    """A table of 6 prompts with 4 responses each, another one for each seed. The best policy has the odds of the
    Bradley-Terry preferences, softmax(reward). On half of the prompts the reference is that policy, on the others its
    opposite, softmax(-reward). Infinite data: every pair of responses alike often, chosen by true reward; TYPO has 16
    samples of the reference for each. The outcome is KL(best || policy) in nats, on the good or on the bad prompts,
    whichever is worse; for DPO at that of beta 0.1, 0.3, 1, 3, 10 where it is least, which no practitioner could know.
    """
    each = [distances("typo", s, {"lam": lam}, steps) if arm == "treatment" else best(s, "dpo", steps) for s in seeds]
    return {"KL on the worse half": torch.stack(each).amax(1)}


@claim(
    "typo",
    part="ipo",
    says="With half of the prompts right TYPO is nearer to the best policy on its worse half than IPO at any beta",
    expects=less("KL on the worse half"),
    treatment="typo lam=0.01",
    baseline="ipo at the best of five beta",
    sweep=SWEEP,
)
def typo_ipo(arm: Arm, seeds: Sequence[int], *, lam: float = 0.01, steps: int = 100) -> Mapping[str, Any]:
    """The world of `typo/dpo`, against IPO."""
    each = [distances("typo", s, {"lam": lam}, steps) if arm == "treatment" else best(s, "ipo", steps) for s in seeds]
    return {"KL on the worse half": torch.stack(each).amax(1)}


@claim(
    "typo",
    part="interpolation",
    says="TYPO keeps the good prompts, with the bad ones between the reference and the best policy",
    expects=(less("KL on bad prompts", by=0.1), same("KL on good prompts", within=0.05)),
    treatment="typo lam=0.3",
    baseline="the reference",
    sweep={"lam": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)},
    smoke=True,
)
def typo_interpolation(arm: Arm, seeds: Sequence[int], *, lam: float = 0.3, steps: int = 100) -> Mapping[str, Any]:
    """The world of `typo/dpo`; KL(best || policy) in nats. The sweep shows how it goes from the best policy to the
    reference as lam grows, on the bad prompts, while nothing is lost on the good ones.
    """
    own, steps = ({"lam": lam}, steps) if arm == "treatment" else ({"lam": lam}, 0)
    good, bad = torch.stack([distances("typo", s, own, steps) for s in seeds]).T
    return {"KL on good prompts": good, "KL on bad prompts": bad}
