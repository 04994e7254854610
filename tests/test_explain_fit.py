"""The regression: closed forms, an independent optimiser, coverage of its intervals, and what data cannot decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom, t

from boresight.errors import InputError
from boresight.judging.explain_fit import bootstrap, fitted, folds, logistic, losses, rights, separable


def drawn(n: int, w: list[float], seed: int, ties: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(w)))
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-x @ np.array(w)))).astype(float)
    y[rng.uniform(size=n) < ties] = 0.5
    return x, y


def test_one_binary_feature_is_the_logit_of_the_share():
    x = np.ones((10, 1))
    y = np.array([1.0] * 7 + [0.0] * 3)
    assert logistic(x, y, penalty=1e-12)[0] == pytest.approx(np.log(7 / 3), rel=1e-9)
    # in either orientation, and with two ties of which each counts half for either side
    turned = logistic(-x, 1 - y, penalty=1e-12)[0]
    assert turned == pytest.approx(np.log(7 / 3), rel=1e-9)
    more = logistic(np.ones((12, 1)), np.append(y, [0.5, 0.5]), penalty=1e-12)[0]
    assert more == pytest.approx(np.log(8 / 4), rel=1e-9)


def test_the_minimum_is_that_of_an_independent_optimiser():
    x, y = drawn(60, [1.0, -2.0, 0.0, 0.5], 0, ties=0.2)
    weight = np.random.default_rng(1).uniform(0.2, 3, 60)
    ridge = np.array([0.5, 1.0, 2.0, 0.1])

    def loss(w):
        total = 0.0
        for i in range(60):
            m = float(sum(x[i, k] * w[k] for k in range(4)))
            total += weight[i] * (y[i] * np.log(1 + np.exp(-m)) + (1 - y[i]) * np.log(1 + np.exp(m)))
        return total + sum(ridge[k] * w[k] ** 2 / 2 for k in range(4))

    found = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000})
    np.testing.assert_allclose(logistic(x, y, weight, penalty=ridge), found.x, atol=2e-6)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.booleans(), min_size=12, max_size=12))
def test_turning_pairs_over_changes_nothing(seed, turned):
    x, y = drawn(12, [1.0, -1.0], seed, ties=0.2)
    sign = np.where(turned, -1.0, 1.0)
    other = np.where(turned, 1 - y, y)
    np.testing.assert_allclose(logistic(x, y), logistic(x * sign[:, None], other), atol=1e-8)
    a, b = fitted(x, y), fitted(x * sign[:, None], other)
    np.testing.assert_allclose(a.se, b.se, rtol=1e-6)


def test_clustered_errors_by_hand():
    x, y = drawn(90, [1.0, -0.5], 3)
    prompts = np.repeat(np.arange(45), 2)
    found = fitted(x, y, prompts=prompts, penalty=1.0)
    scale = np.sqrt((x**2).mean(0))
    z, w = x / scale, found.w
    curve, meat = np.eye(2), np.zeros((2, 2))
    for g in range(45):
        score = np.zeros(2)
        for i in np.flatnonzero(prompts == g):
            p = 1 / (1 + np.exp(-(z[i] @ w)))
            score += z[i] * (p - y[i])
            curve += np.outer(z[i], z[i]) * p * (1 - p)
        meat += np.outer(score, score)
    covariance = np.linalg.inv(curve) @ meat @ np.linalg.inv(curve) * 45 / 44
    least = np.sqrt(np.maximum(np.diag(covariance), np.diag(np.linalg.inv(curve))))
    np.testing.assert_allclose(found.se, least, rtol=1e-9)
    np.testing.assert_allclose(found.high - w, t.ppf(0.975, 44) * found.se, rtol=1e-9)
    assert found.kind == "clustered"
    np.testing.assert_allclose(found.p, 2 * t.sf(np.abs(w) / found.se, 44), rtol=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth, inside, rounds = np.array([0.8, 0.0, -0.4]), np.zeros(3), 200
    for seed in range(rounds):
        x, y = drawn(200, list(truth), seed)
        found = fitted(x, y, penalty=1e-6)
        inside += (found.low <= truth * found.scale) & (truth * found.scale <= found.high)
    low, high = binom.ppf([0.0005, 0.9995], rounds, 0.95)
    assert ((inside >= low - 2) & (inside <= high)).all(), inside  # two of 200 for a finite sample


def test_clustering_widens_where_pairs_repeat():
    x, y = drawn(60, [1.0, 0.0], 5)
    four = np.tile(x, (4, 1)), np.tile(y, 4)
    prompts = np.tile(np.arange(60), 4)
    alone = fitted(x, y, penalty=1e-9)
    repeated = fitted(*four, prompts=prompts, penalty=1e-9)
    # as sure as each pair once, but for the bound that the posterior of 60 pairs sets and that of 240 does not
    assert (repeated.se <= alone.se * (1 + 1e-9)).all()
    assert (repeated.se > 0.8 * alone.se).all()
    assert (fitted(*four, penalty=1e-9).se < 0.65 * repeated.se).all()


def test_the_bootstrap_agrees_with_the_formula():
    x, y = drawn(1200, [0.7, 0.0], 7)
    prompts = np.repeat(np.arange(600), 2)
    found = fitted(x, y, prompts=prompts)
    low, high = bootstrap(x, y, prompts=prompts, rounds=300, seed=0)
    np.testing.assert_allclose((high - low) / (found.high - found.low), 1.0, atol=0.2)
    again = bootstrap(x, y, prompts=prompts, rounds=300, seed=0)
    np.testing.assert_array_equal(low, again[0])


def test_perfectly_separable_data_is_told_and_stays_finite():
    x = np.array([[1.0, 0.3], [2.0, -0.3], [0.5, 0.1]])
    found = fitted(x)
    assert found.separable
    assert np.isfinite(found.w).all()
    assert np.isfinite(found.se).all()
    assert found.kind == "posterior"
    assert not fitted(np.array([[1.0], [1.0], [-1.0]])).separable
    # a pair that does not differ at all is decided by nothing
    assert not separable(np.array([[1.0], [0.0]]))
    assert separable(np.array([[1.0], [0.0]]), np.array([1.0, 0.5]))
    assert separable(np.array([[1.0], [-1.0]]), np.array([1.0, 0.0]))
    # large data, of which some is looked at first
    many = np.random.default_rng(0).uniform(0.5, 1, size=(6000, 2))
    assert separable(many)
    many[-1] = -many[-1]
    assert not separable(many)


def test_a_feature_that_never_differs_stays_at_nothing():
    x, y = drawn(80, [1.0], 0)
    found = fitted(np.column_stack([x, np.zeros(80)]), y)
    assert found.w[1] == 0
    assert found.scale[1] == 0
    assert found.p[1] == 1
    assert np.isinf([found.low[1], found.high[1]]).all()
    np.testing.assert_allclose(found.w[0], fitted(x, y).w[0], rtol=1e-9)


def test_all_ties_prefer_nothing():
    x, _ = drawn(50, [1.0, 2.0], 0)
    found = fitted(x, np.full(50, 0.5))
    np.testing.assert_allclose(found.w, 0, atol=1e-12)
    assert not found.separable
    assert (found.p > 0.9).all()


def test_one_pair_and_none():
    found = fitted(np.array([[2.0, 0.0]]))
    assert np.isfinite(found.w).all()
    assert found.separable
    low, high = bootstrap(np.array([[2.0, 0.0]]))
    assert np.isinf(low).all()
    assert np.isinf(high).all()
    nothing = fitted(np.zeros((0, 3)))
    assert (nothing.w == 0).all()
    assert (nothing.p == 1).all()


def test_what_cannot_be_fitted_is_refused():
    for x, more in (
        (np.zeros(3), {}),
        (np.array([[np.nan]]), {}),
        (np.ones((2, 1)), {"y": np.array([0.0, 2.0])}),
        (np.ones((2, 1)), {"y": np.ones(3)}),
        (np.ones((2, 1)), {"penalty": 0.0}),
    ):
        with pytest.raises(InputError):
            logistic(x, **more)


def test_losses_and_rights_by_hand():
    np.testing.assert_allclose(losses([0.0, 1.0, -800.0], [1.0, 0.5, 1.0]), [np.log(2), 0.8132616875, 800.0])
    np.testing.assert_array_equal(rights([0.0, 1.0, -1.0, 2.0], [1.0, 1.0, 1.0, 0.5]), [0.5, 1.0, 0.0, 0.5])


def test_folds_keep_prompts_together():
    prompts = np.repeat(np.arange(23), 3)
    fold = folds(prompts, 5, seed=1)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[prompts == g])) == 1 for g in range(23))
    assert np.bincount(fold).min() >= 12
    assert set(folds([7, 7, 9], 5)) == {0, 1}
    assert set(folds([7, 7], 5)) == {0}


def test_a_feature_of_a_single_pair_is_not_certain():
    """The clustered formula alone would have it that a pair which the fit follows leaves nothing open."""
    x, y = drawn(400, [0.5], 0)
    rare = np.zeros(400)
    rare[0] = 1.0 if y[0] == 1 else -1.0
    found = fitted(np.column_stack([x, rare]), y)
    assert found.kind == "clustered"
    assert found.low[1] < 0 < found.high[1]
    assert found.p[1] > 0.3
