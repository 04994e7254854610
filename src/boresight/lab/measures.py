"""What a policy is worth in the language world: gold reward, length and KL, sampled, with 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch

from boresight.errors import InputError
from boresight.lab.gold import ATTRIBUTES, Prompt, length
from boresight.lab.language import LanguageWorld
from boresight.lab.preferences import Sampler


@dataclass(frozen=True)
class Estimate:
    """A mean and the half-width of its 95% interval (normal; prompts are the independent units)."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} +/- {self.half:.3f}"


@dataclass(frozen=True)
class Measured:
    """Gold reward, number of words, and each gold attribute of a sampler's answers."""

    reward: Estimate
    words: Estimate
    attributes: dict[str, Estimate]


def measure(
    world: LanguageWorld,
    sampler: Sampler,
    *,
    prompts: Sequence[Prompt] | None = None,
    seed: int = 0,
    n_samples: int = 2,
) -> Measured:
    """Sample `n_samples` answers for each prompt (500 test prompts if none are given) and score them by the program."""
    asked = list(prompts) if prompts is not None else world.prompts(500, seed, "test")
    if not asked or n_samples < 1:
        raise InputError("there is nothing to measure on", mend="give at least one prompt and n_samples of 1 or more")
    answers = sampler(asked, seed, n_samples)
    found: dict[str, list[list[float]]] = {name: [] for name in ("reward", "words", *ATTRIBUTES)}
    for prompt, texts in zip(asked, answers, strict=True):
        attributes = [world.gold(prompt, text) for text in texts]
        found["reward"].append([world.taste(prompt).total(a) for a in attributes])
        found["words"].append([float(length(text)) for text in texts])
        for name in ATTRIBUTES:
            found[name].append([a[name] for a in attributes])
    names = [p.messages for p in asked]
    estimates = {name: clustered(values, names) for name, values in found.items()}
    return Measured(estimates["reward"], estimates["words"], {name: estimates[name] for name in ATTRIBUTES})


def clustered(values: Sequence[Sequence[float]], clusters: Sequence[Any]) -> Estimate:
    """The mean of all values, with an interval that treats values of equal `clusters` as dependent.

    values[i] belong to clusters[i]; the same cluster may come again. With one cluster the interval is infinite.
    """
    sums: dict[Any, list[float]] = {}
    for some, cluster in zip(values, clusters, strict=True):
        entry = sums.setdefault(cluster, [0.0, 0.0])
        entry[0] += sum(some)
        entry[1] += len(some)
    count, total = len(sums), sum(n for _, n in sums.values())
    mean = sum(s for s, _ in sums.values()) / total
    if count < 2:
        return Estimate(mean, float("inf"))
    spread = sum((s - mean * n) ** 2 for s, n in sums.values())
    return Estimate(mean, 1.96 * sqrt(count / (count - 1) * spread) / total)


def sampled_kl(
    policy: Any, reference: Any, tokenizer: Any, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]
) -> Estimate:
    """KL(policy || reference) in nats for a response, from answers that the policy sampled at temperature 1.

    policy, reference: causal LMs with the same tokenizer. Every answer is taken to end with the EOS.
    """
    asked = [p for p, texts in zip(prompts, answers, strict=True) for _ in texts]
    texts = [text for some in answers for text in some]
    ours, theirs = (response_log_probs(model, tokenizer, asked, texts) for model in (policy, reference))
    return clustered([[ratio] for ratio in (ours - theirs).tolist()], [p.messages for p in asked])


def response_log_probs(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], texts: Sequence[str], *, batch: int = 256
) -> torch.Tensor:
    """log p(text, EOS | prompt), summed over tokens, shape (texts,), fp32. No gradient."""
    from boresight.lab.pretrain import pad, tokenise

    rows = tokenise(tokenizer, list(zip(prompts, texts, strict=True)))
    sums = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            ids, labels = pad(rows[start : start + batch])
            logits = model(input_ids=ids.to(model.device)).logits[:, :-1].float().cpu()
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
            sums.append(-losses.sum(1))
    return torch.cat(sums) if sums else torch.zeros(0)
