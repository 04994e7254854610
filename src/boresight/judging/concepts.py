"""Preferences over several domains by concepts that are shared and specific: hierarchical multi-domain regression.

A domain's coefficients are b + s_d: b is common to all, s_d what is special to it. Sparse penalties keep s_d at 0
where the domain does what all do. With a domain per annotator or judge the same tells what sets them apart.

Source: Calderon, Ein-Dor and Reichart 2025, "Multi-Domain Explainability of Preferences", section 3.3 (objective (1)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.judging.explain_fit import folds, losses
from boresight.paper import paper

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GRID = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Penalties to choose among, as shares of the one at which every coefficient is 0."""


@dataclass(frozen=True)
class Hierarchy:
    """Shared coefficients (K,) and each domain's deviations (D, K); in logits of what they were fitted on.

    converged: whether the optimality conditions are met to the tolerance asked for.
    """

    shared: Floats
    specific: Floats
    converged: bool

    def coefficients(self, domain: int | None = None) -> Floats:
        """Those of a domain, shared + specific; of one that was never seen (None), the shared ones."""
        return self.shared if domain is None else self.shared + self.specific[domain]

    def margins(self, x: ArrayLike, domain: ArrayLike) -> Floats:
        """Log-odds that the first of each pair is preferred, (n,); domain -1 is one that was never seen."""
        return self.contributions(x, domain).sum(-1)

    def contributions(self, x: ArrayLike, domain: ArrayLike) -> Floats:
        """What each concept adds to the log-odds of each pair, (n, K): the local explanation."""
        d = np.asarray(domain)
        specific = np.where((d >= 0)[:, None], self.specific[np.maximum(d, 0)], 0.0)
        return np.asarray(np.asarray(x, np.float64) * (self.shared + specific))

    def lift(self, domain: int | None = None) -> Floats:
        """About how many per cent likelier a pair of even odds is to be won by 1 more of each concept: 50 * (b + s)."""
        return 50 * self.coefficients(domain)


