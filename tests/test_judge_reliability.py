"""Reliability of judges, against plain rewrites, closed forms and judges whose faults are known."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.judging.reliability import (
    MEASURES,
    corrected_rate,
    denoise,
    denoise_both,
    flip_rate,
    reliability,
    share,
)
from boresight.stats import Interval, proportion


def test_a_rate_with_flips_is_taken_back():
    for true in (0.0, 0.3, 1.0):
        for q in (0.0, 0.1, 0.49):
            assert denoise(true * (1 - q) + (1 - true) * q, q) == pytest.approx(true, abs=1e-9)
    for q in (0.5, -0.1, 0.7, nan):
        with pytest.raises(ValueError, match="q must be"):
            denoise(0.5, q)
        with pytest.raises(ValueError, match="q must be"):
            denoise_both(0.2, 0.5, 0.5, 0.1, q)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.floats(0, 0.45), st.floats(0, 0.45))
@settings(max_examples=60)
def test_both_right_is_taken_back_through_all_four_cases(weights, q, r):
    true = np.array(weights).reshape(2, 2) / sum(weights)  # [first right, second right]
    flip = [np.array([[1 - p, p], [p, 1 - p]]) for p in (q, r)]
    seen = flip[0] @ true @ flip[1].T
    found = denoise_both(seen[1, 1], seen[1].sum(), seen[:, 1].sum(), q, r)
    assert found == pytest.approx(true[1, 1], abs=1e-9)


def plain_apart(rows):
    unlike = pairs = 0
    for row in rows:
        known = [v for v in row if not isnan(v)]
        for i in range(len(known)):
            for j in range(i):
                pairs += 1
                unlike += known[i] != known[j]
    return unlike / pairs if pairs else nan


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, nan]), min_size=4, max_size=4), min_size=1, max_size=8))
@settings(max_examples=100)
def test_flip_rates_against_counting_one_by_one(rows):
    apart = plain_apart(rows)
    released, pairs = flip_rate(rows, "released"), flip_rate(rows)
    if isnan(apart):
        assert isnan(released)
        assert isnan(pairs)
        assert isnan(flip_rate(rows, "majority"))
        return
    assert released == pytest.approx(apart)
    if apart < 0.5:
        assert 2 * pairs * (1 - pairs) == pytest.approx(apart)
    else:
        assert pairs == 0.5
    repeated = [[v for v in row if not isnan(v)] for row in rows]
    repeated = [row for row in repeated if len(row) > 1]
    most = sum(max(row.count(v) for v in row) for row in repeated)
    assert flip_rate(rows, "majority") == pytest.approx(1 - most / sum(map(len, repeated)))


def test_the_flip_rate_of_a_simulated_judge_is_found_and_that_of_the_released_form_is_not_q():
    rng, q = np.random.default_rng(0), 0.2
    truth = rng.random((200_000, 1)) < 0.7
    said = truth ^ (rng.random((200_000, 5)) < q)
    assert flip_rate(said) == pytest.approx(q, abs=0.003)
    assert flip_rate(said, "released") == pytest.approx(2 * q * (1 - q), abs=0.003)
    assert flip_rate(said, "majority") < q - 0.005
    with pytest.raises(ValueError, match="shape"):
        flip_rate([1, 0])
    with pytest.raises(ValueError, match="released"):
        flip_rate(said, "other")


def test_a_judge_that_always_says_first_has_position_bias_1_and_is_right_half_the_time():
    found = reliability(np.ones((6, 3)), np.zeros((6, 3)), [True, False] * 3)
    for kind in (found.raw, found.denoised):
        values = {name: interval.value for name, interval in kind.items()}
        assert values == {
            "accuracy, better first": 1, "accuracy, better second": 0, "accuracy, mean": 0.5, "accuracy, both": 0,
            "position bias": 1, "length bias": 0, "length bias, both": 0,
        }  # fmt: skip
    assert found.flips == (0, 0)


def test_a_judge_that_goes_by_length():
    longer = np.array([True] * 5 + [False] * 5)
    right = longer[:, None].astype(float)
    found = reliability(right, right, longer)
    assert found.raw["length bias"].value == found.raw["length bias, both"].value == 1
    assert found.raw["position bias"].value == 0


def test_missing_verdicts_and_nothing_at_all():
    first, second = [[1, nan], [nan, nan], [0, 1], [1, 1]], [[1, 0], [1, 1], [nan, 0], [nan, nan]]
    found = reliability(first, second)
    assert found.items == 2, "the pairs with a verdict in both orders"
    assert found.raw["accuracy, better first"].value == (1 + 0.5) / 2
    assert found.raw["accuracy, better second"].value == (0.5 + 0) / 2
    assert found.raw["accuracy, both"].value == (1 * 0.5 + 0.5 * 0) / 2
    assert isnan(found.raw["length bias"].value)
    nothing = reliability(np.empty((0, 2)), np.empty((0, 2)))
    assert nothing.items == 0
    assert all(isnan(v.value) for v in nothing.raw.values())
    assert set(nothing.raw) == set(MEASURES)


def test_without_repeats_there_is_no_flip_rate_but_one_may_be_given():
    first, second = np.array([[1.0], [1.0], [0.0], [1.0]]), np.array([[1.0], [0.0], [0.0], [1.0]])
    alone = reliability(first, second)
    assert all(isnan(q) for q in alone.flips)
    assert isnan(alone.denoised["accuracy, mean"].value)
    given_ = reliability(first, second, flips=(0.1, 0.2))
    assert given_.denoised["accuracy, better first"].value == pytest.approx(denoise(0.75, 0.1))
    assert given_.denoised["accuracy, better second"].value == pytest.approx(denoise(0.5, 0.2))
    assert given_.denoised["accuracy, both"].value == pytest.approx(denoise_both(0.5, 0.75, 0.5, 0.1, 0.2))


def test_what_cannot_be_a_verdict_is_refused():
    with pytest.raises(ValueError, match="right"):
        reliability([[0.5]], [[1.0]])
    with pytest.raises(ValueError, match="pairs, repeats"):
        reliability([[1.0]], [[1.0], [0.0]])
    with pytest.raises(ValueError, match="pairs, repeats"):
        reliability([1.0], [1.0])


def simulated(seed, n=300, repeats=4, flips=(0.15, 0.3)):
    rng = np.random.default_rng(seed)
    longer = rng.random(n) < 0.5
    chance = np.stack([0.75 + 0.1 * longer, 0.5 + 0.1 * longer])
    truth = rng.random((2, n)) < chance
    said = [truth[k][:, None] ^ (rng.random((n, repeats)) < flips[k]) for k in range(2)]
    return truth, [s.astype(float) for s in said], longer


def test_intervals_of_a_noisy_judge_hold_the_truth_as_often_as_they_say():
    """The truth is that of all pairs: chances .80 and .55, .675 on average."""
    population = {
        "accuracy, better first": 0.8, "accuracy, better second": 0.55, "accuracy, mean": 0.675,
        "accuracy, both": (0.85 * 0.6 + 0.75 * 0.5) / 2, "position bias": 0.25, "length bias": 0.1,
        "length bias, both": 0.85 * 0.6 - 0.75 * 0.5,
    }  # fmt: skip
    inside = dict.fromkeys(MEASURES, 0)
    for seed in range(100):
        _, (first, second), longer = simulated(seed)
        found = reliability(first, second, longer, rounds=200, seed=seed)
        for name, interval in found.denoised.items():
            inside[name] += not interval.excludes(population[name])
    assert all(count >= 87 for count in inside.values()), inside  # 95 expected, standard deviation 2.2
    assert {n: c for n, c in inside.items() if c == 100} != inside


def test_where_nothing_varies_intervals_are_as_wide_as_so_few_pairs_allow():
    found = reliability(np.ones((20, 2)), np.zeros((20, 2)), [True] * 12 + [False] * 8)
    for kind in (found.raw, found.denoised):
        assert kind["accuracy, better first"] == proportion(20, 20)
        assert kind["accuracy, better second"] == proportion(0, 20)
        bias = kind["position bias"]  # Newcombe: both Wilson intervals miss by .1611
        assert (bias.value, bias.high) == (1, 1)
        assert bias.low == pytest.approx(1 - np.sqrt(2) * proportion(0, 20).high)
        length = kind["length bias"]
        assert length.value == 0
        assert -0.6 < length.low < -0.2
        assert 0.2 < length.high < 0.6
    one_pair = reliability([[1.0]], [[1.0]])
    assert one_pair.raw["accuracy, both"].low == -np.inf


def test_shares_stay_within_0_and_1():
    assert share([1.0, 1, 1, 1], [0, 0, 1, 1]) == Interval(1, proportion(2, 2).low, 1, 4)
    found = share([1.0] * 19 + [0.0], range(20))
    assert found.value == 0.95
    assert 0.8 < found.low < 0.95 < found.high == 1
    assert isnan(share([], []).value)


def test_the_same_seed_gives_the_same_intervals():
    _, (first, second), longer = simulated(1)
    one, two = (reliability(first, second, longer, rounds=50, seed=3) for _ in range(2))
    assert one == two
    assert one.to_dict()["denoised"]["position bias"] == two.denoised["position bias"].to_dict()


# Rates behind an erring judge


def test_a_perfect_judge_changes_nothing_and_a_useless_one_says_nothing():
    found = corrected_rate(30, 100, (50, 50), (50, 50))
    assert found.value == pytest.approx(0.3)
    assert found.low < 0.3 < found.high
    for useless in (corrected_rate(30, 100, (25, 50), (25, 50)), corrected_rate(30, 100, (0, 0), (5, 5))):
        assert isnan(useless.value)
        assert (useless.low, useless.high) == (0, 1)
    assert isnan(corrected_rate(0, 0, (9, 10), (9, 10)).value)
    with pytest.raises(ValueError, match="sensitivity"):
        corrected_rate(1, 2, (3, 2), (1, 1))


def test_the_rate_is_taken_back_and_clipped():
    said = 0.4 * 0.9 + 0.6 * 0.2
    assert corrected_rate(1000 * said, 1000, (90, 100), (80, 100)).value == pytest.approx(0.4)
    assert corrected_rate(10, 1000, (90, 100), (80, 100)).value == 0
    assert corrected_rate(990, 1000, (90, 100), (80, 100)).value == 1


@pytest.mark.parametrize(
    ("true", "se", "sp", "m"), [(0.3, 0.85, 0.75, 60), (0.55, 0.7, 0.9, 100), (0.05, 0.9, 0.9, 40)]
)
def test_its_interval_holds_the_truth_about_as_often_as_it_says(true, se, sp, m):
    rng, inside = np.random.default_rng(5), 0
    for _ in range(600):
        wins = rng.binomial(1, true, 200)
        said = np.where(wins == 1, rng.random(200) < se, rng.random(200) > sp).sum()
        found = corrected_rate(int(said), 200, (rng.binomial(m, se), m), (rng.binomial(m, sp), m))
        inside += not found.excludes(true)
    assert 0.93 <= inside / 600 <= 0.995


def test_more_labels_narrow_the_interval():
    few, many = corrected_rate(90, 200, (16, 20), (16, 20)), corrected_rate(90, 200, (1600, 2000), (1600, 2000))
    assert many.high - many.low < 0.6 * (few.high - few.low)
