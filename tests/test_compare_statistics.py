"""Statistics of comparisons, each held against an independent computation."""

from __future__ import annotations

from math import inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sp
from sklearn.linear_model import LogisticRegression

from boresight.stats import Interval, at_equal_length, crossed_mean, holm, mean


def crossed(table: np.ndarray) -> tuple[Interval, float]:
    a, b = table.shape
    return crossed_mean(table.ravel(), np.repeat(range(a), b), [f"p{j}" for _ in range(a) for j in range(b)])


# The mean of what depends on seeds and prompts


def test_mean_over_seeds_and_prompts_is_the_sum_of_their_variances_less_that_of_the_cells():
    table = (
        np.random.default_rng(0).normal(size=(5, 40))
        + np.arange(5)[:, None]
        + np.random.default_rng(1).normal(size=(1, 40))
    )
    rows, columns = table.mean(1).var(ddof=1) / 5, table.mean(0).var(ddof=1) / 40
    variance = max(rows + columns - table.var(ddof=1) / 200, rows, columns)
    freedom = variance**2 / (rows**2 / 4 + columns**2 / 39)
    found, p = crossed(table)
    half = sp.t.ppf(0.975, freedom) * sqrt(variance)
    assert (found.value, found.low, found.high) == pytest.approx(
        (table.mean(), table.mean() - half, table.mean() + half)
    )
    assert p == pytest.approx(2 * sp.t.sf(abs(table.mean()) / sqrt(variance), freedom))


def test_with_one_seed_it_is_the_t_test_over_prompts():
    values = np.random.default_rng(2).normal(0.3, size=30)
    found, p = crossed(values[None])
    other = sp.ttest_1samp(values, 0)
    low, high = other.confidence_interval()
    assert (found.low, found.high, p) == pytest.approx((low, high, other.pvalue))


def test_with_one_prompt_it_is_over_seeds_and_pairs_of_a_prompt_count_as_one():
    values = np.repeat(np.random.default_rng(3).normal(size=12), 2)
    prompts = np.repeat(range(12), 2)
    found, p = crossed_mean(values, [0] * 24, prompts)
    assert (found.low, found.high) == pytest.approx((mean(values, prompts).low, mean(values, prompts).high))
    assert p == pytest.approx(sp.ttest_1samp(values[::2], 0).pvalue)


@pytest.mark.parametrize(("seeds", "prompts", "cells"), [(0.3, 0.5, 1.0), (0.0, 1.0, 0.5), (1.0, 0.0, 0.2), (0, 0, 1)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, prompts, cells):
    rng, rounds = np.random.default_rng(4), 400
    inside = 0
    for _ in range(rounds):
        table = seeds * rng.normal(size=(5, 1)) + prompts * rng.normal(size=(1, 60)) + cells * rng.normal(size=(5, 60))
        found, p = crossed(table)
        inside += found.low <= 0 <= found.high
        assert (p < 0.05) == found.excludes(0)
    assert 0.92 <= inside / rounds <= 0.99


def test_where_nothing_differs_nothing_is_told_and_where_all_differ_alike_it_is_sure():
    assert crossed(np.zeros((3, 4))) == (Interval(0.0, 0.0, 0.0, 12), 1.0)
    assert crossed(np.full((3, 4), 0.5)) == (Interval(0.5, 0.5, 0.5, 12), 0.0)
    assert crossed(np.array([[2.0]])) == (Interval(2.0, -inf, inf, 1), 1.0)
    found, p = crossed_mean([], [], [])
    assert (found.n, found.low, p) == (0, -inf, 1.0)


def test_shapes_and_numbers_are_checked():
    with pytest.raises(ValueError, match="2 values but 1 and 2"):
        crossed_mean([1, 2], [1], [1, 2])
    with pytest.raises(ValueError, match="not finite"):
        crossed_mean([1, np.nan], [1, 1], [1, 2])


# Holm


def rejected_step_by_step(p: list[float], alpha: float) -> list[bool]:
    """The procedure as it is defined: the smallest p against alpha / m, the next against alpha / (m - 1), ..."""
    out = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[place] > alpha / (len(p) - rank):
            break
        out[place] = True
    return out


@settings(max_examples=200)
@given(st.lists(st.integers(0, 400).map(lambda k: k / 400), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_the_procedure_rejects(p, alpha):
    adjusted = holm(p)
    for one, reject in zip(adjusted, rejected_step_by_step(p, alpha), strict=True):
        if abs(one - alpha) > 1e-9:
            assert (one <= alpha) == reject
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))


def test_holm_at_its_limits():
    assert holm([]).tolist() == []
    assert holm([0.02]).tolist() == [0.02]
    assert holm([0.5, 1.0, 0.0]).tolist() == [1.0, 1.0, 0.0]
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, 1.1])


