"""Votes and labels of a data set as columns of hashes: what checks across rows need, at some 50 bytes a vote."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Looked
from boresight.stats import Interval, mean, proportion

Ints = NDArray[np.int64]


@dataclass
class Votes:
    """Comparisons, one entry each.

    row: example. prompt: its key. better, worse: keys of the responses (of prompt and text together); tie: neither is
    better. annotator: number of the name, -1 where none is given. own: the example's own pair, not one made from its
    ranks or scores. place: which of its row's pairs. first: whether the better one is listed first.
    """

    row: Ints
    prompt: Ints
    better: Ints
    worse: Ints
    annotator: Ints
    place: Ints
    tie: NDArray[np.bool_]
    own: NDArray[np.bool_]
    first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def item(self) -> Ints:
        """A key of the two responses, whichever is better."""
        return mixed(np.minimum(self.better, self.worse), np.maximum(self.better, self.worse))

    @cached_property
    def up(self) -> NDArray[np.bool_]:
        """Whether the better response is the one with the larger key: the direction of the vote on its item."""
        return self.better > self.worse

    def take(self, which: NDArray[np.bool_]) -> Votes:
        """Some of them."""
        names = ("row", "prompt", "better", "worse", "annotator", "place", "tie", "own", "first")
        return Votes(**{name: getattr(self, name)[which] for name in names})


class Columns:
    """Collects the columns, row by row."""

    def __init__(self) -> None:
        self._votes = {name: array("q") for name in ("row", "prompt", "better", "worse", "annotator", "place")}
        self._flags = {name: array("b") for name in ("tie", "own", "first")}
        self._labels = {name: array("q") for name in ("row", "answer", "annotator", "place")}
        self._desirable = array("b")
        self._prompts, self._wholes = array("q"), array("q")
        self._told = array("b")
        self._names: dict[str, int] = {}

    def look(self, row: Looked) -> None:
        """One more example."""
        example, keys, votes, flags = row.example, row.keys, self._votes, self._flags
        own = bool(example.pairs)
        for place, pair in enumerate(example.pairs if own else row.pairs):
            votes["row"].append(row.index)
            votes["prompt"].append(row.prompt)
            votes["better"].append(keys[pair.chosen])
            votes["worse"].append(keys[pair.rejected])
            votes["annotator"].append(self._number(pair.annotator))
            votes["place"].append(place)
            flags["tie"].append(pair.tie)
            flags["own"].append(own)
            flags["first"].append(pair.chosen < pair.rejected)
        for place, label in enumerate(example.labels):
            self._labels["row"].append(row.index)
            self._labels["answer"].append(keys[label.response])
            self._labels["annotator"].append(self._number(label.annotator))
            self._labels["place"].append(place)
            self._desirable.append(label.desirable)
        self._prompts.append(row.prompt)
        self._wholes.append(hash((row.prompt, *keys, example.ranks, example.scores)))
        self._told.append(bool(example.pairs or example.labels or example.ranks or example.scores))

    def _number(self, name: str | None) -> int:
        return -1 if name is None else self._names.setdefault(name, len(self._names))

    @property
    def rows(self) -> int:
        """How many examples were looked at."""
        return len(self._prompts)

    @cached_property
    def votes(self) -> Votes:
        """All comparisons, ties among them."""
        flags = {name: np.frombuffer(column, np.int8).astype(bool) for name, column in self._flags.items()}
        return Votes(**{name: _ints(column) for name, column in self._votes.items()}, **flags)  # type: ignore[arg-type]

    @cached_property
    def decided(self) -> Votes:
        """The comparisons that are not ties."""
        return self.votes.take(~self.votes.tie)

    @cached_property
    def labels(self) -> dict[str, Ints]:
        """row, answer (key of prompt and response), annotator, place, desirable (0 or 1)."""
        columns = {name: _ints(column) for name, column in self._labels.items()}
        return columns | {"desirable": np.frombuffer(self._desirable, np.int8).astype(np.int64)}

    @cached_property
    def prompts(self) -> Ints:
        """The key of each example's prompt."""
        return _ints(self._prompts)

    @cached_property
    def wholes(self) -> Ints:
        """The key of each example's prompt, responses, ranks and scores together."""
        return _ints(self._wholes)

    @cached_property
    def told(self) -> NDArray[np.bool_]:
        """Whether each example has any feedback."""
        return np.frombuffer(self._told, np.int8).astype(bool)

    @cached_property
    def annotators(self) -> list[str]:
        """Their names, by number."""
        return list(self._names)

    @property
    def unit(self) -> str:
        """What the data mainly consists of: pairs, labels or examples."""
        return "pairs" if len(self.votes) else "labels" if len(self._desirable) else "examples"


def _ints(column: array[int]) -> Ints:
    return np.frombuffer(column, np.int64) if column else np.zeros(0, np.int64)


def mixed(*columns: Ints) -> Ints:
    """One key for several columns; the order of the columns counts."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = (total ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(32)
    return total.astype(np.int64)


def numbered(keys: Ints) -> tuple[Ints, int]:
    """Each key's number, counted in the order in which keys first occur, and how many there are.

    Keys differ between runs of Python; their numbers do not, so that what is drawn by them is drawn again.
    """
    classes, first, place = np.unique(keys, return_index=True, return_inverse=True)
    numbers = np.empty(len(classes), np.int64)
    numbers[np.argsort(first)] = np.arange(len(classes))
    return numbers[place], len(classes)


def repeats(keys: Ints) -> Ints:
    """The places of keys that occurred at an earlier place."""
    _, first = np.unique(keys, return_index=True)
    later = np.ones(len(keys), bool)
    later[first] = False
    return np.flatnonzero(later)


def share_of(sign: NDArray[Any], prompts: Ints, confidence: float = 0.95) -> Interval:
    """The share of +1 among -1 and +1, a zero counting half; clustered where prompts repeat.

    Where all agree the clusters have no spread, and each prompt counts as one observation, however many rows it has.
    """
    right = (np.asarray(sign, np.float64) + 1) / 2
    count = len(np.unique(prompts))
    if count == len(prompts):
        return proportion(float(right.sum()), len(right), confidence)
    found = mean(right, prompts, confidence)
    if found.value in (0.0, 1.0):
        alike = proportion(found.value * count, count, confidence)
        return Interval(found.value, alike.low, alike.high, found.n)
    least = proportion(float(right.sum()), len(right), confidence)
    low, high = min(found.low, least.low), max(found.high, least.high)
    return Interval(found.value, max(0.0, low), min(1.0, high), found.n)