@paper("hmdr-preference-explain")
def hierarchical(
    x: ArrayLike,
    domain: ArrayLike,
    preferred: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    *,
    alpha: float = 1.0,
    shared: float = 1.0,
    specific: float = 1.0,
    domains: int | None = None,
    tolerance: float = 1e-6,
    steps: int = 5000,
) -> Hierarchy:
    """Minimise sum_i l(y_i, (b + s_d).x_i) + alpha * sum_i l(y_i, b.x_i) + shared * |b|_1 + specific * sum_d |s_d|_1.

    x: (n, K) of each pair: 1, 0 or -1 where the first response has more of a concept, as much, or less; or any
    difference. domain: (n,) from 0. preferred: (n,) in [0, 1] how far the first is preferred; 1 for all if not given.
    weight: (n,). l is the logistic loss. alpha: how much b alone must predict, for domains that were never seen; the
    paper chooses it by cross-validation. shared, specific: penalties; infinite keeps those at 0, so that
    specific = inf is one pooled regression and shared = inf one regression for each domain. domains: how many there
    are, as many as `domain` says if not given.
    Accelerated proximal gradient steps (Beck and Teboulle 2009, restarted where the objective rises) until no
    coefficient violates its optimality condition by more than tolerance * (1 + n).
    Raises InputError if shapes disagree or a penalty is negative.
    """
    x, d = np.asarray(x, np.float64), np.asarray(domain, np.int64)
    y = np.ones(len(x)) if preferred is None else np.asarray(preferred, np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    if x.ndim != 2 or not (d.shape == y.shape == w.shape == x.shape[:1]):
        raise InputError(f"shapes {x.shape}, {d.shape}, {y.shape} and {w.shape} disagree", mend="one row for each pair")
    if alpha < 0 or not (shared >= 0 and specific >= 0):
        raise InputError("alpha and penalties must not be negative", mend="give 0 or more")
    count = max(int(d.max(initial=-1)) + 1, 1) if domains is None else domains
    if len(d) and (d.min() < 0 or d.max() >= count):
        raise InputError(f"domains run from 0 to {count - 1}, not to {d.max()}", mend="number them from 0")
    rows = [np.flatnonzero(d == k) for k in range(count)]
    limits = np.concatenate([[shared], np.full(count, specific)])[:, None]

    def pull(at: Floats) -> Floats:
        """The gradient of the smooth part at (1 + D, K)."""
        own = w * (_sigmoid((x * (at[0] + at[1:][d])).sum(-1)) - y)
        alone = alpha * w * (_sigmoid(x @ at[0]) - y)
        return np.stack([x.T @ (own + alone), *(x[r].T @ own[r] for r in rows)])

    def value(at: Floats) -> float:
        own = losses((x * (at[0] + at[1:][d])).sum(-1), y) @ w
        finite = np.where(at == 0, 0.0, np.abs(at) * np.where(np.isfinite(limits), limits, 0.0)).sum()
        return float(own + alpha * (losses(x @ at[0], y) @ w) + finite)

    tops = [np.linalg.norm((x[r].T * w[r]) @ x[r], 2) if len(r) else 0.0 for r in rows]
    steep = 0.25 * ((1 + alpha) * np.linalg.norm((x.T * w) @ x, 2) + max(tops))
    at = np.zeros((1 + count, x.shape[1]))
    if steep == 0:
        return Hierarchy(at[0], at[1:], True)
    ahead, speed, now, converged = at, 1.0, value(at), False
    for step in range(steps):
        moved = _shrunk(ahead - pull(ahead) / steep, limits / steep)
        then = value(moved)
        if then > now:  # the momentum has carried too far: from here again, without it
            moved = _shrunk(at - pull(at) / steep, limits / steep)
            then, speed = value(moved), 1.0
        faster = (1 + sqrt(1 + 4 * speed**2)) / 2
        ahead = moved + (speed - 1) / faster * (moved - at)
        at, speed, now = moved, faster, then
        if step % 10 == 9 and _violation(at, pull(at), limits) <= tolerance * (1 + len(x)):
            converged = True
            break
    return Hierarchy(at[0], at[1:], converged)


@dataclass(frozen=True)
class Chosen:
    """What cross-validation chose: the fit on all data, its penalties, and the held-out loss of each that was tried.

    tried: (shared, specific, mean held-out log-loss in nats), of which the least was taken.
    """

    fit: Hierarchy
    shared: float
    specific: float
    tried: tuple[tuple[float, float, float], ...]


def chosen(
    x: ArrayLike,
    domain: ArrayLike,
    preferred: ArrayLike | None = None,
    prompts: ArrayLike | None = None,
    *,
    alpha: float = 1.0,
    shared: Sequence[float] = GRID,
    specific: Sequence[float] = GRID,
    count: int = 5,
    seed: int = 0,
    domains: int | None = None,
) -> Chosen:
    """`hierarchical` with penalties chosen by cross-validation over prompts.

    shared, specific: shares of the penalty at which all coefficients are 0 (inf: kept at 0); each with each is tried.
    prompts: (n,), so that no prompt is in two of the `count` folds. alpha: one figure, or choose outside.
    """
    x, d = np.asarray(x, np.float64), np.asarray(domain, np.int64)
    y = np.ones(len(x)) if preferred is None else np.asarray(preferred, np.float64)
    number = max(int(d.max(initial=-1)) + 1, 1) if domains is None else domains
    top = float(np.abs(x.T @ (y - 0.5)).max(initial=0.0)) * (1 + alpha)
    fold = folds(np.arange(len(x)) if prompts is None else np.asarray(prompts), count, seed)
    tried = []
    for first in shared:
        for second in specific:
            total = 0.0
            for k in range(int(fold.max(initial=0)) + 1):
                kept, out = fold != k, fold == k
                share = kept.mean() if len(kept) else 1.0
                some = hierarchical(
                    x[kept], d[kept], y[kept], alpha=alpha, shared=first * top * share, specific=second * top * share,
                    domains=number, tolerance=1e-3, steps=200,
                )  # fmt: skip
                total += float(losses(some.margins(x[out], d[out]), y[out]).sum())
            tried.append((first * top, second * top, total / max(len(x), 1)))
    best = min(tried, key=lambda one: one[2])
    whole = hierarchical(
        x, d, y, alpha=alpha, shared=best[0], specific=best[1], domains=number, tolerance=1e-4, steps=1000
    )
    return Chosen(whole, best[0], best[1], tuple(tried))


def _shrunk(at: Floats, by: Floats) -> Floats:
    return np.asarray(np.sign(at) * np.maximum(np.abs(at) - by, 0.0))


def _violation(at: Floats, gradient: Floats, limits: Floats) -> float:
    """How far the largest coefficient is from its optimality condition: 0 at the minimum."""
    finite = np.where(np.isfinite(limits), limits, 0.0)
    moving = np.abs(gradient + np.sign(at) * finite)
    resting = np.maximum(np.abs(gradient) - limits, 0.0)
    return float(np.where(at != 0, moving, resting).max(initial=0.0))


def _sigmoid(m: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(m), np.float64)
