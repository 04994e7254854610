"""How far annotators agree: raw, Cohen's and weighted kappa, Fleiss' kappa, Krippendorff's alpha; with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.stats import Interval

Floats = NDArray[np.float64]
Weights = Literal["none", "linear", "quadratic"]
Distance = Literal["nominal", "ordinal", "interval", "ratio"]

ROUNDS = 1000


def cohen(
    a: Sequence[Hashable] | NDArray[Any],
    b: Sequence[Hashable] | NDArray[Any],
    *,
    weights: Weights = "none",
    labels: Sequence[Hashable] | None = None,
) -> float:
    """Cohen's kappa of two annotators on the same items, (n,) each; nan where chance alone agrees on everything.

    weights: linear or quadratic in the places of the labels, in the order of `labels` (sorted if not given).
    Raises ValueError if the lengths differ, there is no item, or one is not of the labels.
    Source: Cohen 1960; weighted: Cohen 1968. By scikit-learn.
    """
    x, y = _coded(a, b, labels)
    return _cohen(_table(x, y, int(max(x.max(), y.max())) + 1 if labels is None else len(labels)), weights)


def _coded(a: Any, b: Any, labels: Sequence[Hashable] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} verdicts of one annotator, {len(b)} of the other")
    if not len(a):
        raise ValueError("no item that both judged")
    known = list(labels) if labels is not None else sorted({*a, *b})
    place = {label: k for k, label in enumerate(known)}
    lost = next((v for v in (*a, *b) if v not in place), None)
    if lost is not None:
        raise ValueError(f"{lost!r} is not one of the labels {known}")
    return np.array([place[v] for v in a]), np.array([place[v] for v in b])


def _table(x: NDArray[np.int64], y: NDArray[np.int64], size: int) -> Floats:
    table = np.zeros((size, size))
    np.add.at(table, (x, y), 1)
    return table


def _cohen(table: Floats, weights: Weights) -> float:
    """Of a table of counts, by scikit-learn: its cells are items that weigh as many as they count."""
    from sklearn.metrics import cohen_kappa_score

    rows, columns = np.indices(table.shape)
    if min(np.count_nonzero(table.sum(0)), np.count_nonzero(table.sum(1))) <= 1 and (
        np.count_nonzero(table.sum(0) + table.sum(1)) <= 1
    ):
        return float("nan")
    return float(
        cohen_kappa_score(
            rows.ravel(), columns.ravel(), labels=list(range(len(table))), sample_weight=table.ravel(),
            weights=None if weights == "none" else weights,
        )
    )  # fmt: skip


def fleiss(counts: ArrayLike) -> float:
    """Fleiss' kappa. counts: (items, values), how many annotators gave each; the same number, 2 or more, on each item.

    nan where all votes are of one value. Raises ValueError for other shapes or unequal numbers of annotators.
    Source: Fleiss 1971, "Measuring nominal scale agreement among many raters".
    """
    table = np.asarray(counts, np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"counts have the shape (items, values), not {table.shape}")
    sizes = table.sum(1)
    if (sizes != sizes[0]).any() or sizes[0] < 2:
        raise ValueError("every item needs the same number of annotators, 2 or more; alpha() takes unequal numbers")
    observed = float((((table**2).sum(1) - sizes) / (sizes * (sizes - 1))).mean())
    chance = float(((table.sum(0) / table.sum()) ** 2).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def krippendorff(ratings: ArrayLike, distance: Distance = "nominal") -> float:
    """Krippendorff's alpha. ratings: (annotators, items) of numbers, nan where one did not judge.

    nan where fewer than two values occur on items that two or more judged.
    Source: Krippendorff 2018, Content Analysis, chapter 12. By evalica; for votes on pairs, whose sides have no order,
    use `boresight.data.checks.agreement.alpha`, which has an interval too.
    """
    import evalica
    import pandas as pd  # type: ignore[import-untyped]

    table = np.asarray(ratings, np.float64)
    shared = table[:, (~np.isnan(table)).sum(0) >= 2]
    values = np.unique(shared[~np.isnan(shared)])
    if len(values) < 2:
        return float("nan")
    return float(evalica.alpha(pd.DataFrame(shared), distance).alpha)


def interval(
    statistic: Callable[[NDArray[np.int64]], float],
    items: int,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Interval:
    """A statistic of items with the percentiles of a bootstrap over them, or over clusters of them; ROUNDS rounds.

    statistic: takes numbers of items, repeated ones too. Rounds in which it is nan are left out. The value is always
    within: the interval is widened to it where percentiles are not.
    """
    value = statistic(np.arange(items))
    numbers = np.arange(items) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(numbers.max()) + 1 if items else 0
    if count < 2 or np.isnan(value):
        return Interval(value, -1.0, 1.0, items)
    members = [np.flatnonzero(numbers == k) for k in range(count)] if clusters is not None else None
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(ROUNDS):
        some = random.integers(0, count, count)
        drawn.append(statistic(some if members is None else np.concatenate([members[k] for k in some])))
    known = [v for v in drawn if not np.isnan(v)]
    if not known:
        return Interval(value, -1.0, 1.0, items)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value), items)


def between(
    a: NDArray[np.int64], b: NDArray[np.int64], clusters: Sequence[Hashable] | NDArray[Any], *, seed: int = 0
) -> dict[str, Interval]:
    """Two annotators' verdicts on the same items: 0 the one side, 1 the other, 2 a tie; (n,) each.

    agree: share alike. decided: the same where neither says tie. kappa: Cohen's. weighted: the same with linear
    weights, a tie between the sides. Intervals by bootstrap over clusters, such as prompts.
    """
    a, b = np.asarray(a), np.asarray(b)
    names = list(clusters)
    order = np.array([0, 2, 1])  # a tie lies between
    x, y = order[a], order[b]

    def kappa(weights: Weights) -> Callable[[NDArray[np.int64]], float]:
        return lambda some: _kappa(_table(x[some], y[some], 3), weights)

    def agree(some: NDArray[np.int64]) -> float:
        return float((a[some] == b[some]).mean()) if len(some) else float("nan")

    both = np.flatnonzero((a < 2) & (b < 2))
    decided = interval(
        lambda some: agree(both[some]), len(both), [names[k] for k in both], seed
    ) if len(both) else Interval(float("nan"), 0.0, 1.0, 0)  # fmt: skip
    return {
        "agree": interval(agree, len(a), names, seed),
        "decided": decided,
        "kappa": interval(kappa("none"), len(a), names, seed),
        "weighted": interval(kappa("linear"), len(a), names, seed),
    }


def _kappa(table: Floats, weights: Weights) -> float:
    """Cohen's kappa of a table, for the many rounds of a bootstrap; the same number as `cohen`."""
    place = np.arange(len(table))
    away = np.abs(place[:, None] - place[None])
    cost = (away > 0) * 1.0 if weights == "none" else away * 1.0 if weights == "linear" else away**2.0
    chance = np.outer(table.sum(1), table.sum(0)) / max(table.sum(), 1)
    below = float((cost * chance).sum())
    return 1 - float((cost * table).sum()) / below if below > 0 else float("nan")
