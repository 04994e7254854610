"""The Bradley-Terry model as a regression: its fit, the covariance that clusters allow, and refits by the thousand."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from boresight.errors import RunError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SLOPE_SD = 5.0
"""Standard deviation of the normal prior on slopes: so wide that it matters only where votes say nothing."""
STEPS = 200
TOLERANCE = 1e-9
CELLS = 4_000_000
"""Numbers held at once by refits."""


@dataclass(frozen=True)
class Fit:
    """Strengths in logits, (systems,), of mean 0; slopes, (covariates,); the inverse of the curvature of both.

    covariance: of strengths and slopes together, the sandwich over clusters; nan with a single cluster. clusters: how
    many. expected: the fitted chance that the first wins, (n,).
    """

    strength: Floats
    slope: Floats
    covariance: Floats
    clusters: int
    expected: Floats

    @property
    def error(self) -> Floats:
        """Standard errors of the strengths, relative to their mean, (systems,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance)[: len(self.strength)], 0))

    @property
    def slope_error(self) -> Floats:
        """Standard errors of the slopes, (covariates,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance)[len(self.strength) :], 0))

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """By how many logits system a is stronger than b, and the standard error of that."""
        v = self.covariance
        return float(self.strength[a] - self.strength[b]), sqrt(max(v[a, a] + v[b, b] - 2 * v[a, b], 0.0))

    def half(self, confidence: float = 0.95) -> float:
        """How many standard errors an interval reaches: t with (clusters - 1) degrees of freedom."""
        from scipy.stats import t

        return float(t.ppf((1 + confidence) / 2, self.clusters - 1)) if self.clusters > 1 else float("inf")


def logistic(z: Floats) -> Floats:
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def fit(
    first: Ints,
    second: Ints,
    outcome: Floats,
    systems: int,
    *,
    weight: Floats | None = None,
    clusters: Ints | None = None,
    covariates: Floats | None = None,
    prior: float = 0.0,
) -> Fit:
    """logit P(first wins) = strength[first] - strength[second] + covariates @ slope, by maximum likelihood.

    first, second: (n,) numbers of systems. outcome: (n,) in [0, 1], a tie is 0.5. covariates: (n, k), how the first
    differs from the second. clusters: (n,), for each vote what it depends on; each vote by itself if not given.
    prior: so many votes of each system against an average one, half of them won: needed where strengths are not
    bounded by the votes. Slopes have a normal prior of standard deviation SLOPE_SD.

    The covariance is the sandwich H^-1 (G / (G - 1) sum_g s_g s_g') H^-1 with s_g the scores summed over cluster g
    (Liang and Zeger 1986), so that ties, several votes on one prompt and a model that does not hold are in it.
    Raises RunError if Newton's method does not settle, which it does wherever the maximum exists.
    """
    from scipy.sparse import csr_array, hstack

    n = len(outcome)
    w = np.ones(n) if weight is None else weight
    rows = np.arange(n)
    signs = np.concatenate([np.ones(n), -np.ones(n)])
    places = (np.concatenate([rows, rows]), np.concatenate([first, second]))
    x = csr_array((signs, places), shape=(n, systems))
    k = 0
    if covariates is not None and covariates.shape[1]:
        k = covariates.shape[1]
        x = hstack([x, csr_array(covariates)], format="csr")
    ridge = np.concatenate([np.zeros(systems), np.full(k, SLOPE_SD**-2)])
    # Without a prior, adding a constant to all strengths changes nothing: this term fixes their mean, and nothing else.
    level = np.zeros((systems + k, systems + k))
    level[:systems, :systems] = 0.0 if prior else max(float(w.sum()), 1.0) / systems**2
    at = np.zeros(systems + k)

    def value(at: Floats) -> float:
        z = x @ at
        own = at[:systems]
        virtual = prior * float((0.5 * own - np.logaddexp(0, own)).sum())
        return float((w * (outcome * z - np.logaddexp(0, z))).sum() + virtual - 0.5 * (ridge * at) @ at)

    for _ in range(STEPS):
        share = logistic(x @ at)
        own = logistic(at[:systems])
        slope = x.T @ (w * (outcome - share)) - ridge * at
        slope[:systems] += prior * (0.5 - own)
        curve = (x.T @ (x * (w * share * (1 - share))[:, None])).toarray() + np.diag(ridge)
        curve[:systems, :systems] += np.diag(prior * own * (1 - own))
        step = np.linalg.solve(curve + level, slope - level @ at)
        now = value(at)
        while value(at + step) < now - 1e-9 * max(1.0, abs(now)) and np.abs(step).max() > TOLERANCE:
            step = step / 2
        at = at + step
        if np.abs(step).max() < TOLERANCE:
            break
    else:
        raise RunError(
            "the Bradley-Terry fit does not settle: some strengths have no bound",
            mend="look at the systems that never lost or never won; more votes, or a prior, bound them",
        )
    at[:systems] -= at[:systems].mean()
    share = logistic(x @ at)
    own_scores = x * (w * (outcome - share))[:, None]
    numbers = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    groups = int(numbers.max()) + 1
    gather = csr_array((np.ones(n), (numbers, rows)), shape=(groups, n))
    sums = (gather @ own_scores).toarray()
    inverse = np.linalg.inv(curve + level)
    inverse[:systems] -= inverse[:systems].mean(0, keepdims=True)  # of strengths less their mean
    meat = sums.T @ sums * (groups / (groups - 1)) if groups > 1 else np.full((systems + k,) * 2, np.nan)
    return Fit(at[:systems], at[systems:], inverse @ meat @ inverse.T, groups, share)


def cluster_weights(clusters: int, rounds: int, seed: int, *, like: int | None = None) -> Floats:
    """Random weights of mean 1 for the bootstrap, (rounds, clusters): all above 0, so that no system ever drops out.

    A Bayesian bootstrap (Rubin 1981) with gamma weights of shape (G - 2) / G: divided by their mean, their spread gives
    the mean of G clusters exactly its unbiased variance, where drawing with replacement makes it too small by
    (G - 1) / G. like: G, where only so many of the clusters are used at a time; all if not given. Raises ValueError
    with fewer than 3 clusters.
    """
    count = clusters if like is None else like
    if count < 3:
        raise ValueError(f"{count} clusters: the bootstrap needs 3")
    shape = (count - 2) / count
    return np.maximum(np.random.default_rng(seed).gamma(shape, 1 / shape, (rounds, clusters)), 1e-12)


def refit(
    first: Ints,
    second: Ints,
    outcome: Floats,
    systems: int,
    clusters: Ints,
    weights: Floats,
    start: Floats,
    *,
    weight: Floats | None = None,
    prior: float = 0.0,
) -> Floats:
    """Bradley-Terry strengths of mean 0 under each row of cluster weights, (rounds, systems).

    clusters: (n,) column of `weights` (rounds, columns) that each vote takes. start: strengths to begin at. The votes
    are summed over pairs of systems first; all rounds take Newton's steps together. Rounds that do not settle are nan.
    """
    from scipy.sparse import csr_array

    w = np.ones(len(outcome)) if weight is None else weight
    up = np.where(first < second, outcome, 1 - outcome)
    pair = np.minimum(first, second) * systems + np.maximum(first, second)
    pairs, edge = np.unique(pair, return_inverse=True)
    low, high = pairs // systems, pairs % systems
    shape = (weights.shape[1], len(pairs))
    total = csr_array((w, (clusters, edge)), shape=shape)
    score = csr_array((w * up, (clusters, edge)), shape=shape)
    rows = np.arange(len(pairs))
    signs = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
    away = csr_array((signs, (np.concatenate([rows, rows]), np.concatenate([low, high]))), shape=(len(pairs), systems))
    found = np.empty((len(weights), systems))
    size = max(1, CELLS // max(systems**2, len(pairs)))
    for begin in range(0, len(weights), size):
        some = weights[begin : begin + size]
        scale = some.mean(1, keepdims=True)
        found[begin : begin + size] = _newton(
            (total.T @ some.T).T / scale, (score.T @ some.T).T / scale, low, high, away, start, prior
        )
    return found


def _newton(total: Floats, score: Floats, low: Ints, high: Ints, away, start: Floats, prior: float) -> Floats:  # type: ignore[no-untyped-def]
    """Newton's steps, none longer than 2 logits, of all rounds. total, score: (rounds, pairs)."""
    rounds, systems = len(total), len(start)
    at = np.tile(start, (rounds, 1))
    level = np.maximum(total.sum(1), 1.0) / systems**2 * (prior == 0)
    diagonal = np.arange(systems)
    open_ = np.arange(rounds)
    absolute = abs(away)
    for _ in range(100):
        own = at[open_]
        share = logistic(own[:, low] - own[:, high])
        average = logistic(own)
        slope = (away.T @ (score[open_] - total[open_] * share).T).T + prior * (0.5 - average)
        spread = total[open_] * share * (1 - share)
        curve = np.repeat(level[open_], systems * systems).reshape(len(open_), systems, systems)
        curve[:, low, high] -= spread
        curve[:, high, low] -= spread
        curve[:, diagonal, diagonal] += (absolute.T @ spread.T).T + prior * average * (1 - average)
        step = np.linalg.solve(curve, (slope - level[open_, None] * own.sum(1, keepdims=True))[..., None])[..., 0]
        longest = np.abs(step).max(1)
        at[open_] = own + step * np.minimum(1.0, 2.0 / np.maximum(longest, 1e-12))[:, None]
        open_ = open_[longest > 1e-5]  # the next step would be of the order of its square
        if not len(open_):
            break
    at[open_] = np.nan
    return np.asarray(at - at.mean(1, keepdims=True), np.float64)
