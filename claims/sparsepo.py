"""SparsePO (Christopoulou et al. 2024): masks find the token that decides, and the rest stays with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from boresight.lab.claims import Arm, claim, less, more
from boresight.lab.tokens import TokenPolicy, TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, PAIRS, WIDTH = 4, 6, 6, 200, 8


def made(seed: int) -> TokenWorld:
    """A world in which one place of each prompt decides; hidden states tell prompt and place, by a random vector."""
    world = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed=seed, decisive=1)
    rng = torch.Generator().manual_seed(seed)
    place = torch.randn(PROMPTS, LENGTH, 1, WIDTH, generator=rng, dtype=torch.float64)
    world.states = place.expand(*world.contexts, WIDTH)
    return world


@cache
def path(method: str, seed: int, *, steps: int, beta: float, **own: Any) -> tuple[Tensor, Tensor, TokenPolicy]:
    """Exact expected reward and KL after each step, and the policy at the end."""
    world, seen = made(seed), []

    def watch(_: int, policy: TokenPolicy) -> None:
        seen.append((float(policy.expected_reward()), float(policy.kl())))

    policy = fit_tokens(
        world,
        method,
        pairs=world.sample_pairs(PAIRS, [seed], certainty=4.0),
        hyperparameters={"beta": beta} | own,
        steps=steps,
        lr=0.02,
        seed=seed,
        watch=watch,
    )
    rewards, kls = torch.tensor(seen).T
    return rewards, kls, policy


@claim(
    "sparsepo",
    part="masks",
    says="Where one token decides the preference, the learned mask is larger on it than on the others",
    expects=more("mask"),
    treatment="places that decide",
    baseline="all other places",
    sweep={"l1": (0.0, 0.001, 0.01), "masks": ("common", "independent"), "steps": (50, 150)},
)
def sparsepo_masks(
    arm: Arm, seeds: Sequence[int], *, l1: float = 0.001, masks: str = "common", steps: int = 150
) -> Mapping[str, Any]:
    """Sequences of 6 tokens out of 6 after each of 4 prompts, another world for each seed; one place of each prompt
    decides the reward. 200 pairs of a rather sure annotator (Bradley-Terry at 4 times the reward). The hidden state
    that the masks read is a random vector of width 8 for each prompt and place. 150 steps of Adam at 0.02, beta 0.1.
    Measured is the reward mask at the end, mean over places.
    """
    found = []
    for seed in seeds:
        _, _, policy = path("sparsepo", seed, steps=steps, beta=0.1, l1=l1, masks=masks)
        world = policy.world
        head = policy.heads[0]["mask" if masks == "common" else "reward_mask"]
        with torch.no_grad():
            mask = head(world.states[:, :, 0])[..., 0].relu()
        decides = (world.reward() != 0).any(-1)
        found.append(float(mask[decides if arm == "treatment" else ~decides].mean()))
    return {"mask": found}


@claim(
    "sparsepo",
    part="frontier",
    says="SparsePO reaches the same true reward at a lower KL than DPO",
    expects=less("KL at equal reward"),
    treatment="sparsepo",
    baseline="dpo",
    sweep={"share": (0.25, 0.5, 0.9), "beta": (0.1, 0.5)},
)
def sparsepo_frontier(arm: Arm, seeds: Sequence[int], *, share: float = 0.5, beta: float = 0.1) -> Mapping[str, Any]:
    """The same worlds. Exact reward and KL to the reference are followed through 150 steps of both methods; the KL is
    read off, between steps, where a method first has `share` of the gain in reward that the lesser of the two has at
    its best.

    Not shown: the interval holds 0 at half of the gain and beta 0.1, where the KL is rather higher than DPO's. The
    masks do find the deciding place; why that does not pay was not looked into. Other shares, betas and weights of
    l1 were not tried.
    """
    found = []
    for seed in seeds:
        paths = {m: path(m, seed, steps=150, beta=beta)[:2] for m in ("sparsepo", "dpo")}
        world = made(seed)
        start = float(world.expected_reward(world.reference))
        target = start + share * (min(float(r.max()) for r, _ in paths.values()) - start)
        found.append(kl_at(*paths["sparsepo" if arm == "treatment" else "dpo"], start, target))
    return {"KL at equal reward": found}


def kl_at(rewards: Tensor, kls: Tensor, start: float, target: float) -> float:
    """KL where the reward first reaches the target, on a straight line between steps; the path begins at KL 0."""
    rewards = torch.cat([torch.tensor([start]), rewards])
    kls = torch.cat([torch.zeros(1), kls])
    place = max(1, int((rewards >= target).long().argmax()))
    low, high = float(rewards[place - 1]), float(rewards[place])
    part = (target - low) / (high - low) if high > low else 0.0
    return float(kls[place - 1] + part * (kls[place] - kls[place - 1]))
