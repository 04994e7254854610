"""Scorers that choose between models for a target domain of which no label is known; of all of them more is better.

As they are brought together for benchmarks by Lalou et al. 2024 (SKADA-Bench). Features and probabilities are whatever
the model at hand gives: nothing here knows of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.paper import paper

Vector = NDArray[np.float64]
Predict = Callable[[Vector], NDArray[Any]]
"""Features (rows, width) -> predicted classes (rows,)."""
_ROWS = 512


@paper("skada-bench")
def importance_weighted(right: ArrayLike, weights: ArrayLike) -> float:
    """Importance-weighted validation: the mean of `right` over source rows weighted as the target has them.

    right: (rows,), 1 where a held-out source row is predicted rightly, else 0, or any gain. weights: (rows,), target
    density over source density (`density_ratio`), not negative; only their ratios matter. All 0: the plain mean.

    Raises InputError for unusable shapes or weights. Source: Sugiyama et al. 2007, in its self-normalised form.
    """
    gain, w = _weighted(right, weights)
    return float(w @ gain / w.sum()) if w.sum() > 0 else float(gain.mean())


@paper("skada-bench")
def deep_embedded(loss: ArrayLike, weights: ArrayLike) -> float:
    """Deep embedded validation: minus the importance-weighted risk, with weights as a control variate.

    -(mean(w * loss) + eta * mean(w) - eta), eta = -cov(w * loss, w) / var(w). loss: (rows,) on held-out source rows;
    weights: (rows,), density ratios in the features of the model, of mean 1 over the source but for noise; where they
    do not vary eta is 0. Raises InputError as above, or for fewer than two rows. Source: You et al. 2019.
    """
    each, w = _weighted(loss, weights)
    if len(w) < 2:
        raise InputError(f"{len(w)} rows", mend="give two or more: a covariance is estimated")
    risk = w * each
    spread = float(w.var(ddof=1))
    eta = -float(np.cov(risk, w)[0, 1]) / spread if spread > 0 else 0.0
    return -float(risk.mean() + eta * w.mean() - eta)


@paper("skada-bench")
def prediction_entropy(probabilities: ArrayLike) -> float:
    """Minus the mean entropy of predictions on the target, in nats; from -log(classes) to 0.

    probabilities: (rows, classes), each row sums to 1. Raises InputError if not. Source: Morerio et al. 2018.
    """
    p = _probabilities(probabilities)
    return float(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(1).mean())


@paper("skada-bench")
def soft_neighbourhood_density(probabilities: ArrayLike, *, temperature: float = 0.05) -> float:
    """Mean entropy of each target row's similarities to the others, softmax(cosine / temperature), in nats.

    It is large where rows lie in dense clusters of alike predictions; at most log(rows - 1). probabilities: (rows,
    classes), rows sum to 1. Similarity of a row to itself is left out.

    Raises InputError for fewer than two rows, or temperature <= 0. Source: Saito et al. 2021, eq. 2 and 3; temperature
    0.05 is theirs.
    """
    p = _probabilities(probabilities)
    if len(p) < 2 or not temperature > 0:
        raise InputError(f"{len(p)} rows, temperature {temperature}", mend="give two rows or more, temperature above 0")
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, len(p), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(p)))
        near = unit[rows] @ unit.T / temperature
        near[np.arange(len(rows)), rows] = -np.inf
        near -= near.max(1, keepdims=True)
        share = np.exp(near)
        size = share.sum(1)
        # Entropy is log(sum) - mean of exponents; the row's own has no share, and -inf times 0 is no number.
        near[np.arange(len(rows)), rows] = 0.0
        total += float((np.log(size) - (share * near).sum(1) / size).sum())
    return total / len(p)


@paper("skada-bench")
def circular(
    fit: Callable[[Vector, NDArray[Any]], Predict],
    source: ArrayLike,
    labels: ArrayLike,
    target: ArrayLike,
    predicted: ArrayLike,
) -> float:
    """Circular validation: train on the target's predicted labels, and be right about the source; balanced accuracy.

    fit(features, classes) trains the same kind of model with the same options and returns its predict. source, target:
    (rows, width); labels: the source's true classes; predicted: the classes that the model under test gives the target.
    Where those are all one, that class is what the way back predicts.

    Raises InputError for shapes that disagree. Source: Bruzzone and Marconcini 2009.
    """
    x, y = np.asarray(source, np.float64), np.asarray(labels)
    there, given = np.asarray(target, np.float64), np.asarray(predicted)
    if len(x) != len(y) or len(there) != len(given) or not len(y) or not len(given):
        raise InputError(
            f"{len(x)} source rows with {len(y)} labels, {len(there)} target rows with {len(given)} predictions",
            mend="give one class for each row, and a row of each domain at least",
        )
    one = len(np.unique(given)) == 1
    back = np.full(len(y), given[0]) if one else np.asarray(fit(there, given)(x))
    return float(np.mean([(back[y == c] == c).mean() for c in np.unique(y)]))


@paper("skada-bench")
def mixval(predict: Predict, target: ArrayLike, *, mix: float = 0.55, kind: str = "both", seed: int = 0) -> float:
    """MixVal: whether mixtures of two target rows are given the predicted class of the one that is more in them.

    target: (rows, width); mix: the share of the first row, above 0.5 and below 1. kind: "intra", over pairs of rows of
    one predicted class; "inter", of two; "both", the mean of the two shares. Each row is mixed with another by a random
    permutation. Of a kind that has no pair nothing is known, and the other alone counts; with neither it is 0.

    Raises InputError for another kind, mix outside (0.5, 1), or no row. Source: Hu et al. 2023; mix 0.55 is theirs.
    """
    x = np.asarray(target, np.float64)
    if kind not in ("both", "intra", "inter"):
        raise InputError(f"kind is {kind!r}", mend='give "both", "intra" or "inter"')
    if not 0.5 < mix < 1:
        raise InputError(f"mix is {mix}", mend="give a share above 0.5 and below 1")
    if len(x) == 0:
        raise InputError("there is no target row", mend="give one or more")
    other = np.random.default_rng(seed).permutation(len(x))
    first = np.asarray(predict(x))
    second = first[other]
    kept = np.asarray(predict(mix * x + (1 - mix) * x[other])) == first
    alike = first == second
    wanted = {"intra": (alike,), "inter": (~alike,), "both": (alike, ~alike)}[kind]
    shares = [float(kept[where].mean()) for where in wanted if where.any()]
    return float(np.mean(shares)) if shares else 0.0


def _weighted(values: ArrayLike, weights: ArrayLike) -> tuple[Vector, Vector]:
    v, w = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if v.ndim != 1 or v.shape != w.shape or not len(v):
        raise InputError(f"values of shape {v.shape}, weights of shape {w.shape}", mend="give one of each, (rows,)")
    if not (np.isfinite(v).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise InputError("a value or weight is not usable", mend="give finite numbers, and weights of 0 or more")
    return v, w


def _probabilities(given: ArrayLike) -> Vector:
    p = np.asarray(given, np.float64)
    if p.ndim != 2 or not len(p) or not np.isfinite(p).all() or (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise InputError(f"probabilities of shape {p.shape}", mend="give (rows, classes), each row summing to 1")
    return p
