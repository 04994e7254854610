"""Simple adaptation to a target domain without labels: source rows weighed, or features brought to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError

Vector = NDArray[np.float64]


def density_ratio(
    source: ArrayLike, target: ArrayLike, at: ArrayLike, *, c: float = 1.0, flatten: float = 1.0, most: float = 50.0
) -> Vector:
    """Target density over source density at `at`, (rows,), from a logistic regression that tells the domains apart.

    (rows of source / rows of target) * p(target | x) / p(source | x), cut to `most`, to the power `flatten`: 1 weighs
    in full, 0 not at all. source, target, at: (rows, width). c: inverse strength of the penalty.

    Raises InputError for unusable shapes or options. Source: Bickel et al. 2007; Shimodaira 2000 for `flatten`.
    """
    from sklearn.linear_model import LogisticRegression

    s, t = _two(source, target)
    if not 0 <= flatten <= 1 or not most > 0 or not c > 0:
        raise InputError(f"c {c}, flatten {flatten}, most {most}", mend="give c > 0, flatten in [0, 1], most > 0")
    teller = LogisticRegression(C=c, max_iter=1000)
    teller.fit(np.concatenate([s, t]), np.repeat([0, 1], [len(s), len(t)]))
    # The log-odds, whose exponential does not lose what p(source) = 0 would.
    odds = teller.decision_function(np.asarray(at, np.float64)) + np.log(len(s) / len(t))
    return np.asarray(np.exp(flatten * np.minimum(odds, np.log(most))))


def coral(source: ArrayLike, target: ArrayLike, *, penalty: float = 1.0) -> Vector:
    """The source's features with the target's covariance, (rows, width): whitened, then coloured; means are left alone.

    (x - m) (C_s + penalty I)^(-1/2) (C_t + penalty I)^(1/2) + m, with m the source's mean. penalty: above 0, in units
    of the features' variance. Raises InputError for unusable shapes. Source: Sun et al. 2016 (CORAL), with the identity
    (penalty 1) added to both covariances.
    """
    s, t = _two(source, target)
    if not penalty > 0:
        raise InputError(f"penalty is {penalty}", mend="give a number above 0")
    mean, ridge = s.mean(0), penalty * np.eye(s.shape[1])
    move = _power(_covariance(s) + ridge, -0.5) @ _power(_covariance(t) + ridge, 0.5)
    return np.asarray((s - mean) @ move + mean)


def align_subspaces(source: ArrayLike, target: ArrayLike, *, width: int) -> tuple[Vector, Vector]:
    """Both domains on `width` principal axes, the source's turned to the target's; (rows, width) each.

    x_s P_s (P_s^T P_t) and x_t P_t, each domain less its own mean, P the principal axes. Raises InputError for unusable
    shapes or a width beyond the features or rows. Source: Fernando et al. 2013 (subspace alignment).
    """
    s, t = _two(source, target)
    if not 1 <= width <= min(s.shape[1], len(s), len(t)):
        raise InputError(f"width is {width}", mend=f"give 1 to {min(s.shape[1], len(s), len(t))}")
    s, t = s - s.mean(0), t - t.mean(0)
    axes_s, axes_t = (np.linalg.svd(x, full_matrices=False)[2][:width].T for x in (s, t))
    return s @ axes_s @ (axes_s.T @ axes_t), t @ axes_t


def _two(source: ArrayLike, target: ArrayLike) -> tuple[Vector, Vector]:
    s, t = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if s.ndim != 2 or t.ndim != 2 or s.shape[1] != t.shape[1] or len(s) < 2 or len(t) < 2:
        raise InputError(f"source {s.shape}, target {t.shape}", mend="give (rows, width) each, two rows or more")
    if not (np.isfinite(s).all() and np.isfinite(t).all()):
        raise InputError("a feature is not finite", mend="look for nan and inf")
    return s, t


def _covariance(x: Vector) -> Vector:
    return np.asarray(np.cov(x, rowvar=False)).reshape(x.shape[1], x.shape[1])


def _power(matrix: Vector, power: float) -> Vector:
    values, axes = np.linalg.eigh(matrix)
    return np.asarray(axes * np.maximum(values, 1e-12) ** power @ axes.T)
