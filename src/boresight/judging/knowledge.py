"""Explanations held against what experts know: which parts speak for which class.

Parts are detected, their scores make a vector, and a head on that vector tells the class, so that an explanation is
about parts that have names. Where attributions contradict the experts' graph, the detectors' loss is given more weight.
Source: Diaz-Rodriguez et al. 2022 (X-NeSyL: EXPLANet, SHAP-Backprop, SHAP GED), forms of weights as in its released
code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.paper import paper

Vector = NDArray[np.float64]
Head = Callable[[Vector], Vector]
"""Part scores (rows, parts) -> a figure of each class, (rows, classes), such as its probability."""
EXACT = 12


def expert_graph(known: Mapping[str, Sequence[str]], parts: Sequence[str], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each part belongs to each class, (parts, classes), from the parts of each class by name.

    Raises InputError for a class or part that is not listed, and names it.
    """
    graph = np.zeros((len(parts), len(classes)), bool)
    for name, own in known.items():
        if name not in classes:
            raise InputError(f"the graph has a class {name!r}", mend=f"known: {', '.join(classes)}")
        for part in own:
            if part not in parts:
                raise InputError(f"class {name!r} has a part {part!r}", mend=f"known: {', '.join(parts)}")
            graph[parts.index(part), classes.index(name)] = True
    return graph


def shapley(head: Head, rows: ArrayLike, background: ArrayLike, *, samples: int = 0, seed: int = 0) -> Vector:
    """Shapley values of part scores for each class, (rows, parts, classes); they add up to head(row) - mean head.

    The value of a set of parts is the head's mean with these from the row and the others from each row of `background`
    (m, parts). samples: 0 for all 2^parts sets, exact and for at most 12 parts; else so many random orders of parts,
    each taken forwards and backwards. It costs (2^parts or 2 * samples * parts) * m evaluations a row.

    Raises InputError for unusable shapes, samples < 0, or too many parts for exact values.
    Source: Lundberg and Lee 2017; orders: Strumbelj and Kononenko 2014.
    """
    x, base = np.asarray(rows, np.float64), np.asarray(background, np.float64)
    if x.ndim != 2 or base.ndim != 2 or x.shape[1] != base.shape[1] or not len(base):
        raise InputError(f"rows {x.shape}, background {base.shape}", mend="give (rows, parts), and one row or more")
    parts = x.shape[1]
    if samples < 0 or (samples == 0 and parts > EXACT):
        raise InputError(f"{parts} parts, samples {samples}", mend=f"give samples: exact is for at most {EXACT} parts")
    if samples == 0:
        taken, share = _sets(parts)
        return np.array([np.tensordot(share, _value(head, row, base, taken), 1) for row in x]).reshape(
            len(x), parts, -1
        )
    rng = np.random.default_rng(seed)
    orders = [order for _ in range(samples) for order in (lambda o: (o, o[::-1]))(rng.permutation(parts))]
    found = []
    for row in x:
        total: Vector | None = None
        for order in orders:
            taken = np.zeros((parts + 1, parts), bool)
            for step, part in enumerate(order):
                taken[step + 1 :, part] = True
            gain = np.diff(_value(head, row, base, taken), axis=0)
            each = np.empty_like(gain)
            each[order] = gain
            total = each if total is None else total + each
        assert total is not None
        found.append(total / len(orders))
    return np.array(found)


def linear_shapley(weights: ArrayLike, rows: ArrayLike, background: ArrayLike) -> Vector:
    """Shapley values of a linear head rows @ weights + bias, (rows, parts, classes): weight * (score - mean score).

    weights: (parts, classes). Exact for any number of parts. Source: Lundberg and Lee 2017, cor. 1.
    """
    w, x, base = (np.asarray(v, np.float64) for v in (weights, rows, background))
    return (x - base.mean(0))[:, :, None] * w


@paper("x-nesyl")
def misattribution(attributions: ArrayLike, graph: ArrayLike, scores: ArrayLike | None = None) -> Vector:
    """By how much each attribution contradicts the experts, (rows, parts, classes), 0 where it does not.

    attributions: (rows, parts, classes); graph: (parts, classes), whether they belong together. A part that belongs to
    a class must not speak against it, one that does not must not speak for it. scores: (rows, parts); where given, a
    part that is absent (score at most 0.5) must do the reverse. Source: as above; the released code
    goes without `scores`.
    """
    found = np.asarray(attributions, np.float64)
    sign = _signs(graph, found.shape)
    if scores is not None:
        present = np.asarray(scores, np.float64) > 0.5
        if present.shape != found.shape[:2]:
            raise InputError(f"scores of shape {present.shape}", mend=f"give {found.shape[:2]}: (rows, parts)")
        sign = sign * np.where(present, 1.0, -1.0)[:, :, None]
    return np.maximum(-found * sign, 0.0)


