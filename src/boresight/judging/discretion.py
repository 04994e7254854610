"""Discretion: what annotators do where principles conflict or are silent, and where they go against all of them.

verdicts: (n, K) of an oracle, 1 where principle k prefers the first response of a pair, -1 the second, 0 neither.
choices: (n,) of an annotator, 1, -1, or 0 where it did not decide.

Source: Buyl et al. 2025, "AI Alignment at Your Discretion"; definitions checked against the authors' code
(maartenbuyl/alignment-discretion, analysis.ipynb). There a principle that wins (or loses) all its conflicts gets an
infinite priority; here a prior keeps it finite, which leaves it first (or last).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.judging.factors import Strengths, strengths
from boresight.paper import paper
from boresight.stats import Interval, mean, proportion

Signs = NDArray[np.int64]


@dataclass(frozen=True)
class Situations:
    """Of each pair, (n,) bool: whether principles that are not indifferent agree, conflict, or there are none."""

    consensus: NDArray[np.bool_]
    conflict: NDArray[np.bool_]
    indifference: NDArray[np.bool_]

    def shares(self) -> dict[str, Interval]:
        """How often each occurs."""
        names = ("consensus", "conflict", "indifference")
        return {name: proportion(int(getattr(self, name).sum()), len(self.consensus)) for name in names}


def situations(verdicts: ArrayLike) -> Situations:
    """What the principles say of each pair. Discretion is needed in conflict and in indifference."""
    v = _verdicts(verdicts)
    first, second = np.any(v > 0, axis=1), np.any(v < 0, axis=1)
    return Situations(np.asarray(first ^ second), np.asarray(first & second), np.asarray(~(first | second)))


@paper("alignment-discretion")
def arbitrariness(verdicts: ArrayLike, choices: ArrayLike, prompts: ArrayLike | None = None) -> Interval:
    """Discretion arbitrariness: the share of pairs in consensus in which the annotator goes against it.

    Pairs that the annotator left undecided do not count. Wilson's interval, or clustered where `prompts` are given.
    """
    v, a = _both(verdicts, choices)
    used = situations(v).consensus & (a != 0)
    against = (np.sign(v[used].sum(1)) * a[used]) < 0
    if prompts is not None and len(np.unique(np.asarray(prompts)[used])) < used.sum():
        return mean(against.astype(np.float64), np.asarray(prompts)[used])
    return proportion(int(against.sum()), int(used.sum()))


def supremacy(verdicts: ArrayLike, choices: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principle supremacy (K, K): of the conflicts between i and j, the share in which the annotator sides with i.

    Also how many such conflicts there were, (K, K). Without one the share is nan.
    """
    v, a = _both(verdicts, choices)
    sides = v[a != 0] * a[a != 0, None]
    wins = (sides > 0).astype(np.float64).T @ (sides < 0)
    games = wins + wins.T
    return np.divide(wins, games, out=np.full(wins.shape, nan), where=games > 0), games


@paper("alignment-discretion")
def priorities(verdicts: ArrayLike, choices: ArrayLike, *, penalty: float = 0.1) -> Strengths:
    """Principle priority: Bradley-Terry strengths, where each principle that sides with the annotator beats each that
    goes against it. penalty: 1 / variance of a normal prior on them.
    """
    v, a = _both(verdicts, choices)
    sides = v * a[:, None]
    return strengths(sides > 0, sides < 0, penalty=penalty)


@paper("alignment-discretion")
def discrepancy(first: ArrayLike, second: ArrayLike) -> float:
    """Discretion discrepancy of two annotators' priorities: (1 - Kendall's tau-b) / 2, from 0 (one order) to 1.

    nan where one of them has no order at all.
    """
    from scipy.stats import kendalltau

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"priorities have shapes {a.shape} and {b.shape}", mend="give those of the same principles")
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return nan
    return float((1 - kendalltau(a, b).statistic) / 2)


def _verdicts(verdicts: ArrayLike) -> Signs:
    v = np.asarray(verdicts)
    if v.ndim != 2 or not np.isin(v, (-1, 0, 1)).all():
        raise InputError("verdicts must be (pairs, principles) of 1, 0 and -1", mend="give the signs alone")
    return v.astype(np.int64)


def _both(verdicts: ArrayLike, choices: ArrayLike) -> tuple[Signs, Signs]:
    v, a = _verdicts(verdicts), np.asarray(choices)
    if a.shape != v.shape[:1] or not np.isin(a, (-1, 0, 1)).all():
        raise InputError(f"choices must be 1, 0 or -1 for each of {len(v)} pairs", mend="give the signs alone")
    return v, a.astype(np.int64)
