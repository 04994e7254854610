"""MetaMetrics: metrics that exist already, combined so that they agree best with human ratings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError, nearest
from boresight.paper import paper

Vector = NDArray[np.float64]
_ROWS = 256


def pair_accuracy(scores: ArrayLike, human: ArrayLike) -> float:
    """Of all couples of items that people rate differently, the share that scores order as people do; ties half.

    scores, human: (items,). 0.5 where people rate all alike.
    """
    x, y = np.asarray(scores, np.float64), np.asarray(human, np.float64)
    agreed, told = 0.0, 0
    for start in range(0, x.size, _ROWS):
        # A row of couples with all later items: the whole square would not fit where items are many.
        here = slice(start, start + _ROWS)
        later = np.arange(x.size) > np.arange(x.size)[here, None]
        people = np.where(later, np.sign(y[here, None] - y), 0)
        agreed += float((np.sign(x[here, None] - x) * people).sum())
        told += int((people != 0).sum())
    return 0.5 + 0.5 * agreed / told if told else 0.5


def kendall(scores: ArrayLike, human: ArrayLike) -> float:
    """Kendall's tau-b, 0 where one of the two does not vary."""
    from scipy.stats import kendalltau

    return _defined(float(kendalltau(scores, human).statistic))


def spearman(scores: ArrayLike, human: ArrayLike) -> float:
    """Spearman's rank correlation, 0 where one of the two does not vary."""
    x, y = (np.asarray(v, np.float64) for v in (scores, human))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    from scipy.stats import spearmanr

    return _defined(float(spearmanr(x, y).statistic))


AGREEMENTS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "kendall": kendall,
    "spearman": spearman,
    "pairs": pair_accuracy,
}
"""What the combination may be tuned for, by name."""


@dataclass(frozen=True)
class Scale:
    """What brings raw metrics to [0, 1]: the range that each had on the tuning split; `lower_better` are turned over.

    low, high, lower_better: (metrics,). Values beyond the range are cut to it; a metric without a range is 0.5.
    """

    low: Vector
    high: Vector
    lower_better: NDArray[np.bool_]

    @classmethod
    def of(cls, metrics: ArrayLike, lower_better: Sequence[int] = ()) -> Scale:
        """The scale of metrics (items, metrics); lower_better: columns of which small values are good."""
        raw = _table(metrics)
        turned = np.zeros(raw.shape[1], bool)
        turned[list(lower_better)] = True
        return cls(raw.min(0), raw.max(0), turned)

    def __call__(self, metrics: ArrayLike) -> Vector:
        """(items, metrics) -> the same in [0, 1], where more is better."""
        raw = _table(metrics)
        if raw.shape[1] != self.low.size:
            raise InputError(
                f"{raw.shape[1]} metrics, tuned on {self.low.size}", mend="give the metrics it was made of"
            )
        range_ = self.high - self.low
        safe = np.where(range_ > 0, range_, 1.0)
        z = np.where(range_ > 0, (np.clip(raw, self.low, self.high) - self.low) / safe, 0.5)
        return np.where(self.lower_better, 1 - z, z)


@dataclass(frozen=True)
class LinearMetric:
    """y = sum of weight * metric, metrics on their scale; only the ratios of weights matter to ranks.

    weights: (metrics,), in [0, 1]. agreement: on the tuning split, which flatters it. tried: how many weights were.
    """

    scale: Scale
    weights: Vector
    agreement: float
    tried: int

    def __call__(self, metrics: ArrayLike) -> Vector:
        """The score of each item, (items,); metrics: raw, (items, metrics)."""
        return self.scale(metrics) @ self.weights


@dataclass(frozen=True)
class BoostedMetric:
    """Boosted trees on the metrics that were left after pruning. kept: their columns. agreement: cross-validated."""

    scale: Scale
    model: Any
    kept: tuple[int, ...]
    agreement: float

    def __call__(self, metrics: ArrayLike) -> Vector:
        """The score of each item, (items,); metrics: raw, all of them, (items, metrics)."""
        return np.asarray(self.model.predict(self.scale(metrics)[:, self.kept]), np.float64)


