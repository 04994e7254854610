"""Counterfactual explanations: what would have to be otherwise for a model to decide otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError, nearest
from boresight.paper import paper

Vector = NDArray[np.float64]
Predict = Callable[[Vector], NDArray[Any]]
"""Features (rows, width) -> predicted classes (rows,)."""
Chance = Callable[[Vector], Vector]
"""Features (rows, width) -> probability of the target class, (rows,)."""
DEEPEST = 12


@dataclass(frozen=True)
class Counterfactuals:
    """Rows that the model puts into the target class, each made from one sample.

    rows: (n, width). of: (n,), the place of the sample each is for. changed: (n, width), which features differ from it.
    tried: how many were made; those that the model does not put into the target class are left out.
    """

    rows: Vector
    of: NDArray[np.int64]
    changed: NDArray[np.bool_]
    tried: int


@paper("t-col")
def t_col(
    predict: Predict,
    x: ArrayLike,
    y: ArrayLike,
    samples: ArrayLike,
    target: Any,
    *,
    prototypes: str = "near",
    count: int = 1,
    depth: int = 4,
    score: str = "rss",
    chance: Chance | None = None,
    seed: int = 0,
) -> Counterfactuals:
    """Counterfactuals that take some features of a prototype of the target class, chosen block by block.

    x, y: rows of data (rows, width) and their classes; samples: (n, width), to be explained; target: the class wanted.
    Features are taken as numbers of like scale (standardise them first; one-hot columns of one category belong into one
    block). For each sample `count` prototypes are picked among rows of the target class (see `prototype_rows`), and in
    each block of `depth` features the mixture of sample and prototype with the best local score is kept (`mixed`).
    chance: needed by prototypes="sure".

    Raises InputError for unusable shapes or options, or if no row is of the target class. Source: Wang et al. 2023
    (T-COL), from the scores and prototypes of its released code; in which pairs it advises them was not found.
    """
    data, wanted = np.asarray(x, np.float64), np.asarray(samples, np.float64)
    classes = np.asarray(y)
    if data.ndim != 2 or wanted.ndim != 2 or data.shape[1] != wanted.shape[1] or classes.shape != data.shape[:1]:
        raise InputError(
            f"x {data.shape}, y {classes.shape}, samples {wanted.shape}",
            mend="give (rows, width), (rows,) and (samples, width)",
        )
    pool = data[classes == target]
    if not len(pool):
        raise InputError(f"no row is of class {target!r}", mend="give data of the class that is wanted")
    options: dict[str, Any] = {"kind": prototypes, "count": count, "chance": chance, "seed": seed}
    # Those that are the same for every sample are looked for once.
    common = prototype_rows(pool, pool[0], **options) if prototypes in ("centre", "sure") else None
    made, of = [], []
    for place, sample in enumerate(wanted):
        for prototype in prototype_rows(pool, sample, **options) if common is None else common:
            made.append(mixed(sample, prototype, depth=depth, score=score))
            of.append(place)
    rows = np.array(made).reshape(-1, data.shape[1])
    right = np.asarray(predict(rows)) == target if len(rows) else np.zeros(0, bool)
    owner = np.array(of, np.int64)[right]
    return Counterfactuals(rows[right], owner, rows[right] != wanted[owner], len(rows))


def prototype_rows(
    pool: ArrayLike,
    sample: ArrayLike,
    *,
    kind: str = "near",
    count: int = 1,
    chance: Chance | None = None,
    seed: int = 0,
) -> Vector:
    """`count` rows of `pool` (rows, width) that stand for their class, (count, width), the best first.

    kind: "near", the smallest Euclidean distance to the sample; "cosine", the largest cosine with it; "few", the most
    features equal to it; "centre", the rows next to the centres of `count` clusters (k-means); "sure", the largest
    `chance`. Raises InputError for another kind, count < 1, or "sure" without `chance`. Fewer where
    the pool is smaller.
    """
    rows, one = np.asarray(pool, np.float64), np.asarray(sample, np.float64)
    kinds = ("near", "cosine", "few", "centre", "sure")
    if kind not in kinds:
        raise InputError(f"prototypes are {kind!r}", mend=nearest(kind, kinds))
    if count < 1 or (kind == "sure" and chance is None):
        raise InputError(
            f"{count} prototypes of kind {kind!r}",
            mend='give 1 or more, and `chance` with "sure": how sure the model is',
        )
    count = min(count, len(rows))
    if kind == "centre":
        from sklearn.cluster import KMeans

        centres = KMeans(count, n_init=4, random_state=seed).fit(rows).cluster_centers_
        return rows[((rows[:, None] - centres) ** 2).sum(-1).argmin(0)]
    if kind == "near":
        worth = -((rows - one) ** 2).sum(1)
    elif kind == "cosine":
        worth = _cosine(rows, one)
    elif kind == "few":
        worth = (rows == one).sum(1).astype(np.float64)
    else:
        assert chance is not None
        worth = np.asarray(chance(rows), np.float64)
    return rows[np.argsort(-worth, kind="stable")[:count]]


def mixed(sample: ArrayLike, prototype: ArrayLike, *, depth: int = 4, score: str = "rss") -> Vector:
    """Features of sample and prototype, (width,), chosen block by block of `depth` features.

    Of the 2^depth mixtures of a block the one with the best score is kept, of equals that with the fewest features of
    the prototype. With c = cosine(prototype, mixture), d = |sample - mixture|: "rss" exp(c) / sigmoid(d); "ncs"
    c / exp(d), which stays nearer to the sample; "fcs" sigmoid(c) + share of features unchanged, which changes fewer.

    Raises InputError for unusable shapes, another score, or a depth outside 1 .. 12. Source: Wang et al. 2023 (T-COL).
    """
    one, other = np.asarray(sample, np.float64), np.asarray(prototype, np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise InputError(f"sample {one.shape}, prototype {other.shape}", mend="give (width,) twice")
    if score not in ("rss", "ncs", "fcs"):
        raise InputError(f"score is {score!r}", mend='give "rss", "ncs" or "fcs"')
    if not 1 <= depth <= DEEPEST:
        raise InputError(f"depth is {depth}", mend=f"give 1 to {DEEPEST}: a block has 2^depth mixtures")
    found = one.copy()
    for start in range(0, len(one), depth):
        here = slice(start, start + depth)
        taken = _paths(len(one[here]))
        rows = np.where(taken, other[here], one[here])
        close = _cosine(rows, other[here])
        apart = np.sqrt(((rows - one[here]) ** 2).sum(1))
        if score == "rss":
            worth = np.exp(close) * (1 + np.exp(-apart))
        elif score == "ncs":
            worth = close * np.exp(-apart)
        else:
            worth = 1 / (1 + np.exp(-close)) + (rows == one[here]).mean(1)
        found[here] = rows[int(np.argmax(worth))]
    return found


def nearest_instance(predict: Predict, x: ArrayLike, samples: ArrayLike, target: Any) -> Counterfactuals:
    """For each sample the nearest row of x that the model puts into the target class; none if there is no such row."""
    data, wanted = np.asarray(x, np.float64), np.asarray(samples, np.float64)
    pool = data[np.asarray(predict(data)) == target]
    if not len(pool):
        return Counterfactuals(wanted[:0], np.zeros(0, np.int64), wanted[:0] != 0, len(wanted))
    rows = np.array([pool[((pool - s) ** 2).sum(1).argmin()] for s in wanted]).reshape(-1, data.shape[1])
    return Counterfactuals(rows, np.arange(len(wanted)), rows != wanted, len(wanted))


def by_gradient(
    predict: Predict,
    chance: Chance,
    samples: ArrayLike,
    target: Any,
    *,
    step: float = 0.05,
    steps: int = 400,
    reach: ArrayLike | None = None,
) -> Counterfactuals:
    """From each sample straight up the gradient of the target's log-odds until the model decides otherwise.

    step: length of a step; steps: the most. reach: (samples,), go on to that distance from the sample, so that two
    methods can be compared at one distance; else a row stops as soon as it is over. The gradient is by central
    differences, so that any model with probabilities will do. Source: in the manner of Wachter et al. 2017, whose
    penalty on distance is replaced by stopping.
    """
    wanted = np.asarray(samples, np.float64)
    far = np.zeros(len(wanted)) if reach is None else np.asarray(reach, np.float64)
    rows = wanted.copy()
    width = wanted.shape[1]

    def odds(z: Vector) -> Vector:
        p = np.clip(chance(z), 1e-12, 1 - 1e-12)
        return np.log(p) - np.log1p(-p)

    for _ in range(steps):
        over = np.asarray(predict(rows)) == target
        going = ~over | (np.linalg.norm(rows - wanted, axis=1) < far - step / 2)
        if not going.any():
            break
        here = rows[going]
        moved = (here[:, None, None] + 1e-4 * np.array([1, -1])[:, None, None] * np.eye(width)).reshape(-1, width)
        up = odds(moved).reshape(len(here), 2, width)
        slope = up[:, 0] - up[:, 1]
        size = np.linalg.norm(slope, axis=1, keepdims=True)
        rows[going] = here + step * slope / np.where(size > 0, size, 1.0)
    right = np.asarray(predict(rows)) == target
    of = np.flatnonzero(right)
    return Counterfactuals(rows[right], of, rows[right] != wanted[right], len(wanted))


def one_each(found: Counterfactuals) -> Counterfactuals:
    """The first counterfactual of each sample that has one: of its best prototype."""
    first = np.unique(found.of, return_index=True)[1]
    return Counterfactuals(found.rows[first], found.of[first], found.changed[first], found.tried)


def validity(found: Counterfactuals, predict: Predict, target: Any) -> float:
    """The share of counterfactuals that another model puts into the target class as well; nan where there is none."""
    if not len(found.rows):
        return float("nan")
    return float((np.asarray(predict(found.rows)) == target).mean())


def proximity(found: Counterfactuals, samples: ArrayLike) -> Vector:
    """Euclidean distance of each counterfactual to its sample, (n,)."""
    return np.asarray(np.linalg.norm(found.rows - np.asarray(samples, np.float64)[found.of], axis=1))


def _cosine(rows: Vector, one: Vector) -> Vector:
    size = np.linalg.norm(rows, axis=1) * np.linalg.norm(one)
    return np.divide(rows @ one, size, out=np.zeros(len(rows)), where=size > 0)


@lru_cache(maxsize=DEEPEST)
def _paths(depth: int) -> NDArray[np.bool_]:
    """All ways to take (True) or leave each feature of the prototype, the fewest first, (2^depth, depth)."""
    ways = sorted(product((False, True), repeat=depth), key=sum)
    return np.array(ways, bool).reshape(-1, depth)
