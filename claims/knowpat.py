"""KnowPAT (Zhang et al. 2023): a ranked-list term beside the likelihood of the best answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Lists

PROMPTS, RESPONSES, LISTS = 15, 10, 60


def ordered(world: TabularWorld, logits: Tensor, lists: Lists) -> Tensor:
    """Share of couples of the lists whose true order the log-prob per token has, 0-d."""
    values = (logits.log_softmax(-1) / world.lengths)[lists.prompt[0][:, None], lists.response[0]]
    truth = world.reward[lists.prompt[0][:, None], lists.response[0]]
    better = truth[:, :, None] > truth[:, None, :]
    return ((values[:, :, None] > values[:, None, :]) & better).sum() / better.sum()


@claim(
    "knowpat",
    says="Likelihood with the ranked-list term orders other candidates better than likelihood of the best answer alone",
    expects=more("accuracy"),
    treatment="knowpat lam=1",
    baseline="the same without its ranked-list term (lam=0)",
    sweep={
        "lam": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0), "k": (2, 4, 8), "noise": (0.0, 0.5, 1.0), "steps": (30, 100, 300),
        "longest": (1, 5, 20),
    },
    smoke=True,
)  # fmt: skip
def knowpat(
    arm: Arm,
    seeds: Sequence[int],
    *,
    lam: float = 1.0,
    k: int = 4,
    noise: float = 0.5,
    steps: int = 100,
    longest: int = 5,
) -> Mapping[str, Any]:
    """A table of 15 prompts with 10 answers of 1 to `longest` tokens, another one for each seed. 60 lists of k answers
    of the reference, graded by true reward plus noise; the outcome is the share of couples of 200 other lists that the
    log-prob per token orders by true reward.

    Not shown: the term makes no difference to the order. At the authors' lam of 0.01 not one couple of thousands was
    ordered otherwise; at 1 and 10 the difference was +0.003 +/- 0.011 and +0.005 +/- 0.021, at 100 -0.023 +/- 0.025,
    and neither the length of lists (2 to 8) or answers (1 to 20 tokens), nor noise or steps changed that. The
    likelihood has the greater part in it, and the term raises what the policy finds likely already. Lists here have
    answers of one prompt in common, so an order is learnt answer by answer.
    """
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        reward, reference = torch.randn(2, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        world = TabularWorld(reward, reference, torch.randint(1, longest + 1, reward.shape, generator=rng))
        lists, others = (world.sample_lists(n, k, [s], noise=noise) for n, s in ((LISTS, seed), (200, seed + 500)))
        own = {"lam": lam if arm == "treatment" else 0.0}
        policy = fit(world, "knowpat", pairs=lists, hyperparameters=own, steps=steps)
        found.append(ordered(world, policy.logits[0].detach(), others))
    return {"accuracy": torch.stack(found)}
