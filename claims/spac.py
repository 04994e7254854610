"""SPAC (Ji et al. 2024): sparse data, and what the policy then does where the data says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

PROMPTS, RESPONSES, WIDTH, COVERED = 10, 12, 6, 4


@claim(
    "spac",
    says="Where the data covers a third of the responses, SPAC keeps more probability there than DPO, and more reward",
    expects=(less("unseen, of low reward"), more("true reward")),
    treatment="spac",
    baseline="dpo with beta = 1/eta",
    sweep={
        "pessimism": (0.0, 0.3, 1.0, 3.0), "lam": (1.0, 4.0, 16.0), "eta": (1.0, 3.0, 10.0),
        "unseen": (-3.0, -1.0, 0.0, 1.0), "pairs": (20, 60, 200), "steps": (30, 100, 300),
    },
    smoke=True,
)  # fmt: skip
def spac(
    arm: Arm,
    seeds: Sequence[int],
    *,
    pessimism: float = 1.0,
    lam: float = 1.0,
    eta: float = 3.0,
    unseen: float = -1.0,
    pairs: int = 60,
    steps: int = 100,
) -> Mapping[str, Any]:
    """A table of 10 prompts with 12 responses each, another one for each seed. What is learnt on one response carries
    over to others: the policy adds to the reference's logits what is linear in 6 features of each response, drawn at
    random and unrelated to reward. The data compares four responses of each prompt, the same number of pairs for both
    arms; the eight others are never seen, and their reward is `unseen` on average, against 0. SPAC has four samples of
    the reference for each pair.

    Where it stops holding: with lam = 4, four times the weight of the preferences against the pessimism, neither
    difference could be told from nothing (unseen -0.02 +/- 0.05, reward +0.02 +/- 0.11), whatever eta and the steps;
    pessimism = 3 brings both back. lam = 1, the objective's default since, was chosen after that, of eight settings
    looked at. In a table without features unseen responses keep their logits under either.
    """
    mass, reward = [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.randn(2, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        features = torch.randn(PROMPTS, RESPONSES, WIDTH, generator=rng, dtype=torch.float64)
        hidden = torch.arange(RESPONSES) >= COVERED
        world = TabularWorld(drawn[0] + unseen * hidden, drawn[1])
        data = world.sample_pairs(pairs, [seed], proposal=world.reference.masked_fill(hidden, -60.0))
        method, own = "dpo", {"beta": 1 / eta}
        if arm == "treatment":
            method, own = "spac", {"eta": eta, "lam": lam, "pessimism": pessimism}
        policy = fit(world, method, pairs=data, hyperparameters=own, steps=steps, features=features, seed=seed)
        chance = policy.logits[0].detach().softmax(-1)
        low = hidden & (world.reward < world.reward.mean())
        mass.append((chance * low).sum(-1).mean())
        reward.append(policy.expected_reward().detach())
    return {"unseen, of low reward": torch.stack(mass), "true reward": torch.cat(reward)}
