"""Features and words one at a time: of the pairs that differ in one, how often its owner is preferred."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boresight.judging.explain_fit import ENOUGH
from boresight.judging.explain_pairs import Compared
from boresight.stats import Interval, holm, mean, proportion

Floats = NDArray[np.float64]
LEAST = 10
"""Pairs in which only one response has a word, from which the word is looked at."""
WORD = re.compile(r"[^\W_]+(?:['’.][^\W_]+)*")


def share(sign: Floats, prompts: NDArray[np.int64]) -> tuple[Interval, float]:
    """The share of positive ones among the signs that are not 0, and the two-sided p of its being one half.

    With 40 prompts or more among them, some of them with several pairs, clustered on prompts (a t-test); else Wilson's
    interval and the exact binomial test, which take pairs as independent.
    """
    used = sign != 0
    right, prompts = (np.sign(sign[used]) + 1) / 2, prompts[used]
    groups = len(np.unique(prompts))
    if ENOUGH <= groups < len(right):
        found = mean(right, prompts)
        if found.high > found.low:
            from scipy.stats import t

            error = (found.high - found.low) / 2 / float(t.ppf(0.975, groups - 1))
            clipped = Interval(found.value, max(found.low, 0.0), min(found.high, 1.0), found.n)
            return clipped, float(2 * t.sf(abs(found.value - 0.5) / error, groups - 1))
    from scipy.stats import binomtest

    wins, n = int(right.sum()), len(right)
    return proportion(wins, n), float(binomtest(wins, n).pvalue) if n else 1.0


def flipped(signs: Floats, prompts: NDArray[np.int64], *, rounds: int = 4999, seed: int = 0) -> Floats:
    """p of each column's positive signs being as frequent as its negative ones, (k,), corrected for all k together.

    signs: (n, k), 0 where a pair does not differ. Westfall and Young's maximum: were nothing preferred, each pair could
    as well be turned over, all its signs at once. |sum of signs| / sqrt(sum of squares) of each column is compared with
    the largest such figure of all columns when pairs are turned over at random, `rounds` times. Columns that go
    together, or have few signs, cost little. With 40 prompts or more whole prompts are turned over, so that pairs of
    one may depend on each other in any way. Source: Westfall and Young 1993.
    """
    codes = np.unique(prompts, return_inverse=True)[1]
    sums = np.asarray(signs, np.float64)
    if len(codes) and codes.max() + 1 >= ENOUGH and codes.max() + 1 < len(codes):
        sums = np.zeros((int(codes.max()) + 1, signs.shape[1]))
        np.add.at(sums, codes, signs)
    size = np.sqrt((sums**2).sum(0))
    size = np.where(size > 0, size, np.inf)
    found, rng = np.abs(sums.sum(0)) / size, np.random.default_rng(seed)
    over, done = np.zeros(signs.shape[1]), 0
    while done < rounds:
        some = min(max(1, min(500, 10_000_000 // max(len(sums), 1))), rounds - done)
        turned = np.where(rng.random((some, len(sums))) < 0.5, -1.0, 1.0)
        largest = (np.abs(turned @ sums) / size).max(1, initial=0.0)
        over += (largest[:, None] >= found - 1e-9).sum(0)
        done += some
    return np.asarray((1 + over) / (1 + rounds))


@dataclass(frozen=True)
class Word:
    """A word that one response of a pair has and the other has not: how often its owner is preferred.

    p_holm: two-sided p of one half, corrected for all words that were looked at.
    """

    word: str
    share: Interval
    p_holm: float


def words(pairs: Compared, *, least: int = LEAST) -> list[Word]:
    """Words by which preferred responses can be known, the surest first; ties left out.

    Only words that tell at least `least` pairs apart are looked at. Upper and lower case are alike.
    """
    settled = np.flatnonzero(pairs.y != 0.5)
    first: list[set[str]] = []
    second: list[set[str]] = []
    told: Counter[str] = Counter()
    for i in settled:
        a, b = (set(WORD.findall(text.lower())) for text in pairs.texts[i][1:])
        first.append(a - b)
        second.append(b - a)
        told.update(first[-1] | second[-1])
    known = sorted(word for word, count in told.items() if count >= least)
    rows: dict[str, list[tuple[int, int]]] = {word: [] for word in known}
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        for side, sign in ((a, 1), (b, -1)):
            for word in side:
                if word in rows:
                    rows[word].append((row, sign))
    prompt = pairs.clusters[settled]
    found = []
    for word in known:
        at, sign = np.array(rows[word]).T
        found.append(share(sign.astype(np.float64), prompt[at]))
    corrected = holm([p for _, p in found]) if found else np.zeros(0)
    made = [Word(w, s, float(c)) for w, (s, _), c in zip(known, found, corrected, strict=True)]
    raw = {w: p for w, (_, p) in zip(known, found, strict=True)}
    return sorted(made, key=lambda one: (raw[one.word], one.word))
