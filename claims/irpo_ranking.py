"""In-context ranking preference optimisation (Wu et al. 2025): whole lists against random pairs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Lists

PROMPTS, ITEMS, LISTS = 10, 20, 60


def ndcg(values: Tensor, relevance: Tensor, at: int) -> Tensor:
    """NDCG@k of the order by falling values, mean over prompts, 0-d; both (prompts, items)."""
    discount = 1 / torch.arange(2, at + 2, dtype=torch.float64).log2()
    gains = 2**relevance - 1
    found = (gains.gather(1, values.argsort(1, descending=True))[:, :at] * discount).sum(1)
    return (found / (gains.sort(1, descending=True).values[:, :at] * discount).sum(1)).mean()


def shown(lists: Lists, noise: float, seed: int) -> Lists:
    """Each list put into the order in which a noisy ranker shows it: by relevance plus normal noise."""
    rng = torch.Generator().manual_seed(seed)
    order = lists.grades + noise * torch.randn(lists.grades.shape, generator=rng, dtype=torch.float64)
    place = order.argsort(-1, descending=True)
    return replace(lists, response=lists.response.gather(-1, place), grades=lists.grades.gather(-1, place))


@claim(
    "irpo-ranking",
    says="On lists of graded relevance in a noisy order IRPO ends with a higher NDCG@5 than DPO on random pairs",
    expects=more("NDCG@5"),
    treatment="irpo-ranking",
    baseline="dpo on a random pair of each list",
    sweep={"noise": (0.0, 1.0, 3.0), "beta": (0.1, 0.3, 1.0, 3.0), "k": (3, 5, 10), "steps": (30, 100, 300)},
    smoke=True,
)
def irpo_ranking(
    arm: Arm, seeds: Sequence[int], *, noise: float = 1.0, beta: float = 1.0, k: int = 10, steps: int = 100
) -> Mapping[str, Any]:
    """A table of 10 prompts with 20 items each, another one for each seed: relevances 0 to 3, most of them 0, and a
    random reference. 60 lists of k items of the reference, shown in the order of relevance plus noise, which is the
    rank that IRPO discounts by. Items are ordered by log policy - log reference, over all 20 of a prompt.
    """
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        relevance = (torch.rand(PROMPTS, ITEMS, generator=rng, dtype=torch.float64) ** 3 * 4).floor()
        reference = torch.randn(PROMPTS, ITEMS, generator=rng, dtype=torch.float64)
        world = TabularWorld(relevance, reference)
        lists = shown(world.sample_lists(LISTS, k, [seed]), noise, seed)
        data, method = (lists, "irpo-ranking") if arm == "treatment" else (lists.pairs("random"), "dpo")
        policy = fit(world, method, pairs=data, hyperparameters={"beta": beta}, steps=steps, seed=seed)
        ratio = policy.logits[0].detach().log_softmax(-1) - world.reference
        found.append(ndcg(ratio, relevance, 5))
    return {"NDCG@5": torch.stack(found)}
