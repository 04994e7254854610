"""LN-DPO (Ahrabian et al. 2024): log-ratios per token, where chosen responses tend to be longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab.claims import Arm, claim, less, same
from boresight.lab.tokens import TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, PAIRS, STEPS = 4, 8, 12, 400, 100


def outcomes(method: str, seeds: Sequence[int], *, beta: float, length_bias: float) -> dict[str, Tensor]:
    """Exact mean length, and the share of held-out biased pairs whose chosen response has the larger implicit reward:
    the log-ratio for DPO, the log-ratio a token for LN-DPO.
    """
    found = []
    for seed in seeds:
        world = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed, decisive=LENGTH, reward_scale=0.5, ends=True)
        drawn = world.sample_pairs(PAIRS, [seed], length_bias=length_bias)
        policy = fit_tokens(
            world, method, pairs=drawn, hyperparameters={"beta": beta}, features=features(world, seed), steps=STEPS
        )
        held_out = world.sample_pairs(4 * PAIRS, [seed + 500_000], length_bias=length_bias)
        batch = policy.pairs(held_out)
        each = batch.policy.mean_margin() - batch.reference.mean_margin()
        margin = batch.margin() if method == "dpo" else each
        found.append([float(policy.expected_length()), float((margin > 0).double().mean())])
    return dict(zip(("mean length", "held-out accuracy"), torch.tensor(found).T, strict=True))


def features(world: TokenWorld, seed: int) -> Tensor:
    """Of each place in each prompt: the previous token, and 8 normal numbers."""
    rng = torch.Generator().manual_seed(10_000 + seed)
    before = torch.eye(world.contexts[2], dtype=torch.float64).expand(*world.contexts, -1)
    return torch.cat([before, torch.randn(*world.contexts, 8, generator=rng, dtype=torch.float64)], -1)


@claim(
    "ln-dpo",
    says="Where chosen responses tend to be longer, LN-DPO's samples are shorter than DPO's at a similar accuracy",
    expects=(less("mean length"), same("held-out accuracy", within=0.05)),
    treatment="ln-dpo beta=0.6",
    baseline="dpo beta=0.1",
    sweep={"beta": (0.2, 0.6, 2.0, 5.0, 10.0), "length_bias": (0.0, 0.5, 1.0)},
)
def ln_dpo(arm: Arm, seeds: Sequence[int], *, beta: float = 0.6, length_bias: float = 0.5) -> Mapping[str, Any]:
    """The world of `ld-dpo`: four prompts, 8 tokens of which one ends a response, at most 12 tokens, another world for
    each seed; logits are the reference's plus weights times features, the previous token and 8 random numbers of each
    place. Tokens earn normal true rewards of standard deviation 0.5 at their places, the end nothing. 400 pairs from
    the reference, chosen with log-odds (difference of rewards) + 0.5 (difference of lengths). Adam, 100 steps at 0.05.
    DPO's beta is 0.1; LN-DPO's is 0.6, since responses have about 6 tokens. Mean length is exact. Accuracy is on
    held-out pairs, by each method's own implicit reward; "similar" is within 5 points.

    Not shown: rather the reverse. LN-DPO's samples are longer here, and its accuracy is higher than DPO's by more than
    is meant by similar. A short rejected response has few tokens to share its log-ratio, so that each of them, and
    above all the one that ends it, is pushed down harder than a token of a long one is raised; responses end later. The
    paper's finding is of long texts, whose lengths differ by a smaller factor. In the same world without shared
    features and with at most 8 tokens the mean length was alike (-0.13, from -0.35 to 0.09, at beta 0.5), the accuracy
    higher too.
    """
    if arm == "treatment":
        return outcomes("ln-dpo", seeds, beta=beta, length_bias=length_bias)
    return outcomes("dpo", seeds, beta=0.1, length_bias=length_bias)
