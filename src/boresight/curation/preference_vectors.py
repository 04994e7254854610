"""Preference vectors: how much each attribute counts, drawn for each example and told in its prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from boresight.curation.curated import Curated
from boresight.curation.told import name_of, told
from boresight.data.example import Example, Pair, Score
from boresight.errors import InputError
from boresight.paper import paper

PARTS = 100
"""Weights are told in hundredths."""


def told_weights(weights: Mapping[str, float]) -> str:
    """The words that say how much each attribute counts; the weights are made to sum to 1, in whole hundredths.

    Raises InputError if there are fewer than two, or one is negative or not finite, or all are 0.
    """
    values = np.array(list(weights.values()), dtype=np.float64)
    if len(values) < 2 or not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise InputError(f"weights are {dict(weights)}", mend="give two or more, 0 or above, and not all 0")
    parts = _hundredths(values / values.sum())
    return "What counts in the answer: " + ", ".join(
        f"{name} {part / PARTS:.2f}" for name, part in zip(weights, parts, strict=True)
    ) + "."  # fmt: skip


def toward(examples: Iterable[Example], weights: Mapping[str, float], *, system: bool = True) -> list[Example]:
    """The examples with these weights in their prompts and nothing else changed: to sample, evaluate or serve with.

    Give the attributes in the order that the model was trained on, and the `system` of then.
    """
    words = told_weights(weights)
    return [told(example, words, system=system) for example in examples]


@paper("multitron")
def preference_vectors(
    examples: Iterable[Example],
    attributes: Sequence[str],
    *,
    spread: float = 0.5,
    copies: int = 1,
    system: bool = True,
    seed: int = 0,
) -> Curated:
    """Examples with a vector of weights each, drawn from a Dirichlet law, in the prompt and as scores `weight_NAME`.

    attributes: names of scores, which say what is better under each. spread: of the law, alike for all attributes;
    below 1 it favours the ends, 1 is uniform. copies: how often each example is taken, each time with a vector of its
    own. system: whether the words are a message of the system, or head the user's first.

    Pairs are those that the example has, whichever way round, else all couples of its responses; each is turned so that
    the chosen response has the higher weighted sum of scores (the mean over annotators), of equal ones the earlier. A
    couple counts only if both responses have every attribute and differ in one. Ranks, labels and steps are left out;
    the id is the former one (else the source) with "~weights W1 W2 ..." behind. counts: pairs made; those left out as
    scores are missing or alike; examples without a pair.

    Train on it with method multitron, attributes=A,B weights=weight_A,weight_B; at inference ask with `toward`.

    Raises InputError if there are fewer than two attributes or one is named twice, spread is not positive, or
    copies < 1.
    Source: Wilm et al. 2024 (MultiTRON): vectors from Dirichlet(1/2, 1/2), added to the input; there to embeddings.
    """
    names = list(attributes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"attributes are {names}", mend="name two or more scores, each once")
    if not 0 < spread < float("inf"):
        raise InputError(f"spread is {spread}", mend="give a positive number; the paper's is 0.5")
    if copies < 1:
        raise InputError(f"copies is {copies}", mend="give 1 or more")
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(("pairs", "pairs without scores", "pairs of equal scores", "examples without a pair"), 0)
    made: list[Example] = []
    for index, example in enumerate(examples):
        own, worth = name_of(example, index), _worth(example, names)
        couples = [(p.chosen, p.rejected, p.weight) for p in example.pairs]
        couples = couples or [(a, b, 1.0) for a, b in combinations(range(len(example.responses)), 2)]
        usable = [c for c in couples if c[0] in worth and c[1] in worth]
        apart = [c for c in usable if (worth[c[0]] != worth[c[1]]).any()]
        counts["pairs without scores"] += copies * (len(couples) - len(usable))
        counts["pairs of equal scores"] += copies * (len(usable) - len(apart))
        counts["examples without a pair"] += copies * (not apart)
        for _ in range(copies):
            vector = _hundredths(rng.dirichlet([spread] * len(names)))
            if not apart:
                continue
            counts["pairs"] += len(apart)
            weights = [int(part) / PARTS for part in vector]
            kept = tuple(s for s in example.scores if s.name in names)
            given = [
                Score(i, weight, f"weight_{name}")
                for i in range(len(example.responses))
                for name, weight in zip(names, weights, strict=True)
            ]
            bare = replace(
                example,
                pairs=tuple(_turned(a, b, weight, worth, np.array(weights)) for a, b, weight in apart),
                scores=(*kept, *given),
                labels=(),
                ranks=(),
                steps=(),
                id=f"{own}~weights {' '.join(f'{w:.2f}' for w in weights)}",
            )
            made.append(told(bare, told_weights(dict(zip(names, weights, strict=True))), system=system))
    return Curated(tuple(made), counts)


def _turned(a: int, b: int, weight: float, worth: Mapping[int, np.ndarray], vector: np.ndarray) -> Pair:
    ahead = float(vector @ (worth[a] - worth[b]))
    won, lost = (a, b) if ahead > 0 or (ahead == 0 and a < b) else (b, a)
    return Pair(won, lost, weight)


def _worth(example: Example, names: Sequence[str]) -> dict[int, np.ndarray]:
    """The scores of those responses that have all of these, in this order, the mean over annotators."""
    given: dict[tuple[int, str], list[float]] = {}
    for score in example.scores:
        given.setdefault((score.response, score.name), []).append(score.value)
    return {
        i: np.array([np.mean(given[i, name]) for name in names])
        for i in range(len(example.responses))
        if all((i, name) in given for name in names)
    }


def _hundredths(shares: np.ndarray) -> np.ndarray:
    """Whole hundredths that sum to 100: rounded down, and the rest to those that lost most, of equal ones the first."""
    # shares that are whole hundredths already come back as they are, whatever rounding did to them
    scaled = np.round(shares * PARTS, 9)
    parts = np.floor(scaled).astype(int)
    order = np.argsort(parts - scaled, kind="stable")
    parts[order[: PARTS - parts.sum()]] += 1
    return parts