def loss_weights(
    wrong: ArrayLike, labels: ArrayLike, *, h: float = 1.0, form: str = "linear", level: str = "part"
) -> Vector:
    """Weights of detections' losses, (rows, parts), at least 1, from misattribution to each row's own class.

    wrong: (rows, parts, classes), of `misattribution`; labels: (rows,), the true class. form: "linear" 1 + h * wrong,
    "exponential" exp(h * wrong). level: "part", each part's own; "instance", all parts of a row as the worst of them.
    Raises InputError for another form or level, labels outside the classes, or h < 0. Source: as above, the released
    code's linear and exponential weights at the level of boxes and of instances, h = 1.
    """
    size = np.asarray(wrong, np.float64)
    own = np.asarray(labels)
    if form not in ("linear", "exponential") or level not in ("part", "instance"):
        raise InputError(f"form {form!r}, level {level!r}", mend='give "linear" or "exponential", "part" or "instance"')
    if not h >= 0:
        raise InputError(f"h is {h}", mend="give 0 or more")
    if (
        size.ndim != 3
        or own.shape != size.shape[:1]
        or (len(own) and not (own.min() >= 0 and own.max() < size.shape[2]))
    ):
        raise InputError(f"wrong {size.shape}, labels {own.shape}", mend="give (rows, parts, classes), (rows,)")
    each = size[np.arange(len(own)), :, own]
    if level == "instance":
        each = np.broadcast_to(each.max(1, keepdims=True), each.shape)
    return 1 + h * each if form == "linear" else np.exp(h * each)


def shap_graph(attributions: ArrayLike, scores: ArrayLike, *, threshold: float = 1e-3) -> NDArray[np.bool_]:
    """The graph that explanations of each row draw, (rows, parts, classes): parts that speak for a class.

    A part that is present (score above 0.5) with an attribution above `threshold`, or an absent one with one below
    -threshold: its absence speaks against the class. Source: as above, Algorithm 1.
    """
    found, present = np.asarray(attributions, np.float64), np.asarray(scores, np.float64) > 0.5
    if found.ndim != 3 or present.shape != found.shape[:2]:
        raise InputError(
            f"attributions {found.shape}, scores {present.shape}", mend="give (rows, parts, classes), (rows, parts)"
        )
    return np.where(present[:, :, None], found > threshold, found < -threshold)


@paper("x-nesyl")
def edit_distance(graphs: ArrayLike, graph: ArrayLike) -> Vector:
    """Edges to add or remove until each row's graph is the experts', (rows,). Names make nodes the same, so that no
    search is needed. graphs: (rows, parts, classes), graph: (parts, classes).
    """
    drawn, known = np.asarray(graphs, bool), np.asarray(graph, bool)
    if drawn.ndim != 3 or drawn.shape[1:] != known.shape:
        raise InputError(
            f"graphs {drawn.shape}, graph {known.shape}", mend="give (rows, parts, classes), (parts, classes)"
        )
    return (drawn ^ known).sum((1, 2)).astype(np.float64)


def _value(head: Head, row: Vector, base: Vector, taken: NDArray[np.bool_]) -> Vector:
    """The mean of the head over the background, with the parts of each set from the row, (sets, classes)."""
    mixed = np.where(taken[:, None], row, base[None]).reshape(-1, base.shape[1])
    return np.asarray(head(mixed)).reshape(len(taken), len(base), -1).mean(1)


@lru_cache(maxsize=EXACT)
def _sets(parts: int) -> tuple[NDArray[np.bool_], Vector]:
    """All sets of parts, (2^parts, parts), and what the value of each adds to each part's, (parts, 2^parts)."""
    taken = (np.arange(2**parts)[:, None] >> np.arange(parts) & 1).astype(bool)
    size = taken.sum(1)
    full = factorial(parts)
    # |S|! (n - |S| - 1)! / n! for a set without the part, joined by it.
    with_part = np.array([factorial(k - 1) * factorial(parts - k) / full if k else 0.0 for k in range(parts + 1)])
    without = np.array([factorial(k) * factorial(parts - k - 1) / full if k < parts else 0.0 for k in range(parts + 1)])
    return taken, np.where(taken.T, with_part[size], -without[size])


def _signs(graph: ArrayLike, shape: tuple[int, ...]) -> Vector:
    known = np.asarray(graph, bool)
    if len(shape) != 3 or known.shape != shape[1:]:
        raise InputError(
            f"attributions {shape}, graph {known.shape}", mend="give (rows, parts, classes), (parts, classes)"
        )
    return np.where(known, 1.0, -1.0)
