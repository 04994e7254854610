"""Intervals: every share, mean and difference that Boresight reports comes with one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp, inf, isnan, log, nan, sqrt
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


def crossed_mean(
    values: ArrayLike,
    first: Sequence[Hashable] | NDArray[Any],
    second: Sequence[Hashable] | NDArray[Any],
    confidence: float = 0.95,
) -> tuple[Interval, float]:
    """The mean of values that depend on each other in two crossed ways, such as by seed and by prompt; shape (n,).

    Returns its t interval and the two-sided p-value of its being 0. The variance is V(first) + V(second) - V(both),
    each V as in `mean` with those clusters (Cameron, Gelbach and Miller 2011, eq. 2.11), and never less than the larger
    of the first two. Degrees of freedom: Satterthwaite's, V^2 / (V(first)^2 / (G1 - 1) + V(second)^2 / (G2 - 1)), as
    for readers crossed with cases (Hillis 2007).
    Where one of the two has a single cluster, the interval is over the other alone: it holds for that seed, or prompt.
    Without spread to be seen (one value, one cluster in both) the interval is infinite and p is 1.
    Raises ValueError if values are not finite or the shapes disagree.
    """
    x = _vector(values, "values")
    if len(first) != x.size or len(second) != x.size:
        raise ValueError(f"{x.size} values but {len(first)} and {len(second)} cluster names")
    if x.size == 0:
        return Interval(nan, -inf, inf, 0), 1.0
    centre = float(x.mean())
    codes = [_codes(first), _codes(second)]
    both = codes[0] * (int(codes[1].max()) + 1) + codes[1]
    parts = [_variance(x - centre, c) for c in (*codes, both)]
    known = [(v, g) for v, g in parts[:2] if g > 1]
    if not known:
        return Interval(centre, -inf, inf, x.size), 1.0
    if len(known) == 1:
        variance, freedom = known[0][0], float(known[0][1] - 1)
    else:
        (va, ga), (vb, gb) = known
        variance = max(va + vb - parts[2][0], va, vb)
        below = va**2 / (ga - 1) + vb**2 / (gb - 1)
        freedom = variance**2 / below if below > 0 else float(min(ga, gb) - 1)
    from scipy.stats import t

    error = sqrt(variance)
    if error <= 1e-12 * max(1.0, abs(centre)):
        return Interval(centre, centre, centre, x.size), 1.0 if centre == 0 else 0.0
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    return Interval(centre, centre - half, centre + half, x.size), float(2 * t.sf(abs(centre) / error, freedom))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values, (n,), in the order given: reject where one is at most alpha, and the chance of any
    false rejection is at most alpha, however the tests depend on each other.

    Raises ValueError for a p-value outside [0, 1].
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = _vector(p_values, "p_values")
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p-values lie in [0, 1], not {p[(p < 0) | (p > 1)][0]}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


_SLOPE_SD = 5.0
"""Standard deviation of the normal prior on the effect of length: wide, so that it matters only where data say nothing
(a logit of 5 takes a share from .01 to .5)."""


def at_equal_length(right: ArrayLike, difference: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """The share of pairs judged right if both responses were equally long: one value a pair, whose mean it is.

    right: 1 where the chosen response is preferred, 0 where the rejected one is, 0.5 for a tie, (n,). difference:
    length of the chosen less that of the rejected, (n,), in any unit. A logistic regression of `right` on
    tanh(difference / its root mean square) with an intercept; the share is the fitted one at difference 0, as in the
    length-controlled win rate of Dubois et al. 2024 (AlpacaEval 2, eq. 2). The slope has a wide normal prior.

    Returns (values, slope). The values are linearised (the share plus each pair's influence on it), so that any mean
    of them, clustered or paired, has the interval of the share; they need not lie in [0, 1]. slope: by how many logits
    judgements follow length, from 0 to far longer.
    Raises ValueError if the shapes disagree, values are not finite, or one of `right` is outside [0, 1].
    """
    y, d = _vector(right, "right"), _vector(difference, "difference")
    if y.shape != d.shape:
        raise ValueError(f"{y.size} judgements but {d.size} differences")
    if ((y < 0) | (y > 1)).any():
        raise ValueError("right must lie in [0, 1]")
    if y.size == 0 or (y == y[0]).all():
        return y, 0.0  # nothing varies, so nothing is owed to length
    size = sqrt(float((d**2).mean()))
    x = np.column_stack([np.ones(y.size), np.tanh(d / size) if size else np.zeros(y.size)])
    prior = np.diag([0.0, 1 / _SLOPE_SD**2])
    at = np.array([log(y.mean() / (1 - y.mean())), 0.0])

    def fitted(at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        share = 0.5 * (1 + np.tanh(0.5 * (x @ at)))
        return share, x.T @ (y - share) - prior @ at, x.T @ (x * (share * (1 - share))[:, None]) + prior

    def gain(at: NDArray[np.float64]) -> float:
        z = x @ at
        return float((y * z - np.logaddexp(0, z)).sum() - 0.5 * at @ prior @ at)

    for _ in range(100):
        _, slope, curve = fitted(at)
        step = np.linalg.solve(curve, slope)
        while gain(at + step) < gain(at) - 1e-12 and np.abs(step).max() > 1e-12:
            step = step / 2
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    share, _, curve = fitted(at)
    level = 1 / (1 + exp(-at[0]))
    influence = y.size * level * (1 - level) * np.linalg.solve(curve, (x * (y - share)[:, None]).T)[0]
    return level + influence - influence.mean(), float(at[1])


def _codes(clusters: Sequence[Hashable] | NDArray[Any]) -> NDArray[np.int64]:
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    place: dict[Hashable, int] = {}
    return np.array([place.setdefault(c, len(place)) for c in clusters], dtype=np.int64)


def _variance(residuals: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[float, int]:
    """The variance of the mean with these clusters, and how many clusters there are."""
    sums = np.bincount(codes, weights=residuals)
    groups = np.unique(codes).size
    return (groups / (groups - 1) * float(sums @ sums) / residuals.size**2 if groups > 1 else 0.0), groups


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
    return np.bincount(_codes(clusters), weights=x).astype(np.float64)


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2))
