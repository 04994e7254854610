"""Progress alignment: values that change over epochs, followed, predicted, and moved by the model itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.data.example import Example, Pair
from boresight.errors import InputError
from boresight.paper import paper

Vector = NDArray[np.float64]
Aligner = Callable[[Vector], Vector]
"""Preferences of each epoch so far, (epochs, ...) -> the values of a model aligned to them."""


def extrapolate(history: ArrayLike, *, order: int = 1, ahead: int = 1) -> Vector:
    """What comes `ahead` epochs after the last of `history`, (epochs, ...), if differences of order + 1 stay 0.

    order 0 repeats the last epoch (lifelong alignment), 1 goes on in a line (2 v_t - v_(t-1)), 2 in a parabola. With
    fewer than order + 1 epochs the order is what there are, less one. Noise grows: of independent errors in each epoch
    a step of order 1 has 5 times the variance, of order 2 19 times.

    Raises InputError if there is no epoch, order < 0 or ahead < 0. Source: Qiu et al. 2024 (ProgressGym); its released
    code counts the order as here, which is one less than that of the difference which is 0.
    """
    known = np.asarray(history, np.float64)
    if known.ndim < 1 or len(known) == 0:
        raise InputError("there is no epoch to extrapolate from", mend="give preferences of one epoch or more")
    if order < 0 or ahead < 0:
        raise InputError(f"order is {order}, ahead is {ahead}", mend="give 0 or more of both")
    order = min(order, len(known) - 1)
    recent = [known[i] for i in range(len(known) - order - 1, len(known))]
    coefficients = [comb(order + 1, i) * (-1) ** (order - i) for i in range(order + 1)]
    for _ in range(ahead):
        step = sum(c * v for c, v in zip(coefficients, recent, strict=True))
        recent = [*recent[1:], np.asarray(step)]
    return np.array(recent[-1])


@paper("progressgym")
def extrapolate_preferences(
    epochs: Sequence[Sequence[Example]], *, order: int = 1, ahead: int = 1, most: float = 5.0
) -> list[Example]:
    """The last epoch's examples with the preferences that votes extrapolated over epochs give.

    epochs: the same questions asked in each epoch, oldest first. Examples belong together by prompt and texts of
    responses, in any order. The vote on two responses is the weight of pairs for the one less that for the other;
    ties count nothing, but the epoch has asked. What comes out is one pair with the vote's size as its weight, at most
    `most`, and a tie where votes cancel. Of a pair that recent epochs lack, only those since the last gap are used.
    Other feedback, which is of no epoch to come, is left out; an example without pairs is returned without feedback.

    Raises InputError as `extrapolate` does, or if most <= 0. Source: Qiu et al. 2024 (ProgressGym), extrapolative
    alignment; its released code repeats a pair up to 5 times instead of weighing it, and takes a missing vote for 0.
    """
    if not most > 0:
        raise InputError(f"most is {most}", mend="give the largest weight that a pair may have, above 0")
    if not epochs:
        raise InputError("there is no epoch to extrapolate from", mend="give preferences of one epoch or more")
    votes = [_votes(examples) for examples in epochs]
    found = []
    for example in epochs[-1]:
        pairs = []
        for couple in dict.fromkeys(tuple(sorted((p.chosen, p.rejected))) for p in example.pairs):
            key = _key(example, *couple)
            since = [v[key] for v in _unbroken(votes, key)]
            vote = float(extrapolate(since, order=order, ahead=ahead))
            # Votes are of the first response of the key, whose texts are sorted.
            vote = vote if key[1][0] == _text(example, couple[0]) else -vote
            winner, loser = couple if vote >= 0 else couple[::-1]
            tie = abs(vote) < 1e-12
            pairs.append(Pair(winner, loser, weight=1.0 if tie else min(abs(vote), most), tie=tie))
        found.append(replace(example, pairs=tuple(pairs), scores=(), labels=(), ranks=(), steps=()))
    return found


def follow(preferences: ArrayLike, values: ArrayLike, aligner: Aligner) -> Vector:
    """How far a model aligned to preferences up to epoch t is from the values of epoch t, (epochs,).

    preferences: (epochs, ...), what annotators of each epoch said; values: (epochs, width), what they value. Distance
    is 1 - cosine. Source of the three tasks: Qiu et al. 2024 (ProgressGym), Follow, Predict, Coevolve.
    """
    said, valued = _both(preferences, values)
    return np.array([distance(aligner(said[: t + 1]), valued[t]) for t in range(len(said))])


def predict(preferences: ArrayLike, values: ArrayLike, aligner: Aligner, *, ahead: int = 1) -> Vector:
    """As `follow`, against the values of epoch t + ahead, which no one has voted on; (epochs - ahead,)."""
    said, valued = _both(preferences, values)
    if not 1 <= ahead < len(said):
        raise InputError(f"ahead is {ahead}", mend=f"give 1 to {len(said) - 1}, fewer than there are epochs")
    return np.array([distance(aligner(said[: t + 1]), valued[t + ahead]) for t in range(len(said) - ahead)])


def coevolve(
    start: ArrayLike,
    drift: ArrayLike,
    ask: Callable[[Vector, int], Vector],
    aligner: Aligner,
    *,
    influence: float = 0.1,
) -> tuple[Vector, Vector]:
    """People's values drift, and are drawn to those of the model that is aligned to them.

    start: (width,), values at the first epoch. drift: (epochs - 1, width), what is added in each. ask(values, epoch):
    preferences that people of those values state. After each epoch values become (1 - influence) * values + influence *
    the model's, the model's brought to their length, plus the drift.

    Returns the values of people (epochs, width) and the distance of the model to them in each epoch, (epochs,).
    Raises InputError if influence is outside [0, 1].
    """
    if not 0 <= influence <= 1:
        raise InputError(f"influence is {influence}", mend="give a share between 0 and 1")
    here, moves = np.asarray(start, np.float64), np.asarray(drift, np.float64)
    said: list[Vector] = []
    path, apart = [], []
    for epoch in range(len(moves) + 1):
        said.append(np.asarray(ask(here, epoch), np.float64))
        model = np.asarray(aligner(np.array(said)), np.float64)
        path.append(here)
        apart.append(distance(model, here))
        if epoch < len(moves):
            size = float(np.linalg.norm(model))
            own = model * (np.linalg.norm(here) / size) if size else here
            here = (1 - influence) * here + influence * own + moves[epoch]
    return np.array(path), np.array(apart)


def fit_values(differences: ArrayLike, votes: ArrayLike, *, l2: float = 1e-2) -> Vector:
    """Linear values from votes: Bradley-Terry on differences of what two responses offer, (width,).

    differences: (pairs, width), features of the first less those of the second. votes: (pairs,), of any size: sign says
    which was preferred, size is the weight.

    Maximises sum |vote| log sigmoid(sign(vote) * d.v) / pairs - l2 / 2 |v|^2 by Newton's method. Raises InputError if
    shapes disagree or l2 <= 0.
    """
    d, v = np.asarray(differences, np.float64), np.asarray(votes, np.float64)
    if d.ndim != 2 or v.shape != d.shape[:1] or len(d) == 0 or not l2 > 0:
        raise InputError(
            f"differences {d.shape}, votes {v.shape}, l2 {l2}", mend="give (pairs, width), (pairs,), l2 > 0"
        )
    x, weight = d * np.sign(v)[:, None], np.abs(v) / len(v)
    at = np.zeros(d.shape[1])

    def gain(w: Vector) -> float:
        return float(-weight @ np.logaddexp(0, -x @ w) - 0.5 * l2 * w @ w)

    for _ in range(200):
        miss = 0.5 * (1 - np.tanh(0.5 * (x @ at)))
        slope = x.T @ (weight * miss) - l2 * at
        curve = x.T @ (x * (weight * miss * (1 - miss))[:, None]) + l2 * np.eye(len(at))
        step = np.linalg.solve(curve, slope)
        while gain(at + step) < gain(at) and np.abs(step).max() > 1e-12:
            step = step / 2
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    return at


def distance(one: ArrayLike, other: ArrayLike) -> float:
    """1 - cosine of two values, in [0, 2]; 1 where one of them is 0."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1 - float(a @ b) / size if size else 1.0


