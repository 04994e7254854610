"""MODPO (Zhou et al. 2023): its optimum is that of weighted rewards, and its front against interpolated policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, identity, more
from boresight.lab.tokens import TokenWorld, fit_tokens

BETA = 0.5
FRONT = (0.1, 0.3, 0.5, 0.7, 0.9)


@identity(
    "modpo",
    part="optimum",
    says="At each weight MODPO converges to the optimum of reinforcement learning on the weighted rewards",
    tolerance=1e-3,
    altered="the other reward's margin turned round",
    smoke=True,
)
def modpo_optimum(seeds: Sequence[int], *, altered: bool) -> Any:
    """A table of 3 prompts with 4 responses, another one for each seed, with two normal rewards of which the second is
    minus half of the first plus noise. Infinite pairs, chosen by the first; the second's true values are the scores.
    The residual is the largest KL in nats, mean over prompts, of the tilted policy reference * exp((w * first +
    (1 - w) * second) / beta) / Z from the learned one, at w = 0.1, 0.5 and 0.9, beta 0.5.
    """
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        first, noise, reference = torch.randn(3, 3, 4, generator=rng, dtype=torch.float64)
        second = noise - first / 2
        scores = {"other": -second if altered else second}
        world = TabularWorld(first, reference, rewards=scores)
        worst = 0.0
        for weight in (0.1, 0.5, 0.9):
            own = {"beta": BETA, "weight": weight, "others": "other"}
            policy = fit(world, "modpo", pairs=world.population(), hyperparameters=own, steps=600, lr=0.1)
            wanted = (world.reference + (weight * first + (1 - weight) * second) / BETA).log_softmax(-1)
            with torch.no_grad():
                apart = (wanted.exp() * (wanted - policy.logits[0].log_softmax(-1))).sum(-1).mean()
            worst = max(worst, float(apart))
        found.append(worst)
    return torch.tensor(found)


def values(world: TokenWorld, logits: Tensor) -> Tensor:
    """Expected first and second reward less beta * KL, (2,)."""
    both = [world.expected_reward(logits, name) - BETA * world.kl(logits) for name in ("score", "other")]
    return torch.stack(both).flatten().detach()


@claim(
    "modpo",
    part="interpolation",
    says="Over the weights MODPO's policies are worth more than interpolations of two DPO policies",
    expects=more("weighted value"),
    treatment="modpo, one policy for each of five weights",
    baseline="logits of two dpo policies, interpolated",
    sweep={"pairs": (100, 400, 1600), "scale": (0.5, 1.0, 2.0)},
)
def modpo_interpolation(arm: Arm, seeds: Sequence[int], *, pairs: int = 400, scale: float = 1.0) -> Mapping[str, Any]:
    """Six prompts, responses of 4 tokens over a vocabulary of 5, another random reference for each seed; two rewards of
    tokens at places of their own, both normal. As many pairs are labelled by the one as by the other; MODPO is trained
    on the first's, with the second's true rewards as scores, which is more than the DPO policies know of it. Value is
    the weighted sum of expected rewards less beta * KL, exact, mean over the weights 0.1, 0.3, 0.5, 0.7 and 0.9, beta
    0.5. In a table of whole responses, without tokens, the two would have one optimum.
    """
    found = []
    for seed in seeds:
        plain, twin = (TokenWorld.random(6, 5, 4, s, reward_scale=scale) for s in (seed, seed + 10_000))
        other = twin.reward()
        world = TokenWorld(plain.reference, plain.reward(), rewards={"other": other})
        first = world.sample_pairs(pairs, [seed])
        policies = []
        if arm == "treatment":
            for weight in FRONT:
                own = {"beta": BETA, "weight": weight, "others": "other"}
                policies.append(fit_tokens(world, "modpo", pairs=first, hyperparameters=own, steps=150).logits)
        else:
            second = world.sample_pairs(pairs, [seed + 500], by="other")
            one, two = (
                fit_tokens(world, "dpo", pairs=p, hyperparameters={"beta": BETA}, steps=150).logits
                for p in (first, second)
            )
            policies = [weight * one + (1 - weight) * two for weight in FRONT]
        each = torch.stack([values(world, logits.detach()) for logits in policies])
        weights = torch.tensor(FRONT, dtype=torch.float64)
        found.append((weights * each[:, 0] + (1 - weights) * each[:, 1]).mean())
    return {"weighted value": torch.stack(found)}
