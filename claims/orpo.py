"""ORPO (Hong et al. 2024): likelihood alone lifts rejected responses too; the odds-ratio term pushes them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.beside import Beside
from boresight.lab.claims import Arm, claim, less, more
from boresight.lab.tabular import Pairs, TabularPolicy

PROMPTS, RESPONSES, PAIRS = 20, 8, 600


def outcomes(
    method: str | None, seeds: Sequence[int], *, taste: float, tokens: int, steps: int = 300, **own: float
) -> Mapping[str, Any]:
    """Mean log-prob of chosen and rejected responses over all on-topic pairs, of the base model where no method."""
    worlds, on_topic = zip(*(made(seed, taste, tokens) for seed in seeds), strict=True)
    beside = Beside(worlds)
    policy = TabularPolicy.at_reference(beside.world)
    if method is not None:
        drawn = [w.sample_pairs(PAIRS, [s], proposal=p) for w, s, p in zip(worlds, seeds, on_topic, strict=True)]
        policy = fit(beside.world, method, pairs=beside.pairs(drawn), hyperparameters=own, steps=steps)
    sides = []
    for world, table, proposal in zip(worlds, beside.tables(policy), on_topic, strict=True):
        every = world.population(proposal=proposal)
        sides.append([mean(table, every, side) for side in (every.chosen, every.rejected)])
    chosen, rejected = torch.tensor(sides).T
    return {"chosen log-prob": chosen, "rejected log-prob": rejected}


def made(seed: int, taste: float, tokens: int) -> tuple[TabularWorld, Tensor]:
    """A world and the logits that pairs are drawn from: the reference's, for the first half of the responses alone."""
    rng = torch.Generator().manual_seed(seed)
    reward = torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64) * taste
    reference = torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
    lengths = torch.randint(max(1, tokens // 2), tokens + tokens // 2 + 1, reward.shape, generator=rng)
    off_topic = torch.arange(RESPONSES) >= RESPONSES // 2
    return TabularWorld(reward, reference, lengths), reference.masked_fill(off_topic, -60.0)


def mean(table: Tensor, pairs: Pairs, side: Tensor) -> float:
    """Mean over pairs of one side's log-prob, in nats a response."""
    return float((table[pairs.prompt, side] * pairs.weight).sum() / pairs.weight.sum())


@claim(
    "orpo",
    part="sft",
    says="Fine-tuning on chosen responses alone raises the likelihood of the rejected ones too",
    expects=(more("chosen log-prob"), more("rejected log-prob")),
    treatment="sft",
    baseline="the base model",
    sweep={"taste": (0.5, 1.0, 1.5, 2.0, 4.0), "steps": (30, 100, 300)},
    smoke=True,
)
def orpo_sft(arm: Arm, seeds: Sequence[int], *, taste: float = 1.0, steps: int = 300) -> Mapping[str, Any]:
    """A table of 20 prompts with 8 responses each, another one for each seed. Half of the responses are off the topic;
    pairs compare two that are on it, and an annotator chooses by true reward, which has standard deviation `taste`
    (Bradley-Terry). Learning to stay on the topic lifts chosen and rejected alike; learning which is better lowers the
    rejected. Log-probs are means over all on-topic pairs, in nats a response; 600 sampled pairs, 300 steps of Adam at
    0.05.

    Where it stops holding: with decided annotators (undecided at taste 1.5, reversed at 2) a response that is rejected
    is seldom chosen elsewhere, and likelihood alone lowers it. In a model of text there is more to lift it, since
    responses share words.
    """
    return outcomes("sft" if arm == "treatment" else None, seeds, taste=taste, tokens=10, steps=steps)


@claim(
    "orpo",
    part="penalty",
    says="The odds-ratio term ends with a lower rejected log-prob than fine-tuning on chosen responses alone",
    expects=less("rejected log-prob"),
    treatment="orpo lam=0.1",
    baseline="sft",
    sweep={"lam": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
    smoke=True,
)
def orpo_penalty(arm: Arm, seeds: Sequence[int], *, lam: float = 0.1) -> Mapping[str, Any]:
    """The world of `orpo/sft`, same pairs and budget for both. The sweep over lam shows the term's strength."""
    own = {"lam": lam} if arm == "treatment" else {}
    found = outcomes("orpo" if arm == "treatment" else "sft", seeds, taste=1.0, tokens=10, **own)
    return {"rejected log-prob": found["rejected log-prob"]}


@claim(
    "orpo",
    part="one-stage",
    says="From the base model, in one stage, chosen log-probs rise while rejected ones fall",
    expects=(more("chosen log-prob"), less("rejected log-prob")),
    treatment="orpo lam=0.1",
    baseline="the base model",
    sweep={"lam": (0.03, 0.1, 0.2, 0.3, 1.0, 3.0), "tokens": (1, 3, 10, 30), "taste": (0.5, 1.0, 2.0, 4.0)},
    smoke=True,
)
def orpo_one_stage(
    arm: Arm, seeds: Sequence[int], *, lam: float = 0.1, tokens: int = 10, taste: float = 1.0
) -> Mapping[str, Any]:
    """The world of `orpo/sft`, at the authors' lam. What is swept: lam; the length of responses (tokens), on which the
    odds of a mean token depend; and how decided the annotators are (taste).

    Not shown: at lam = 0.1 rejected log-probs rise, too, though less than with likelihood alone (`orpo/penalty`). They
    fall from lam = 1 on (at 0.2 and 0.3 it is undecided); with responses of 30 tokens, whose mean token is likelier,
    so that its odds weigh more; and with decided annotators (taste 2 and more), where likelihood alone lowers them as
    well. Chosen log-probs rise everywhere.
    """
    if arm == "baseline":
        return outcomes(None, seeds, taste=taste, tokens=tokens)
    return outcomes("orpo", seeds, taste=taste, tokens=tokens, lam=lam)
