"""Simulated shifts between a source and a target domain, in a few dimensions, two classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boresight.errors import InputError, nearest

Vector = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """Rows of both domains: features (rows, WIDTH) and classes (rows,). The target's classes are for judging alone."""

    source: Vector
    labels: Labels
    target: Vector
    target_labels: Labels


WIDTH = 4


def covariate(rng: np.random.Generator, rows: int, size: float) -> Shift:
    """The same bent boundary, x1 > 0.5 x0^2 - 1, seen from its left by the source and from its right by the target.

    size: half the distance of the centres along x0. What a straight line does best is another thing on either side.
    """

    def side(centre: float) -> tuple[Vector, Labels]:
        x = rng.normal(size=(rows, WIDTH))
        x[:, 0] += centre
        x[:, 1] = 1.5 * x[:, 1] + 0.5 * centre**2 - 1
        return x, (x[:, 1] + 0.3 * rng.normal(size=rows) > 0.5 * x[:, 0] ** 2 - 1).astype(np.int64)

    return Shift(*side(-size), *side(size))


def target(rng: np.random.Generator, rows: int, size: float) -> Shift:
    """The same two classes, of normal features; the share of class 1 goes from 1/2 to 1 / (1 + e^(2 size))."""

    def side(share: float) -> tuple[Vector, Labels]:
        y = (rng.random(rows) < share).astype(np.int64)
        return _two_classes(rng, y, 0.8), y

    return Shift(*side(0.5), *side(float(1 / (1 + np.exp(2 * size)))))


def conditional(rng: np.random.Generator, rows: int, size: float) -> Shift:
    """The same shares; the target's features are stretched 1 + 3 * size times along a direction that is slant to the
    classes', so that another boundary parts them.
    """
    x, y = _halves(rng, rows)
    there, truth = _halves(rng, rows)
    slant = np.array([0.6, 0.8, 0.0, 0.0])
    return Shift(x, y, there + 3 * size * (there @ slant)[:, None] * slant, truth)


def subspace(rng: np.random.Generator, rows: int, size: float) -> Shift:
    """Classes differ in two directions: one that both domains share, one that is turned over in the target.

    size: how far classes lie apart in the second, in which the source is the easier to tell apart.
    """
    x, y = _halves(rng, rows)
    there, truth = _halves(rng, rows)
    x[:, 1] += size * (2 * y - 1)
    there[:, 1] -= size * (2 * truth - 1)
    # What is shared varies most.
    x[:, 0], there[:, 0] = 3 * x[:, 0], 3 * there[:, 0]
    return Shift(x, y, there, truth)


SHIFTS: dict[str, Callable[[np.random.Generator, int, float], Shift]] = {
    "covariate": covariate,
    "target": target,
    "conditional": conditional,
    "subspace": subspace,
}


def shifted(kind: str, seed: int, *, rows: int = 300, size: float = 1.0) -> Shift:
    """A shift by name, with `rows` rows in each domain; `size` 0 is (for all but "subspace") hardly any shift.

    Raises InputError for another kind, fewer than 4 rows, or size < 0.
    """
    if kind not in SHIFTS:
        raise InputError(f"there is no shift {kind!r}", mend=nearest(kind, SHIFTS))
    if rows < 4 or size < 0:
        raise InputError(f"rows is {rows}, size is {size}", mend="give 4 rows or more, and a size of 0 or more")
    return SHIFTS[kind](np.random.default_rng(seed), rows, size)


def _halves(rng: np.random.Generator, rows: int) -> tuple[Vector, Labels]:
    y = (np.arange(rows) % 2).astype(np.int64)
    return _two_classes(rng, y, 1.0), y


def _two_classes(rng: np.random.Generator, y: Labels, apart: float) -> Vector:
    x = rng.normal(size=(len(y), WIDTH))
    x[:, 0] += apart * (2 * y - 1)
    return x
