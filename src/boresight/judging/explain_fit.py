"""The regression behind an explanation: preferences as a logistic function of differences, the same in either order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ENOUGH = 40
"""Prompts from which intervals are clustered on them; twice the number of features at least."""


@dataclass(frozen=True)
class Fitted:
    """Coefficients and how sure they are.

    w: (d,) of the standardised differences, in logits. low, high: (d,) 95% interval. se: (d,). p: (d,) two-sided, of
    its being 0. scale: (d,) root mean square of each difference, by which it was divided; 0 where it never differs, and
    then w is 0 and p 1. kind: "clustered" (over prompts), or "posterior" where prompts are too few for that.
    separable: some combination of features is right about every pair, so that only the prior keeps w finite.
    """

    w: Floats
    se: Floats
    low: Floats
    high: Floats
    p: Floats
    scale: Floats
    kind: str
    separable: bool

    def margins(self, x: ArrayLike) -> Floats:
        """The log-odds that the first of each pair is preferred; x: (n, d) differences as they were given."""
        return self.contributions(x).sum(-1)

    def contributions(self, x: ArrayLike) -> Floats:
        """What each feature adds to the log-odds of each pair, (n, d): the local explanation."""
        safe = np.where(self.scale > 0, self.scale, 1.0)
        return np.asarray(x, np.float64) / safe * self.w


def logistic(
    x: ArrayLike,
    y: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    *,
    penalty: ArrayLike = 1.0,
    start: Floats | None = None,
    tolerance: float = 1e-10,
) -> Floats:
    """Coefficients w (d,) that minimise sum_i weight_i * loss_i + sum_k penalty_k * w_k^2 / 2.

    x: (n, d) differences, first less second. y: (n,) how far the first is preferred, in [0, 1]; 1 for all if not given,
    0.5 for a tie. loss_i = y_i * log(1 + exp(-x_i.w)) + (1 - y_i) * log(1 + exp(x_i.w)). No intercept: turning a pair
    over (x to -x, y to 1 - y) changes nothing. penalty: positive, one or (d,); 1 / penalty is the variance of a normal
    prior around 0. Newton's method, steps halved where they do not help, until the gradient is below
    tolerance * (1 + n).
    Raises InputError if the shapes disagree, values are not finite, y is outside [0, 1] or a penalty is not positive.
    """
    x, y, weight = _checked(x, y, weight)
    ridge = np.broadcast_to(np.asarray(penalty, np.float64), x.shape[1:])
    if not (np.isfinite(ridge).all() and (ridge > 0).all()):
        raise InputError("the penalty must be positive", mend="give 1, or another positive number")
    w = np.zeros(x.shape[1]) if start is None else start.astype(np.float64)
    value = _objective(x @ w, y, weight, ridge, w)
    for _ in range(200):
        p = _sigmoid(x @ w)
        gradient = x.T @ (weight * (p - y)) + ridge * w
        if np.abs(gradient).max(initial=0.0) <= tolerance * (1 + len(x)):
            break
        curve = (x.T * (weight * p * (1 - p))) @ x + np.diag(ridge)
        step, size = np.linalg.solve(curve, gradient), 1.0
        while size > 1e-8:
            tried = w - size * step
            then = _objective(x @ tried, y, weight, ridge, tried)
            if then <= value + 1e-13 * (1 + abs(value)):  # within rounding
                break
            size /= 2
        else:
            break
        w, value = tried, then
    return w


def fitted(
    x: ArrayLike,
    y: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    prompts: ArrayLike | None = None,
    *,
    penalty: float = 1.0,
    scale: Floats | None = None,
    confidence: float = 0.95,
) -> Fitted:
    """Coefficients of standardised differences with intervals; see `logistic` for x, y and weight.

    Differences are divided by `scale`, their root mean square if not given, and never centred. prompts: (n,) a number
    for each pair's prompt; each pair its own if not given. With 40 prompts or more, and at least twice as many as
    features, intervals are clustered on them: H^-1 (sum_g s_g s_g') H^-1 * G / (G - 1), H the curvature with the
    penalty, s_g a prompt's summed gradient, and Student's t with G - 1 degrees of freedom (Liang and Zeger 1986); but
    no variance is smaller than that of H^-1, as a feature that only a few pairs have would fit them and seem certain.
    With fewer prompts it is H^-1 alone, the normal approximation to the posterior under the prior that the penalty is,
    which takes pairs as independent.
    """
    x, y, weight = _checked(x, y, weight)
    codes = np.arange(len(x)) if prompts is None else np.unique(np.asarray(prompts), return_inverse=True)[1]
    scale = root_mean_square(x, weight) if scale is None else scale
    used = np.flatnonzero((scale > 0) & (x != 0).any(0))
    z = x[:, used] / scale[used]
    w = np.zeros(x.shape[1])
    w[used] = logistic(z, y, weight, penalty=penalty)
    groups = int(codes.max()) + 1 if len(codes) else 0
    clustered = groups >= max(ENOUGH, 2 * len(used))
    p = _sigmoid(z @ w[used])
    curve = (z.T * (weight * p * (1 - p))) @ z + penalty * np.eye(len(used))
    inverse = np.asarray(np.linalg.inv(curve), np.float64)
    if clustered:
        sums = np.zeros((groups, len(used)))
        np.add.at(sums, codes, z * (weight * (p - y))[:, None])
        spread = inverse @ (sums.T @ sums) @ inverse * groups / (groups - 1)
        variance = np.maximum(np.diag(spread), np.diag(inverse))
    else:
        variance = np.diag(inverse)
    from scipy.stats import norm, t

    law = t(groups - 1) if clustered else norm()
    se: Floats = np.full(x.shape[1], inf, np.float64)
    se[used] = np.sqrt(variance)
    half = float(law.ppf((1 + confidence) / 2)) * se
    p_value = np.ones(x.shape[1])
    some = used[se[used] > 0]
    p_value[some] = 2 * law.sf(np.abs(w[some]) / se[some])
    kind = "clustered" if clustered else "posterior"
    return Fitted(w, se, w - half, w + half, p_value, scale, kind, separable(z, y))


def bootstrap(
    x: ArrayLike,
    y: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    prompts: ArrayLike | None = None,
    *,
    rounds: int = 200,
    seed: int = 0,
    penalty: float = 1.0,
    confidence: float = 0.95,
) -> tuple[Floats, Floats]:
    """Percentile intervals (low, high), (d,) each, of the coefficients of `fitted`: whole prompts are drawn again.

    The scale of each feature stays that of the whole data. rounds: how often; 0 gives infinite intervals, as does a
    single prompt, which says nothing of the spread.
    """
    x, y, weight = _checked(x, y, weight)
    codes = np.arange(len(x)) if prompts is None else np.unique(np.asarray(prompts), return_inverse=True)[1]
    scale = root_mean_square(x, weight)
    used = np.flatnonzero(scale > 0)
    low, high = np.full(x.shape[1], -inf), np.full(x.shape[1], inf)
    groups = int(codes.max()) + 1 if len(codes) else 0
    if rounds < 1 or groups < 2:
        return low, high
    z = x[:, used] / scale[used]
    whole, rng = logistic(z, y, weight, penalty=penalty), np.random.default_rng(seed)
    found = np.empty((rounds, len(used)))
    for k in range(rounds):
        times = np.bincount(rng.integers(groups, size=groups), minlength=groups)[codes]
        kept = times > 0
        found[k] = logistic(z[kept], y[kept], (weight * times)[kept], penalty=penalty, start=whole, tolerance=1e-6)
    tail = (1 - confidence) / 2
    low[used], high[used] = np.quantile(found, [tail, 1 - tail], axis=0)
    return low, high


def separable(x: ArrayLike, y: ArrayLike | None = None) -> bool:
    """Whether some w has x_i.w > 0 for every pair with y_i > 1/2 and < 0 for every pair with y_i < 1/2; ties left out.

    Then without a prior the coefficients would grow without end. Found by linear programming. No pair: False.
    """
    from scipy.optimize import linprog

    x, y, _ = _checked(x, y, None)
    z = x[y != 0.5] * np.sign(y[y != 0.5] - 0.5)[:, None]
    if not len(z) or not z.shape[1] or (z == 0).all(1).any():
        return False
    if len(z) > 5000 and not separable(z[:: len(z) // 2000]):  # what no w does for some, none does for all
        return False
    answer = linprog(np.zeros(z.shape[1]), A_ub=-z, b_ub=-np.ones(len(z)), bounds=(None, None), method="highs")
    return bool(answer.status == 0)


def root_mean_square(x: Floats, weight: Floats | None = None) -> Floats:
    """Of each column, (d,), weighted; exactly 0 where a column is 0."""
    if not len(x):
        return np.zeros(x.shape[1])
    return np.sqrt(np.average(x * x, axis=0, weights=weight))


def losses(margins: ArrayLike, y: ArrayLike) -> Floats:
    """The log-loss of each pair in nats, (n,): y * log(1 + exp(-m)) + (1 - y) * log(1 + exp(m))."""
    m, y = np.asarray(margins, np.float64), np.asarray(y, np.float64)
    return y * np.logaddexp(0, -m) + (1 - y) * np.logaddexp(0, m)


def rights(margins: ArrayLike, y: ArrayLike) -> Floats:
    """1 where the margin has the preference's sign, 0 where it has the other, 0.5 for ties and for margins of 0."""
    return (np.sign(np.asarray(margins)) * np.sign(np.asarray(y, np.float64) - 0.5) + 1) / 2


def folds(prompts: Sequence[int] | Ints, count: int = 5, seed: int = 0) -> Ints:
    """The fold of each pair, (n,): all pairs of a prompt in one, prompts shuffled by the seed, folds of like size.

    With fewer prompts than `count` there are as many folds as prompts.
    """
    codes = np.unique(np.asarray(prompts), return_inverse=True)[1]
    groups = int(codes.max()) + 1 if len(codes) else 0
    order = np.random.default_rng(seed).permutation(groups)
    return (order % max(1, min(count, groups)))[codes]


def _checked(x: ArrayLike, y: ArrayLike | None, weight: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise InputError(f"differences have shape {x.shape}", mend="give them as (pairs, features)")
    y = np.ones(len(x)) if y is None else np.asarray(y, np.float64)
    weight = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    if y.shape != x.shape[:1] or weight.shape != x.shape[:1]:
        raise InputError(f"{len(x)} pairs, but {y.shape} preferences and {weight.shape} weights", mend="one each")
    if not (np.isfinite(x).all() and np.isfinite(weight).all() and ((y >= 0) & (y <= 1)).all() and (weight >= 0).all()):
        raise InputError("differences and weights must be finite, preferences in [0, 1]", mend="look for nan or inf")
    return x, y, weight


def _sigmoid(m: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(m), np.float64)


def _objective(m: Floats, y: Floats, weight: Floats, ridge: Floats, w: Floats) -> float:
    return float(weight @ losses(m, y) + (ridge * w * w).sum() / 2)