@paper("metametrics")
def tune(
    metrics: ArrayLike,
    human: ArrayLike,
    *,
    by: str = "kendall",
    calls: int = 60,
    lower_better: Sequence[int] = (),
    seed: int = 0,
) -> LinearMetric:
    """Weights of metrics in [0, 1] that agree best with human ratings, by Bayesian optimisation.

    metrics: (items, metrics), raw scores; human: (items,), ratings, more is better. by: "kendall", "spearman" or
    "pairs" (pair accuracy). calls: how many weights are tried. Each metric alone and the plain mean are tried first, so
    that on this split none of them is better; then a few random ones; then where a Gaussian process (Matern 5/2, with
    noise) expects the largest improvement. Of equals the first found is taken. Keep some ratings aside to judge it by.

    Raises InputError for unusable shapes, an unknown `by`, or too few calls for the first tries.
    Source: Winata et al. 2024 (MetaMetrics); the paper's Gaussian process is that of a library, with the same kernel.
    """
    z, y, agree, scale = _prepared(metrics, human, by, lower_better)
    count = z.shape[1]
    rng = np.random.default_rng(seed)
    first = [*np.eye(count), np.ones(count), *rng.random((max(3, count), count))]
    if calls < count + 1:
        raise InputError(f"calls is {calls}", mend=f"give at least {count + 1}: each metric alone, and the mean")
    tried = np.array(first[:calls])
    found = [agree(z @ w, y) for w in tried]
    while len(found) < calls:
        best = tried[int(np.argmax(found))]
        likely = np.concatenate(
            [rng.random((512, count)), np.clip(best + rng.normal(0, 0.1, (256, count)), 0, 1), _corners(best, rng)]
        )
        gain = expected_improvement(*_surrogate(tried, np.array(found), likely), max(found))
        chosen = likely[int(np.argmax(gain))]
        tried = np.concatenate([tried, chosen[None]])
        found.append(agree(z @ chosen, y))
    best_at = int(np.argmax(found))
    return LinearMetric(scale, tried[best_at], float(found[best_at]), len(found))


def expected_improvement(mean: ArrayLike, deviation: ArrayLike, best: float) -> Vector:
    """E[max(0, f - best)] where f is normal with that mean and standard deviation, (n,) each; (n,).

    Where the deviation is 0 it is max(0, mean - best). Source: Jones et al. 1998, eq. 15, for maxima.
    """
    from scipy.stats import norm

    centre, spread = np.asarray(mean, np.float64), np.asarray(deviation, np.float64)
    ahead = centre - best
    z = np.divide(ahead, spread, out=np.zeros_like(ahead), where=spread > 0)
    known = ahead * norm.cdf(z) + spread * norm.pdf(z)
    return np.where(spread > 0, np.maximum(known, 0.0), np.maximum(ahead, 0.0))