# Accuracy at equal length


def drawn(n: int = 600, level: float = 0.3, slope: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    growth = rng.normal(10, 40, n)
    z = level + slope * np.tanh(growth / sqrt((growth**2).mean()))
    return (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float), growth


def by_sklearn(right: np.ndarray, growth: np.ndarray) -> tuple[float, float]:
    x = np.tanh(growth / sqrt((growth**2).mean()))[:, None]
    both, weight = np.r_[np.ones(len(x)), np.zeros(len(x))], np.r_[right, 1 - right]
    model = LogisticRegression(C=25.0, tol=1e-12, max_iter=10_000).fit(np.r_[x, x], both, sample_weight=weight)
    return 1 / (1 + np.exp(-model.intercept_[0])), model.coef_[0, 0]


def test_share_at_equal_length_is_that_of_a_logistic_regression_ties_as_halves():
    right, growth = drawn()
    right[::7] = 0.5
    values, slope = at_equal_length(right, growth)
    assert (values.mean(), slope) == pytest.approx(by_sklearn(right, growth), abs=1e-5)


def test_it_takes_out_what_length_alone_decides():
    rng = np.random.default_rng(5)
    growth = rng.normal(30, 40, 2000)
    by_length = (growth + rng.normal(0, 15, 2000) > 0).astype(float)
    values, slope = at_equal_length(by_length, growth)
    assert by_length.mean() > 0.75
    assert abs(values.mean() - 0.5) < 0.05
    assert slope > 3


def test_it_does_not_depend_on_the_unit_nor_on_which_side_is_called_chosen():
    right, growth = drawn(200)
    values, slope = at_equal_length(right, growth)
    assert at_equal_length(right, growth / 7)[0] == pytest.approx(values)
    mirrored, same = at_equal_length(1 - right, -growth)
    assert mirrored == pytest.approx(1 - values)
    assert same == pytest.approx(slope)


def test_without_difference_in_length_it_is_the_plain_accuracy():
    right = np.array([1, 1, 0, 1, 0.5])
    values, slope = at_equal_length(right, np.zeros(5))
    assert values == pytest.approx(right)
    assert slope == 0
    assert at_equal_length(np.ones(4), np.arange(4))[0].tolist() == [1] * 4
    assert at_equal_length([], [])[0].size == 0


def test_where_length_decides_all_it_stays_finite():
    growth = np.r_[np.full(50, -10.0), np.full(50, 10.0)]
    values, slope = at_equal_length((growth > 0).astype(float), growth)
    assert values.mean() == pytest.approx(0.5, abs=1e-6)
    assert log(10) < slope < 60


def test_the_spread_of_its_values_is_that_of_the_share_over_new_draws():
    shares, told = [], []
    for seed in range(200):
        values, _ = at_equal_length(*drawn(300, seed=seed))
        shares.append(values.mean())
        told.append(values.std(ddof=1) / sqrt(300))
    assert np.mean(told) == pytest.approx(np.std(shares), rel=0.15)


def test_it_refuses_what_is_no_judgement():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        at_equal_length([1.5], [0.0])
    with pytest.raises(ValueError, match="2 judgements but 1"):
        at_equal_length([1, 0], [0.0])
