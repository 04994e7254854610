"""Bradley-Terry weights that are pulled towards weights found before: pre-training on much, fine-tuning on little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.paper import paper
from boresight.rewards.features import FOLDS

Vector = NDArray[np.float64]
PULLS = tuple(float(p) for p in 10.0 ** np.arange(-2, 4.1))
"""Strengths of the pull that cross-validation chooses from."""


def bradley_terry(gaps: ArrayLike, *, pull: float, start: ArrayLike | None = None) -> Vector:
    """The weights w, (features,), that minimise sum -log sigmoid(gaps w) + pull / 2 |w - start|^2, by Newton's method.

    gaps: features of the chosen response less those of the rejected one, (pairs, features); no pair: `start` itself.
    start: weights that were found before; 0 by default. pull: > 0, so that the minimum is finite and one.
    Raises InputError for gaps that are not finite or no matrix, a start of another length, a pull that is not positive.
    """
    x = np.asarray(gaps, float)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise InputError(f"gaps of shape {x.shape} are no finite matrix", mend="give (pairs, features)")
    origin = np.zeros(x.shape[1]) if start is None else np.asarray(start, float)
    if origin.shape != (x.shape[1],) or not np.isfinite(origin).all():
        raise InputError(f"start of shape {origin.shape} for {x.shape[1]} features", mend="give a number for each")
    if not (np.isfinite(pull) and pull > 0):
        raise InputError(f"pull is {pull}", mend="give a positive number")

    def cost(w: Vector) -> float:
        return float(np.logaddexp(0, -(x @ w)).sum() + pull / 2 * ((w - origin) ** 2).sum())

    w = origin.copy()
    for _ in range(100):
        wrong = 0.5 * (1 - np.tanh(0.5 * (x @ w)))
        slope = -(x.T @ wrong) + pull * (w - origin)
        curve = x.T @ (x * (wrong * (1 - wrong))[:, None]) + pull * np.eye(len(w))
        step = np.linalg.solve(curve, slope)
        size, before = 1.0, cost(w)
        while cost(w - size * step) > before and size > 1e-6:
            size /= 2
        w = w - size * step
        if np.abs(size * step).max(initial=0) < 1e-10:
            break
    return w


@paper("worldpm")
def fine_tune(
    gaps: ArrayLike, start: ArrayLike | None = None, *, pulls: Sequence[float] = PULLS, folds: int = FOLDS
) -> tuple[Vector, float]:
    """Weights fitted to few pairs, pulled towards `start` (or 0), and the pull, chosen by cross-validated log-loss.

    gaps: as in `bradley_terry`; the folds are every k-th pair, so draw their order at random. Among equal pulls the
    strongest is taken; with fewer than two pairs it is the strongest of all.
    Raises InputError as `bradley_terry`, and for no pulls or fewer than 2 folds.
    Source: the order of Wang et al. 2025, WorldPM: -log sigmoid(r_w - r_l) on many pairs, then on few; the pull stands
    for what few steps from pre-trained weights do there.
    """
    x = np.asarray(gaps, float)
    if not pulls or folds < 2:
        raise InputError(f"{len(pulls)} pulls and {folds} folds", mend="give a pull or more, and at least 2 folds")
    ordered = sorted(pulls, reverse=True)
    if len(ordered) == 1 or x.ndim != 2 or len(x) < 2:
        return bradley_terry(x, pull=ordered[0], start=start), ordered[0]
    fold = np.arange(len(x)) % min(folds, len(x))

    def lost(pull: float) -> float:
        total = 0.0
        for k in range(int(fold.max()) + 1):
            w = bradley_terry(x[fold != k], pull=pull, start=start)
            total += float(np.logaddexp(0, -(x[fold == k] @ w)).sum())
        return total

    best = min(ordered, key=lost)
    return bradley_terry(x, pull=best, start=start), best
