"""Views of an example's feedback: as pairs, as responses to learn from, as labels. Nothing is resolved or merged."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

from boresight.data.example import Example, Label, Pair


def pairs(example: Example, *, ranked: Literal["all", "best-worst"] = "all") -> list[Pair]:
    """Its preferences: the pairs it has, less ties; else made from its ranks; else from its scores.

    Pairs that contradict each other are all kept: they are votes. From ranks and scores come all pairs of responses
    that differ, better ones first, or with `best-worst` the first best against the first worst. Scores count as in
    `mean_scores`. Ties make no pair.
    """
    if example.pairs:
        return [pair for pair in example.pairs if not pair.tie]
    worth = {i: -float(rank) for i, rank in enumerate(example.ranks)} or mean_scores(example)
    order = sorted(worth, key=lambda i: (-worth[i], i))
    if ranked == "best-worst" and worth:
        best, least = order[0], min(worth.values())
        worst = next(i for i in order if worth[i] == least)
        return [Pair(best, worst)] if worth[best] > least else []
    return [Pair(a, b) for a, b in combinations(order, 2) if worth[a] > worth[b]]


def demonstrations(example: Example) -> list[int]:
    """The responses to learn from, each once.

    Those chosen in a pair; else those labelled desirable; else the best ranked; else the best scored (all of them if
    several are best); else the only one. An example whose pairs are all ties, or whose labels are all undesirable,
    has none.
    """
    if example.pairs:
        return list(dict.fromkeys(pair.chosen for pair in pairs(example)))
    if example.labels:
        return list(dict.fromkeys(label.response for label in example.labels if label.desirable))
    worth = {i: -float(rank) for i, rank in enumerate(example.ranks)} or mean_scores(example)
    if worth:
        best = max(worth.values())
        return [i for i, value in worth.items() if value == best]
    return [0] if len(example.responses) == 1 else []


def labelled(example: Example) -> list[Label]:
    """Its labels; else the two sides of every pair of `pairs(example)`: chosen desirable, rejected not, each with the
    pair's weight.
    """
    if example.labels:
        return list(example.labels)
    return [
        Label(response, desirable, pair.annotator, pair.weight)
        for pair in pairs(example)
        for response, desirable in ((pair.chosen, True), (pair.rejected, False))
    ]


def graded(example: Example) -> list[dict[int, float]]:
    """Its lists: each a grade, higher is better, for two responses or more that are not all alike, best first.

    One list from its ranks; else from its scores; else from its labels (desirable 1, others 0; the mean over
    annotators, by weight); else one list of two for each pair.
    """
    worth = {i: -float(rank) for i, rank in enumerate(example.ranks)} or mean_scores(example)
    if not worth:
        votes: dict[int, tuple[float, float]] = {}
        for label in example.labels:
            for_it, all_ = votes.get(label.response, (0.0, 0.0))
            votes[label.response] = (for_it + label.weight * label.desirable, all_ + label.weight)
        worth = {i: for_it / all_ for i, (for_it, all_) in votes.items()}
    if not worth:
        return [{pair.chosen: 1.0, pair.rejected: 0.0} for pair in pairs(example)]
    order = sorted(worth, key=lambda i: (-worth[i], i))
    return [{i: worth[i] for i in order}] if len(set(worth.values())) > 1 else []


def mean_scores(example: Example) -> dict[int, float]:
    """One number for each scored response: the mean over its attributes of the mean over annotators.

    Where responses were scored for different attributes, only those that all scored responses share count, for a
    mean over different attributes compares nothing; without a shared one the result is empty.
    """
    given: dict[int, dict[str, list[float]]] = {}
    for score in example.scores:
        given.setdefault(score.response, {}).setdefault(score.name, []).append(score.value)
    shared = set.intersection(*(set(attributes) for attributes in given.values())) if given else set()
    if not shared:
        return {}
    means = {i: [sum(named[a]) / len(named[a]) for a in sorted(shared)] for i, named in sorted(given.items())}
    return {i: sum(values) / len(values) for i, values in means.items()}
