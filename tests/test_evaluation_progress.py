"""Progress alignment: extrapolation against polynomials, votes on Examples, and the three tasks in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.data.example import Example, Pair, Response, Score
from boresight.errors import InputError
from boresight.judging.progress import (
    coevolve,
    distance,
    extrapolate,
    extrapolate_preferences,
    fit_values,
    follow,
    predict,
)


@settings(max_examples=40)
@given(st.integers(0, 3), st.integers(0, 5), st.lists(st.floats(-3, 3), min_size=1, max_size=4))
def test_polynomials_are_continued_exactly(extra: int, ahead: int, coefficients: list[float]) -> None:
    order = len(coefficients) - 1
    times = np.arange(order + 1 + extra)
    known = np.polyval(coefficients, times)
    found = extrapolate(known, order=order, ahead=ahead)
    assert float(found) == pytest.approx(np.polyval(coefficients, times[-1] + ahead), rel=1e-9, abs=1e-6)


def test_the_difference_of_order_plus_one_is_zero() -> None:
    rng = np.random.default_rng(0)
    history = rng.normal(size=(6, 3))
    for order in range(4):
        longer = [*history, *(extrapolate(history, order=order, ahead=k) for k in (1, 2))]
        assert np.abs(np.diff(longer, n=order + 1, axis=0)[-2:]).max() < 1e-10


def test_first_order_by_hand_and_short_histories() -> None:
    assert extrapolate([[1.0, 5.0], [2.0, 3.0]]).tolist() == [3.0, 1.0]
    assert extrapolate([[2.0, 3.0]], order=3).tolist() == [2.0, 3.0]
    assert extrapolate([1.0, 4.0], order=5, ahead=2) == 10.0
    assert extrapolate([1.0, 4.0], order=1, ahead=0) == 4.0
    for bad in ({"history": []}, {"history": [1.0], "order": -1}, {"history": [1.0], "ahead": -1}):
        with pytest.raises(InputError):
            extrapolate(**bad)


def asked(chosen: str, rejected: str, weight: float = 1.0, tie: bool = False, **more: object) -> Example:
    pair = Pair(0, 1, weight=weight, tie=tie)
    return Example("Which?", (Response(chosen), Response(rejected)), pairs=(pair,), **more)


def vote(example: Example, text: str) -> float:
    (pair,) = example.pairs
    if pair.tie:
        return 0.0
    return pair.weight if example.responses[pair.chosen].text == text else -pair.weight


def test_votes_are_extrapolated_whatever_the_order_of_responses() -> None:
    # votes for "a": 2 - 1 - ... in lines
    for first, second, expected in (
        (asked("a", "b", 3.0), asked("b", "a", 1.0), -5.0),
        (asked("b", "a", 0.5), asked("a", "b", 1.0), 2.5),
        (asked("a", "b", 2.0), asked("a", "b", 1.0), 0.0),
        (asked("a", "b"), asked("a", "b"), 1.0),
        (asked("b", "a"), asked("a", "b"), 3.0),
        (asked("a", "b", tie=True), asked("a", "b"), 2.0),
        (asked("b", "a", 9.0), asked("a", "b"), 5.0),
    ):
        (found,) = extrapolate_preferences([[first], [second]])
        assert vote(found, "a") == pytest.approx(expected), "at most 5"
    (further,) = extrapolate_preferences([[asked("b", "a", 1.0)], [asked("a", "b", 1.0)]], ahead=2, most=99)
    assert vote(further, "a") == 5.0
    (latest,) = extrapolate_preferences([[asked("b", "a", 7.0)], [asked("a", "b", 2.0)]], order=0)
    assert vote(latest, "a") == 2.0


def test_a_gap_shortens_the_history() -> None:
    one, two = asked("a", "b", 4.0), asked("a", "b", 1.0)
    (found,) = extrapolate_preferences([[one], [], [two]])
    assert vote(found, "a") == 1.0
    assert extrapolate_preferences([[one], []]) == []
    (three,) = extrapolate_preferences([[], [one], [two]], order=2)
    assert vote(three, "b") == 2.0


def test_several_pairs_of_an_example_and_other_feedback() -> None:
    responses = (Response("a"), Response("b"), Response("a"))
    before = Example("Q", responses, pairs=(Pair(0, 1), Pair(1, 2)))
    after = Example("Q", responses, pairs=(Pair(1, 0), Pair(1, 0), Pair(1, 2)), scores=(Score(0, 1.0),), id="x")
    bare = Example("R", responses, scores=(Score(0, 1.0),))
    found, none = extrapolate_preferences([[before], [after, bare]])
    assert found.pairs == (Pair(1, 0, weight=5.0), Pair(1, 2, weight=1.0)), "the same text twice is two responses"
    assert (found.scores, found.id) == ((), "x")
    assert (none.pairs, none.scores) == ((), ())


def test_unusable_data_is_refused() -> None:
    with pytest.raises(InputError, match="no epoch"):
        extrapolate_preferences([])
    with pytest.raises(InputError, match="most"):
        extrapolate_preferences([[asked("a", "b")]], most=0)


def circle(epochs: int, step: float) -> np.ndarray:
    angle = step * np.arange(epochs)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_tasks_in_closed_form() -> None:
    """Values turn by a fixed angle; who repeats the latest is behind by it."""
    values = circle(5, 0.3)

    def latest(said: np.ndarray) -> np.ndarray:
        return said[-1]

    assert follow(values, values, latest) == pytest.approx(np.zeros(5), abs=1e-12)
    assert predict(values, values, latest) == pytest.approx(np.full(4, 1 - math.cos(0.3)))
    assert predict(values, values, latest, ahead=3) == pytest.approx(np.full(2, 1 - math.cos(0.9)))
    lines = np.arange(5.0)[:, None] * [1.0, 0.5] + [0.0, 1.0]
    ahead = predict(lines, lines, lambda said: extrapolate(said))
    assert ahead[0] > 0.01
    assert ahead[1:] == pytest.approx(np.zeros(3), abs=1e-12)
    for bad in (0, 5):
        with pytest.raises(InputError, match="ahead"):
            predict(values, values, latest, ahead=bad)
    with pytest.raises(InputError, match="one of each"):
        follow(values[:3], values, latest)


def test_people_drawn_to_the_model() -> None:
    drift = np.array([[0.0, 1.0], [1.0, 0.0]])
    start = np.array([2.0, 0.0])

    def stubborn(said: np.ndarray) -> np.ndarray:
        return np.array([0.0, 5.0])

    free, apart = coevolve(start, drift, lambda v, t: v, stubborn, influence=0.0)
    assert free.tolist() == [[2.0, 0.0], [2.0, 1.0], [3.0, 1.0]]
    assert apart == pytest.approx([1.0, 1 - 1 / math.sqrt(5), 1 - 1 / math.sqrt(10)])
    drawn, _ = coevolve(start, drift, lambda v, t: v, stubborn, influence=0.5)
    assert drawn[1].tolist() == [1.0, 2.0], "half of (2, 0), half of (0, 2), and the drift"
    with pytest.raises(InputError, match="influence"):
        coevolve(start, drift, lambda v, t: v, stubborn, influence=1.5)


def test_values_fitted_to_votes_are_where_the_slope_is_zero() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(60, 3))
    votes = rng.normal(size=60)
    found = fit_values(differences, votes, l2=0.1)
    slope = -0.1 * found
    for d, v in zip(differences, votes, strict=True):
        sign = math.copysign(1.0, v)
        slope += abs(v) * sign * d / (1 + math.exp(sign * float(d @ found))) / 60
    assert np.abs(slope).max() < 1e-9


def test_a_single_direction_in_closed_form() -> None:
    """Share p of votes for: without penalty the logit of p."""
    found = fit_values(np.ones((2, 1)), [0.8, -0.2], l2=1e-9)
    assert found[0] == pytest.approx(math.log(4), rel=1e-6)
    assert fit_values(np.ones((1, 2)), [0.0]).tolist() == [0.0, 0.0]
    for bad in ((np.ones((2, 1)), [1.0], 0.1), (np.ones((1, 1)), [1.0], 0.0), (np.ones((0, 1)), [], 0.1)):
        with pytest.raises(InputError):
            fit_values(bad[0], bad[1], l2=bad[2])


def test_distances() -> None:
    assert distance([1, 0], [5, 0]) == 0.0
    assert distance([1, 0], [-2, 0]) == 2.0
    assert distance([1, 0], [0, 3]) == 1.0
    assert distance([0, 0], [1, 1]) == 1.0
