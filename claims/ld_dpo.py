"""LD-DPO (Liu et al. 2024): annotators who like length, and a loss that does not count the tail in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab.claims import Arm, claim, less, same
from boresight.lab.tokens import TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, PAIRS, STEPS = 4, 8, 12, 400, 100


def outcomes(alpha: float, seeds: Sequence[int], *, length_bias: float, beta: float) -> tuple[Tensor, Tensor]:
    """Exact mean length, and the share of unbiased pairs of equal length in true order, (seeds,)."""
    found = []
    for seed in seeds:
        world = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed, decisive=LENGTH, reward_scale=0.5, ends=True)
        drawn = world.sample_pairs(PAIRS, [seed], length_bias=length_bias)
        own = {"beta": beta, "alpha": alpha}
        policy = fit_tokens(
            world, "ld-dpo", pairs=drawn, hyperparameters=own, features=features(world, seed), steps=STEPS
        )
        held_out = world.sample_pairs(4 * PAIRS, [seed + 500_000])
        lengths = [world.lengths(world.tokens(side)) for side in (held_out.chosen, held_out.rejected)]
        alike = (lengths[0] == lengths[1]).nonzero()[:, 1][None]
        accuracy = float(policy.accuracy(held_out.take(alike)))
        found.append([float(policy.expected_length()), accuracy])
    return tuple(torch.tensor(found).T)  # type: ignore[return-value]


def features(world: TokenWorld, seed: int) -> Tensor:
    """Of each place in each prompt: the previous token, and 8 normal numbers."""
    rng = torch.Generator().manual_seed(10_000 + seed)
    before = torch.eye(world.contexts[2], dtype=torch.float64).expand(*world.contexts, -1)
    return torch.cat([before, torch.randn(*world.contexts, 8, generator=rng, dtype=torch.float64)], -1)


SWEEP = {"alpha": (0.0, 0.25, 0.5, 0.75), "length_bias": (0.0, 0.5, 1.0), "beta": (0.1, 0.3, 1.0)}


@claim(
    "ld-dpo",
    says="Where annotators like length for itself, LD-DPO's samples are shorter than DPO's, at a like accuracy on "
    "pairs of equal length",
    expects=(less("mean length"), same("accuracy at equal length", within=0.03)),
    treatment="ld-dpo alpha=0.5",
    baseline="dpo",
    sweep=SWEEP,
)
def ld_dpo(
    arm: Arm, seeds: Sequence[int], *, alpha: float = 0.5, length_bias: float = 0.5, beta: float = 0.1
) -> Mapping[str, Any]:
    """Four prompts, 8 tokens of which one ends a response, at most 12 tokens; another world for each seed. Logits of
    the next token are the reference's plus weights times features, the previous token and 8 random numbers of each
    place: what is learnt at one place moves the others, as in a language model. Tokens earn normal true rewards of
    standard deviation 0.5 at their places, the end nothing. 400 pairs from the reference, chosen with log-odds
    (difference of rewards) + 0.5 (difference of lengths). Adam, 100 steps at 0.05, beta 0.1. Mean length is exact, with
    the token that ends a response. Accuracy is the share of unbiased held-out pairs of equal length whose log-ratios
    stand in the order of true reward; "like" is within 3 points. In a first world, without shared features, it was
    undecided.
    """
    length, accuracy = outcomes(alpha if arm == "treatment" else 1.0, seeds, length_bias=length_bias, beta=beta)
    return {"mean length": length, "accuracy at equal length": accuracy}
