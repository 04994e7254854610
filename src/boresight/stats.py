"""Intervals: every share, mean and difference that Boresight reports comes with one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval, low <= value <= high; `n` is the number of observations.

    Where nothing can be said (no observation, or one that has no spread) the interval is as wide as it can be, not
    as narrow.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """For people: `0.583 [0.549, 0.617], n = 797`."""
        if isnan(self.value):
            return f"nothing to estimate, n = {self.n}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return value < self.low or value > self.high

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def proportion(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """A share of n independent trials, with Wilson's score interval.

    successes: in [0, n]; count a tie as half. With ties the interval is wider than it need be, since a tie varies
    less than a coin. n = 0 gives the value nan and the interval [0, 1].
    Raises ValueError if successes is outside [0, n] or confidence outside (0, 1).
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; no continuity
    correction.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, n] = [0, {n}], not {successes}")
    z = _normal_quantile(confidence)
    if n == 0:
        return Interval(nan, 0.0, 1.0, 0)
    share = successes / n
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(n * share * (1 - share) + z * z / 4)
    # At 0 and n the end is exactly 0 or 1; rounding would put it a hair beside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(share, low, high, n)


def win_rate(wins: int, ties: int, losses: int, confidence: float = 0.95) -> Interval:
    """Share of comparisons won, a tie counting half, with Wilson's interval.

    Raises ValueError if a count is negative.
    """
    if min(wins, ties, losses) < 0:
        raise ValueError(f"counts must not be negative: {wins} wins, {ties} ties, {losses} losses")
    return proportion(wins + ties / 2, wins + ties + losses, confidence)


def mean(
    values: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None, confidence: float = 0.95
) -> Interval:
    """The mean of `values`, shape (n,), with a t interval.

    clusters: for each value what it depends on, usually its prompt. Values of one cluster may then be correlated in
    any way: the interval comes from the clusters' summed residuals, with (number of clusters - 1) degrees of freedom
    (Liang and Zeger 1986, with the factor G / (G - 1)). With one value in each cluster it is the plain t interval,
    with clusters of equal size the t interval of their means.
    One value, or one cluster, says nothing of the spread: the interval is infinite. No value: the mean is nan.
    Raises ValueError if values are not finite or the shapes disagree.
    """
    x = _vector(values, "values")
    n = x.size
    _normal_quantile(confidence)
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"{n} values but {len(clusters)} cluster names")
    if n == 0:
        return Interval(nan, -inf, inf, 0)
    centre = float(x.mean())
    sums = _cluster_sums(x - centre, clusters)
    groups = sums.size
    if groups == 1:
        return Interval(centre, -inf, inf, n)
    from scipy.stats import t

    error = sqrt(groups / (groups - 1) * float(sums @ sums)) / n
    half = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return Interval(centre, centre - half, centre + half, n)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None, confidence: float = 0.95
) -> Interval:
    """The mean of a - b, where a[i] and b[i] were measured on the same item, shape (n,) each; see `mean`.

    Raises ValueError if the shapes disagree or values are not finite.
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.shape != y.shape:
        raise ValueError(f"paired values must match: {x.size} of a, {y.size} of b")
    return mean(x - y, clusters, confidence)


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}[{int(np.flatnonzero(~np.isfinite(x))[0])}] is not finite")
    return x


def _cluster_sums(x: NDArray[np.float64], clusters: Sequence[Hashable] | NDArray[Any] | None) -> NDArray[np.float64]:
    if clusters is None:
        return x
    if isinstance(clusters, np.ndarray):
        index, count = np.unique(clusters, return_inverse=True)[1], 0
    else:
        place: dict[Hashable, int] = {}
        index = np.array([place.setdefault(c, len(place)) for c in clusters], dtype=np.int64)
        count = len(place)
    return np.bincount(index, weights=x, minlength=count).astype(np.float64)


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2))