Key = tuple[str, tuple[str, str]]


def _votes(examples: Sequence[Example]) -> dict[Key, float]:
    found: dict[Key, float] = defaultdict(float)
    for example in examples:
        for pair in example.pairs:
            key = _key(example, pair.chosen, pair.rejected)
            sign = 1.0 if key[1][0] == _text(example, pair.chosen) else -1.0
            found[key] += 0.0 if pair.tie else sign * pair.weight
    return dict(found)


def _unbroken(votes: Sequence[dict[Key, float]], key: Key) -> Sequence[dict[Key, float]]:
    """The epochs since the last that lacks the pair."""
    gaps = [i for i, epoch in enumerate(votes) if key not in epoch]
    return votes[gaps[-1] + 1 if gaps else 0 :]


def _key(example: Example, first: int, second: int) -> Key:
    one, two = sorted((_text(example, first), _text(example, second)))
    return repr(example.prompt), (one, two)


def _text(example: Example, place: int) -> str:
    # With its place among equal texts, so that two responses alike are two.
    content = repr(example.responses[place].content)
    same = sum(repr(r.content) == content for r in example.responses[:place])
    return f"{content}#{same}"


def _both(preferences: ArrayLike, values: ArrayLike) -> tuple[Vector, Vector]:
    said, valued = np.asarray(preferences, np.float64), np.asarray(values, np.float64)
    if valued.ndim != 2 or len(said) != len(valued) or len(said) == 0:
        raise InputError(
            f"preferences of {len(said)} epochs and values of shape {valued.shape}",
            mend="give one of each for every epoch: (epochs, ...) and (epochs, width)",
        )
    return said, valued
