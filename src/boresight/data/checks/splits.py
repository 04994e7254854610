"""Prompts that are in another split too, word for word or nearly."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Check, Finding, Kind, Looked, prompt_key
from boresight.data.example import Example

WORDS = 3
"""Words in a shingle."""
NEAR = 0.7
"""Share of shingles in common (Jaccard) from which prompts are near-duplicates."""
BANDS, DEPTH = 32, 4
"""Two prompts are compared if one of 32 bands of 4 minima agrees: at a share of 0.7 all but 2 in 10,000 are."""
CANDIDATES = 20
"""How many prompts of the other split one is compared with: those that share most bands."""

_WORD = re.compile(r"\w+|[^\w\s]")
_RANDOM = np.random.default_rng(20_091_973)
_FACTORS = _RANDOM.integers(0, 2**63, BANDS * DEPTH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFTS = _RANDOM.integers(0, 2**63, BANDS * DEPTH, dtype=np.uint64)


class Splits(Check):
    """Compares with the data of `--against`."""

    kinds = (
        Kind(
            "leaked-prompts",
            "error",
            "examples whose prompt is in the other split too",
            "the evaluation is no evaluation: its prompts were trained on",
            "split by prompt; take these rows out of one of the two",
            "examples",
        ),
        Kind(
            "near-prompts",
            "warning",
            f"examples whose prompt is nearly one of the other split ({NEAR:.0%} of {WORDS}-word runs in common)",
            "the evaluation favours what was memorised",
            "look at the rows shown; split by groups of like prompts",
            "examples",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.own = _Sketches()

    def look(self, row: Looked) -> None:
        """Remember the prompt by its minima."""
        if self.setting.other is not None:
            self.own.add(row.prompt, row.index, row.example)

    def findings(self) -> Iterator[Finding]:
        """Exact ones by hash; near ones by MinHash with bands, then by the shingles of the texts themselves."""
        other = self.setting.other
        if other is None:
            return
        theirs = _Sketches()
        for index, example in enumerate(other):
            theirs.add(prompt_key(example.prompt), index, example)
        prompts = self.setting.columns.prompts
        known = np.fromiter(theirs.first, np.int64, len(theirs.first))
        exact = np.isin(prompts, known)
        name = self.setting.other_name
        if exact.any():
            rows = np.flatnonzero(exact)
            first = {int(r): f"as {_where(other, theirs.first[int(prompts[r])])}" for r in rows[:3]}
            yield self.found("leaked-prompts", len(rows), len(prompts), rows, details=first, more={"against": name})
        near = _near(self.own, theirs, set(prompts[exact].tolist()), self.setting.examples, other)
        rows = np.flatnonzero(np.isin(prompts, np.fromiter(near, np.int64, len(near))))
        if len(rows):
            near_first = {int(r): "like {} ({:.2f})".format(*_told(other, near[int(prompts[r])])) for r in rows[:3]}
            yield self.found("near-prompts", len(rows), len(prompts), rows, details=near_first, more={"against": name})


class _Sketches:
    """The different prompts of a data set: where each is first, and the keys of its bands."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.bands = array("q")

    def add(self, key: int, index: int, example: Example) -> None:
        if key not in self.first:
            self.first[key] = index
            self.bands.frombytes(bands(shingles(example.prompt_text)).tobytes())

    @property
    def table(self) -> NDArray[np.int64]:
        """(prompts, BANDS)."""
        return np.frombuffer(self.bands, np.int64).reshape(-1, BANDS)


def shingles(text: str) -> frozenset[int]:
    """Hashes of its runs of three words, in lower case; of all of it, where it has fewer."""
    words = _WORD.findall(text.lower())
    runs = range(max(1, len(words) - WORDS + 1))
    return frozenset(crc32(" ".join(words[i : i + WORDS]).encode("utf-8", "surrogatepass")) for i in runs)


def bands(hashes: frozenset[int]) -> NDArray[np.int64]:
    """The keys of a set's bands, (BANDS,) int64: hashes of DEPTH minima each."""
    values = np.fromiter(hashes, np.uint64, len(hashes))
    minima = np.full(len(_FACTORS), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(values), 4096):
        spread = values[start : start + 4096, None] * _FACTORS + _SHIFTS
        spread ^= spread >> np.uint64(29)
        minima = np.minimum(minima, (spread * np.uint64(0xBF58476D1CE4E5B9)).min(0))
    keys = np.zeros(BANDS, np.uint64)
    for column in minima.reshape(BANDS, DEPTH).T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(32)
    return keys.astype(np.int64)


def _near(own: _Sketches, theirs: _Sketches, exact: set[int], mine: Any, other: Any) -> dict[int, tuple[int, float]]:
    """For each own prompt that is near one of theirs: that one's first example, and the share of shingles."""
    candidates: dict[int, Counter[int]] = {}
    places, their_rows = list(theirs.first.values()), theirs.table
    for band in range(BANDS):
        order = np.argsort(their_rows[:, band], kind="stable")
        keys = their_rows[order, band]
        low = np.searchsorted(keys, own.table[:, band], "left")
        high = np.searchsorted(keys, own.table[:, band], "right")
        for number in np.flatnonzero(high > low):
            # A bucket that holds thousands is a template; a few of them show as much as all.
            there = order[low[number] : min(high[number], low[number] + CANDIDATES)]
            candidates.setdefault(int(number), Counter()).update(map(int, there))
    near: dict[int, tuple[int, float]] = {}
    owned = list(own.first.items())
    for place, counted in sorted(candidates.items()):
        key, index = owned[place]
        if key in exact:
            continue
        ours = shingles(mine[index].prompt_text)
        for candidate, _ in counted.most_common(CANDIDATES):
            theirs_too = shingles(other[places[candidate]].prompt_text)
            share = len(ours & theirs_too) / len(ours | theirs_too)
            if share >= NEAR:
                near[key] = (places[candidate], share)
                break
    return near


def _where(examples: Any, index: int) -> str:
    return examples[index].source or f"example {index}"


def _told(other: Any, match: tuple[int, float]) -> tuple[str, float]:
    return _where(other, match[0]), match[1]
