"""A classifier whose reasons are parts with names, trained so that its reasons agree with experts (X-NeSyL)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.judging.knowledge import loss_weights, misattribution, shapley
from boresight.paper import paper

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class PartClassifier:
    """Linear detectors of parts with a linear softmax head on their scores (EXPLANet with the smallest of networks).

    detectors: (width + 1, parts); head: (parts + 1, classes); the last row is the bias.
    """

    detectors: Vector
    head: Vector

    def parts(self, x: ArrayLike) -> Vector:
        """The score of each part in [0, 1], (rows, parts); x: (rows, width)."""
        return _sigmoid(_one(np.asarray(x, np.float64)) @ self.detectors)

    def classes(self, scores: ArrayLike) -> Vector:
        """The probability of each class from part scores, (rows, classes)."""
        return _softmax(_one(np.asarray(scores, np.float64)) @ self.head)

    def __call__(self, x: ArrayLike) -> Vector:
        """The probability of each class, (rows, classes)."""
        return self.classes(self.parts(x))


@paper("x-nesyl")
def fit_parts(
    x: ArrayLike,
    parts: ArrayLike,
    labels: ArrayLike,
    graph: ArrayLike,
    *,
    h: float = 0.0,
    rounds: int = 5,
    form: str = "linear",
    level: str = "part",
    absent: bool = False,
    background: int = 20,
    l2: float = 1e-3,
    seed: int = 0,
) -> PartClassifier:
    """Train detectors and head in turn; from the second round on the detectors' losses are weighed by misattribution.

    x: (rows, width), features; parts: (rows, parts), 1 where annotators marked the part; labels: (rows,), classes from
    0; graph: (parts, classes). Attributions are Shapley values of the head's probabilities on the detectors' scores
    against `background` rows, exact for up to 12 parts. h: as in `loss_weights`, 0 for plain training. absent: whether
    misattribution minds absence. Both fits are of penalised logistic regressions to their optimum, so that rounds
    differ by their weights alone.

    Raises InputError for shapes that disagree or rounds < 1.
    """
    data, marked, y, known = (np.asarray(v) for v in (x, parts, labels, graph))
    if not (
        data.ndim == 2
        and marked.shape == (len(data), known.shape[0])
        and y.shape == (len(data),)
        and len(data)
        and 0 <= y.min() <= y.max() < known.shape[1]
    ):
        raise InputError(
            f"x {data.shape}, parts {marked.shape}, labels {y.shape}, graph {known.shape}",
            mend="give (rows, width), (rows, parts), (rows,), (parts, classes), labels from 0",
        )
    if rounds < 1:
        raise InputError(f"rounds is {rounds}", mend="give 1 or more")
    rows = np.random.default_rng(seed).choice(len(data), min(background, len(data)), replace=False)
    weights = np.ones(marked.shape)
    for step in range(rounds):
        detectors = np.stack([_logistic(data, m, w, 2, l2)[:, 1] for m, w in zip(marked.T, weights.T, strict=True)], 1)
        scores = _sigmoid(_one(data) @ detectors)
        model = PartClassifier(detectors, _logistic(scores, y, np.ones(len(y)), known.shape[1], l2))
        if h == 0 or step == rounds - 1:
            break
        wrong = misattribution(shapley(model.classes, scores, scores[rows]), known, scores if absent else None)
        weights = loss_weights(wrong, y, h=h, form=form, level=level)
    return model


def _logistic(x: Vector, y: NDArray[np.int64], weight: Vector, classes: int, l2: float) -> Vector:
    """Weights and bias of a logistic regression, (width + 1, classes): the logits less those of class 0 where two."""
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((x.shape[1] + 1, classes))
    seen = np.unique(y)
    if len(seen) == 1:
        # As sure as one row of each class more would leave it.
        found[-1] = np.where(np.arange(classes) == seen[0], np.log(len(y) + 1.0), 0.0)
        return found - found[:, :1]
    fitted = LogisticRegression(C=1 / (l2 * len(y)), max_iter=2000, tol=1e-6).fit(x, y, sample_weight=weight)
    told = np.column_stack([fitted.coef_, fitted.intercept_]).T
    if len(seen) == 2:
        found[:, seen[1]] = told[:, 0]
    else:
        found[:, seen] = told
    # A class that no row has gets no more than one row would give it.
    unseen = np.setdiff1d(np.arange(classes), seen)
    found[-1, unseen] = found[-1, seen].min() - np.log(len(y) + 1.0)
    return found


def _one(x: Vector) -> Vector:
    return np.column_stack([x, np.ones(len(x))])


def _sigmoid(z: Vector) -> Vector:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _softmax(z: Vector) -> Vector:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))
