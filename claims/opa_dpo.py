"""OPA-DPO (Yang et al. 2025): chosen answers that the reference hardly gives, with and without fine-tuning first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.beside import Beside
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Pairs

PROMPTS, RESPONSES, BETA, STEPS = 20, 6, 0.5, 300


def sampled(
    seeds: Sequence[int], stages: Sequence[str], *, rare: float, wrong: float, anchor: float
) -> Mapping[str, Any]:
    """Of each seed the probability of the expert's answers, mean over prompts, after stages of equal length.

    stages: methods; each begins where the one before ended, and has that as its reference.
    """
    worlds, drawn = [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        logits = torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        logits[:, 0] = logits[:, 1:].logsumexp(-1) - rare
        world = TabularWorld(torch.zeros_like(logits), logits)
        own = world.reference.clone()
        own[:, 0] = -60.0
        prompt = torch.arange(PROMPTS).repeat_interleave(40)[None]
        worst = torch.multinomial(own.softmax(-1), 40, replacement=True, generator=rng).view(1, -1)
        expert = torch.zeros_like(worst)
        turned = torch.rand(worst.shape, generator=rng) < wrong
        chosen, rejected = torch.where(turned, worst, expert), torch.where(turned, expert, worst)
        worlds.append(world)
        drawn.append(Pairs.of(prompt, chosen, rejected))
    beside = Beside(worlds)
    pairs, policy = beside.pairs(drawn), beside.world.policy(1)
    for stage in stages:
        own_values = {"sft": {}, "dpo": {"beta": BETA}, "opa-dpo": {"beta": BETA, "severity": 1.0, "anchor": anchor}}
        options: dict[str, Any] = {"hyperparameters": own_values[stage], "steps": STEPS // len(stages)}
        policy = fit(beside.world, stage, pairs=pairs, start=policy, reference=policy, **options)
    return {"probability of the expert's answer": beside.tables(policy)[:, :, 0].exp().mean(-1)}


SAYS, OUTCOME = "Where the reference hardly gives the chosen answers, ", "probability of the expert's answer"


@claim(
    "opa-dpo",
    part="against-dpo",
    says=f"{SAYS}fine-tuning on them and then OPA-DPO against the outcome raises their probability by 20 points more "
    "than DPO from the original reference in as many steps",
    expects=more(OUTCOME, by=0.2),
    treatment="sft, then opa-dpo",
    baseline="dpo",
    sweep={"rare": (0.0, 2.0, 4.0, 8.0, 12.0), "wrong": (0.0, 0.05, 0.2)},
    smoke=True,
)
def opa_against_dpo(arm: Arm, seeds: Sequence[int], *, rare: float = 8.0, wrong: float = 0.05) -> Mapping[str, Any]:
    """20 prompts, another table for each seed: five answers that the reference gives, and an expert's, whose odds under
    it are exp(-rare). 40 pairs a prompt of the expert's answer and a sampled one, of which a share `wrong` is labelled
    the other way. beta 0.5; 300 steps of Adam at 0.05 in all, half of them for each stage; severity 1, as an answer
    has no tokens here. DPO lifts the odds by about log((1 - wrong) / wrong) / beta = 6 nats and no more: with the odds
    that far down the answer stays rare.

    Where it stops holding: odds of 1 under the reference (rare = 0) leave 2 points between the two and exp(-2) leaves
    10; at exp(-4) it is 33 points, at exp(-12), where even 150 steps of fine-tuning are not enough, 54. Without wrong
    labels, where DPO's optimum has no bound, 300 steps do not get it there either (73 points).
    """
    stages = ["sft", "opa-dpo"] if arm == "treatment" else ["dpo"]
    return sampled(seeds, stages, rare=rare, wrong=wrong, anchor=1.0)


@claim(
    "opa-dpo",
    part="first-stage",
    says=f"{SAYS}it is the fine-tuning and the reset reference that raise them by 20 points more, not the anchor",
    expects=more(OUTCOME, by=0.2),
    treatment="sft, then opa-dpo",
    baseline="opa-dpo",
    sweep={"anchor": (0.0, 0.3, 1.0)},
    smoke=True,
)
def opa_first_stage(arm: Arm, seeds: Sequence[int], *, anchor: float = 1.0) -> Mapping[str, Any]:
    """The world of `opa-dpo/against-dpo`, the baseline with the same loss, its anchor included, from the original
    reference.
    """
    stages = ["sft", "opa-dpo"] if arm == "treatment" else ["opa-dpo"]
    return sampled(seeds, stages, rare=8.0, wrong=0.05, anchor=anchor)
