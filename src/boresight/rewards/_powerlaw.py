"""Sums of powers, fitted robustly to log losses from many starts, with profiles of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import inf

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
HUBER = 1.345
"""Residuals beyond so many standard deviations count linearly: 95% as efficient as least squares on normal noise."""
EXPONENTS = (0.001, 10.0)
"""Exponents are sought between these; an interval that reaches one is open at that side."""
Model = Callable[[Vector], tuple[Vector, NDArray[np.float64]]]


def log_law(logs: Vector, floor: bool) -> Model:
    """Log losses (n,) and their derivatives (n, p) at parameters [log E,] log A_1, log alpha_1, log A_2, ..."""

    def at(theta: Vector) -> tuple[Vector, NDArray[np.float64]]:
        powers = np.exp(theta[floor:][1::2])
        terms = theta[floor:][::2] - powers * logs
        if floor:
            terms = np.concatenate([np.full((len(logs), 1), theta[0]), terms], 1)
        top = terms.max(1, keepdims=True)
        weight = np.exp(terms - top)
        total = weight.sum(1, keepdims=True)
        weight = weight / total
        slopes = np.empty((len(logs), len(theta)))
        slopes[:, :floor] = weight[:, :floor]
        slopes[:, floor::2] = weight[:, floor:]
        slopes[:, floor + 1 :: 2] = -weight[:, floor:] * logs * powers
        return (top + np.log(total))[:, 0], slopes

    return at


def bounded(logs: Vector, target: Vector, floor: bool) -> tuple[Vector, Vector]:
    """Between what values each parameter is sought."""
    low, high = [target.min() - 12] * floor, [target.max()] * floor
    for column in logs.T:
        reach = EXPONENTS[1] * np.abs(column).max() + 30
        low, high = [*low, -reach, np.log(EXPONENTS[0])], [*high, target.max() + reach, np.log(EXPONENTS[1])]
    return np.array(low), np.array(high)


def _cost(residual: Vector, scale: float) -> float:
    size = np.abs(residual)
    return float(np.where(size <= scale, size**2 / 2, scale * (size - scale / 2)).sum())


def _minimised(
    model: Model, target: Vector, theta: Vector, scale: float, bounds: tuple[Vector, Vector], free: NDArray[np.bool_]
) -> tuple[Vector, float]:
    """Levenberg and Marquardt's steps from `theta`, the weights of Huber's function in each; returns the cost too."""
    theta = np.clip(theta, *bounds)
    value, slopes = model(theta)
    residual, damping = value - target, 1e-3
    cost = _cost(residual, scale)
    for _ in range(300):
        weight = np.minimum(1, scale / np.maximum(np.abs(residual), 1e-300))
        part = slopes[:, free]
        gradient, curve = part.T @ (weight * residual), part.T @ (part * weight[:, None])
        size = np.maximum(np.diag(curve), 1e-12)
        moved = theta.copy()
        moved[free] -= np.linalg.solve(curve + damping * np.diag(size), gradient)
        moved = np.clip(moved, *bounds)
        value, there = model(moved)
        other = _cost(value - target, scale)
        if other < cost:
            done = cost - other <= 1e-12 * cost
            theta, residual, slopes, cost, damping = moved, value - target, there, other, max(damping / 4, 1e-9)
            if done:
                break
        else:
            damping *= 5
            if damping > 1e9:
                break
    return theta, cost


def searched(
    model: Model, target: Vector, logs: Vector, floor: bool, bounds: tuple[Vector, Vector]
) -> tuple[Vector, float]:
    """The best parameters from a grid of starts, and where Huber's function turns linear, from residuals there."""
    least, spread = target.min(), float(np.ptp(target))
    starts = []
    for share, *powers in product((0.3, 0.9, 0.99) if floor else (0.0,), *[(0.1, 0.4, 1.0)] * logs.shape[1]):
        theta = [least + np.log(share)] if floor else []
        for power, column in zip(powers, logs.T, strict=True):
            theta += [target.mean() + np.log(max(1 - share, 0.05)) - np.log(logs.shape[1]) + power * column.mean()]
            theta += [np.log(power)]
        starts.append(np.array(theta))
    free = np.ones(len(starts[0]), bool)
    loose = min(
        (_minimised(model, target, s, max(spread, 1e-6) / 10, bounds, free) for s in starts), key=lambda f: f[1]
    )
    residual = np.abs(model(loose[0])[0] - target)
    scale = max(HUBER * 1.4826 * float(np.median(residual)) * np.sqrt(target.size / (target.size - len(free))), 1e-9)
    best = min((_minimised(model, target, s, scale, bounds, free) for s in (loose[0], *starts)), key=lambda f: f[1])
    return best[0], scale


class Profile:
    """Intervals of single parameters: where the least cost with that parameter held exceeds what chance allows."""

    def __init__(
        self, model: Model, target: Vector, scale: float, bounds: tuple[Vector, Vector], best: Vector, confidence: float
    ) -> None:
        from scipy.stats import t

        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), not {confidence}")
        self.model, self.target, self.scale, self.bounds, self.best = model, target, scale, bounds, best
        value, slopes = model(best)
        residual = value - target
        n, p = slopes.shape
        inside = np.abs(residual) <= scale
        influence = float((np.minimum(np.abs(residual), scale) ** 2).sum()) / (n - p)
        quantile = float(t.ppf((1 + confidence) / 2, n - p))
        allowed = quantile**2 * influence / max(float(inside.mean()), 0.1) / 2  # as an M-estimator's variance has it
        self.most = _cost(residual, scale) + max(allowed, 1e-16)
        curve = np.linalg.pinv(slopes.T @ slopes)
        self.step = np.maximum(np.sqrt(np.maximum(np.diag(curve), 0) * 2 * allowed), 1e-6)

    def interval(self, j: int) -> tuple[float, float]:
        """The ends for parameter j; -inf or inf where it reaches its bound."""
        return self._end(j, -1), self._end(j, 1)

    def _end(self, j: int, way: int) -> float:
        free = np.arange(len(self.best)) != j
        limit = float(self.bounds[0 if way < 0 else 1][j])

        def fitted(value: float, start: Vector) -> tuple[Vector, bool]:
            held = start.copy()
            held[j] = value
            theta, cost = _minimised(self.model, self.target, held, self.scale, self.bounds, free)
            return theta, cost <= self.most

        inner, theta, step = float(self.best[j]), self.best, float(self.step[j]) / 2
        while True:
            outer = inner + way * step
            if way * (outer - limit) >= 0:
                outer = limit
            found, fits = fitted(outer, theta)
            if not fits:
                break
            if outer == limit:
                return way * inf
            inner, theta, step = outer, found, step * 1.6
        for _ in range(20):
            middle = (inner + outer) / 2
            found, fits = fitted(middle, theta)
            inner, outer, theta = (middle, outer, found) if fits else (inner, middle, theta)
        return (inner + outer) / 2