@paper("metametrics")
def boost(
    metrics: ArrayLike,
    human: ArrayLike,
    *,
    by: str = "kendall",
    fewest: int = 1,
    folds: int = 4,
    lower_better: Sequence[int] = (),
    seed: int = 0,
    **trees: Any,
) -> BoostedMetric:
    """Boosted regression trees on metrics, the weakest of which is dropped again and again down to `fewest`.

    The set of metrics that agrees best with ratings left out in turn (`folds`) is fitted once more on all. trees:
    options of scikit-learn's GradientBoostingRegressor (60 trees of depth 2 unless told otherwise), whose importance
    decides. Shapes and `by` as in `tune`.

    Raises InputError as `tune` does, or for fewer than two folds or items than folds. Source: Winata et al. 2024
    (MetaMetrics, XGBoost with iterative pruning); its released code picks the set by agreement on the tuning split
    itself, which favours the largest; here it is cross-validated.
    """
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import KFold

    z, y, agree, scale = _prepared(metrics, human, by, lower_better)
    if not 2 <= folds <= len(y):
        raise InputError(f"folds is {folds}", mend=f"give 2 to {len(y)}, as many as there are items")
    if not 1 <= fewest <= z.shape[1]:
        raise InputError(f"fewest is {fewest}", mend=f"give 1 to {z.shape[1]}, as many as there are metrics")
    options = {"n_estimators": 60, "max_depth": 2, "learning_rate": 0.1, "subsample": 0.8, **trees}

    def fitted(items: Any, kept: list[int]) -> Any:
        return GradientBoostingRegressor(random_state=seed, **options).fit(z[np.ix_(items, kept)], y[items])

    kept, best = list(range(z.shape[1])), (-np.inf, list(range(z.shape[1])))
    splits = list(KFold(folds, shuffle=True, random_state=seed).split(z))
    while True:
        out = np.mean([agree(fitted(a, kept).predict(z[np.ix_(b, kept)]), y[b]) for a, b in splits])
        # Of equals the smaller set.
        best = max(best, (float(out), kept), key=lambda told: (told[0], -len(told[1])))
        if len(kept) == fewest:
            break
        weakest = int(np.argmin(fitted(np.arange(len(y)), kept).feature_importances_))
        kept = [k for place, k in enumerate(kept) if place != weakest]
    return BoostedMetric(scale, fitted(np.arange(len(y)), best[1]), tuple(best[1]), best[0])


def _surrogate(tried: Vector, found: Vector, at: Vector) -> tuple[Vector, Vector]:
    """Mean and standard deviation of a Gaussian process through what was found, at further weights.

    Weights are brought to length 1 first: agreement by ranks does not know their size.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel

    level, spread = float(found.mean()), float(found.std()) or 1.0
    best, chosen = -np.inf, None
    # A grid of length scales by marginal likelihood: a search by gradient at every step costs twenty times as much.
    for length in (0.2, 0.5, 1.0, 2.0):
        kernel = Matern(length_scale=length, nu=2.5) + WhiteKernel(1e-3)
        process = GaussianProcessRegressor(kernel, optimizer=None).fit(_directions(tried), (found - level) / spread)
        likelihood = float(process.log_marginal_likelihood_value_)
        if likelihood > best:
            best, chosen = likelihood, process
    assert chosen is not None
    mean, deviation = chosen.predict(_directions(at), return_std=True)
    return level + spread * mean, spread * np.sqrt(np.maximum(deviation**2 - 1e-3, 0.0))


def _directions(weights: Vector) -> Vector:
    size = np.linalg.norm(weights, axis=1, keepdims=True)
    return np.where(size > 0, weights / np.where(size > 0, size, 1.0), 1 / sqrt(weights.shape[1]))


def _corners(best: Vector, rng: np.random.Generator) -> Vector:
    """The best with some of its weights at 0 or 1."""
    drawn = rng.random((128, best.size))
    return np.where(drawn < 0.25, 0.0, np.where(drawn > 0.9, 1.0, best))


def _prepared(
    metrics: ArrayLike, human: ArrayLike, by: str, lower_better: Sequence[int]
) -> tuple[Vector, Vector, Callable[[ArrayLike, ArrayLike], float], Scale]:
    if by not in AGREEMENTS:
        raise InputError(f"by is {by!r}", mend=nearest(by, AGREEMENTS))
    raw, y = _table(metrics), np.asarray(human, np.float64)
    if y.shape != raw.shape[:1] or not np.isfinite(y).all():
        raise InputError(f"{raw.shape[0]} items with ratings of shape {y.shape}", mend="give one finite rating an item")
    if len(y) < 2:
        raise InputError(f"{len(y)} items", mend="give two or more")
    scale = Scale.of(raw, lower_better)
    return scale(raw), y, AGREEMENTS[by], scale


def _table(metrics: ArrayLike) -> Vector:
    raw = np.asarray(metrics, np.float64)
    if raw.ndim != 2 or raw.shape[1] == 0 or not np.isfinite(raw).all():
        raise InputError(f"metrics have shape {raw.shape}", mend="give finite numbers, (items, metrics)")
    return raw


def _defined(value: float) -> float:
    return value if np.isfinite(value) else 0.0
