"""Shared and specific coefficients against independent solvers; what a judge is asked; words and turned pairs."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from boresight.errors import InputError, RunError
from boresight.judging.concepts import chosen, hierarchical
from boresight.judging.concepts_ask import Concept, ask, read_concepts
from boresight.judging.explain_alone import flipped, share


def drawn(seed: int, each: int = 40, domains: int = 3, concepts: int = 4):
    rng = np.random.default_rng(seed)
    d = np.repeat(np.arange(domains), each)
    x = rng.integers(-1, 2, size=(len(d), concepts)).astype(float)
    truth = np.array([1.0, -0.8, 0.0, 0.4]) + (d == 0)[:, None] * np.array([0.0, 0.0, 1.5, 0.0])
    y = (rng.uniform(size=len(d)) < 1 / (1 + np.exp(-(x * truth).sum(1)))).astype(float)
    return x, d, y


def objective(b, s, x, d, y, alpha, shared, specific):
    """The paper's objective (1) in plain loops."""
    total = shared * np.abs(b).sum() + specific * np.abs(s).sum()
    for i in range(len(x)):
        sign = 1 if y[i] == 1 else -1
        total += np.log1p(np.exp(-sign * ((b + s[d[i]]) @ x[i]))) + alpha * np.log1p(np.exp(-sign * (b @ x[i])))
    return total


@pytest.mark.parametrize(("alpha", "shared", "specific"), [(0.0, 2.0, 3.0), (1.0, 2.0, 3.0), (0.5, 0.3, 6.0)])
def test_the_minimum_is_that_of_a_bounded_quasi_newton(alpha, shared, specific):
    x, d, y = drawn(0)
    found = hierarchical(x, d, y, alpha=alpha, shared=shared, specific=specific, tolerance=1e-8)
    assert found.converged

    def split(v):  # positive and negative parts, so that the penalty is smooth
        up, down = v.reshape(2, 4, 4)
        w = up - down
        value = objective(w[0], w[1:], x, d, y, alpha, 0.0, 0.0)
        return value + shared * (up + down)[0].sum() + specific * (up + down)[1:].sum()

    best = minimize(split, np.full(32, 0.1), bounds=[(0, None)] * 32, options={"maxiter": 400, "maxfun": 50_000})
    own = objective(found.shared, found.specific, x, d, y, alpha, shared, specific)
    assert own <= best.fun + 1e-5
    assert own == pytest.approx(best.fun, abs=2e-3)


def test_without_the_shared_loss_it_is_an_l1_regression_on_doubled_columns():
    """Jalali et al.'s dirty model: columns of each domain beside the shared ones, scaled by their penalties."""
    x, d, y = drawn(1)
    shared, specific = 2.0, 4.0
    found = hierarchical(x, d, y, alpha=0.0, shared=shared, specific=specific, tolerance=1e-8)
    wide = np.hstack([x / shared, *(np.where((d == k)[:, None], x, 0.0) / specific for k in range(3))])
    model = LogisticRegression(penalty="l1", C=1.0, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=10_000)
    w = model.fit(wide, y).coef_[0]
    np.testing.assert_allclose(found.shared, w[:4] / shared, atol=1e-4)
    np.testing.assert_allclose(found.specific.ravel(), w[4:] / specific, atol=1e-4)


def test_infinite_penalties_make_one_for_all_and_one_for_each():
    x, d, y = drawn(2)
    pooled = hierarchical(x, d, y, alpha=0.0, shared=0.5, specific=inf, tolerance=1e-8)
    assert (pooled.specific == 0).all()
    model = LogisticRegression(penalty="l1", C=2.0, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=10_000)
    np.testing.assert_allclose(pooled.shared, model.fit(x, y).coef_[0], atol=1e-4)
    each = hierarchical(x, d, y, alpha=0.0, shared=inf, specific=0.5, tolerance=1e-8)
    assert (each.shared == 0).all()
    np.testing.assert_allclose(each.specific[1], model.fit(x[d == 1], y[d == 1]).coef_[0], atol=1e-4)


def test_local_explanations_add_up_and_unseen_domains_have_the_shared_part():
    x, d, y = drawn(3)
    fit = hierarchical(x, d, y, shared=1.0, specific=1.0)
    for i, k in product(range(5), (-1, 2)):
        margin = fit.margins(x[i : i + 1], [k])[0]
        assert margin == pytest.approx(x[i] @ fit.coefficients(None if k == -1 else k))
        assert fit.contributions(x[i : i + 1], [k])[0].sum() == pytest.approx(margin)
    np.testing.assert_allclose(fit.lift(0), 50 * fit.coefficients(0))


def test_turning_pairs_over_changes_nothing():
    x, d, y = drawn(4)
    turned = np.random.default_rng(0).choice([-1.0, 1.0], len(x))
    a = hierarchical(x, d, y, tolerance=1e-8)
    b = hierarchical(x * turned[:, None], d, np.where(turned > 0, y, 1 - y), tolerance=1e-8)
    np.testing.assert_allclose(a.specific, b.specific, atol=1e-6)


def test_cross_validation_takes_the_least_loss():
    x, d, y = drawn(5)
    found = chosen(x, d, y, shared=(0.01, 0.5), specific=(0.03, 0.9), count=3)
    least = min(found.tried, key=lambda one: one[2])
    assert (found.shared, found.specific) == least[:2]
    assert len(found.tried) == 4
    strict = chosen(x, d, y, shared=(1.5,), specific=(1.5,), count=3)
    assert (strict.fit.shared == 0).all()
    assert strict.tried[0][2] == pytest.approx(np.log(2))


def test_data_that_says_nothing():
    nothing = hierarchical(np.zeros((4, 2)), np.zeros(4, int))
    assert (nothing.shared == 0).all()
    none = hierarchical(np.zeros((0, 2)), np.zeros(0, int), domains=2)
    assert none.specific.shape == (2, 2)
    # one pair, perfectly separable: finite by the penalties
    one = hierarchical(np.array([[5.0]]), np.array([0]), shared=0.1, specific=0.1)
    assert np.isfinite(one.coefficients(0)).all()
    assert one.coefficients(0)[0] > 0
    for bad in ({"alpha": -1.0}, {"shared": -1.0}, {"domains": 0}):
        with pytest.raises(InputError):
            hierarchical(np.ones((2, 1)), np.zeros(2, int), **bad)
    with pytest.raises(InputError):
        hierarchical(np.ones((2, 1)), np.zeros(3, int))


LONGER = Concept("long", "Which is longer?")


def by_length(question: str, prompt: str, first: str, second: str) -> int:
    return (len(first) > len(second)) - (len(first) < len(second))


def test_a_judge_is_asked_in_both_orders():
    pairs = [("p", "aaa", "b"), ("p", "a", "b"), ("p", "a", "bbb")]
    found = ask(pairs, [LONGER], by_length)
    np.testing.assert_array_equal(found.values[:, 0], [1, 0, -1])
    assert found.turned[0] == 0
    # one that always takes the first contradicts itself, and its verdicts cancel out
    always = ask(pairs, [LONGER], lambda *_: 1)
    np.testing.assert_array_equal(always.values, 0)
    assert always.turned[0] == 1
    # half sure: in one order only
    half = ask(pairs[:1], [LONGER], lambda q, p, a, b: int(a == "aaa"))
    assert half.values[0, 0] == 0.5
    # weighed by its probabilities: 0.6 for "aaa" in one order, 0.2 in the other
    weighed = ask(pairs[:1], [LONGER], lambda q, p, a, b: 0.6 if a == "aaa" else -0.2)
    assert weighed.values[0, 0] == pytest.approx(0.4)
    assert weighed.turned[0] == 0
    unknown = ask(pairs, [LONGER], lambda *_: None)
    assert unknown.unknown[0] == 3
    assert np.isnan(unknown.turned[0])


def test_a_judge_that_fails_is_told():
    with pytest.raises(RunError, match="'long' of pair 1: ZeroDivisionError"):
        ask([("p", "a", "b")], [LONGER], lambda *_: 1 // 0)
    with pytest.raises(RunError, match="said 'yes'"):
        ask([("p", "a", "b")], [LONGER], lambda *_: "yes")  # type: ignore[arg-type, return-value]
    for said in (2, float("nan")):
        with pytest.raises(RunError, match="said"):
            ask([("p", "a", "b")], [LONGER], lambda *_, said=said: said)


def test_concepts_are_read(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("# comment\n\nclear: Which is easier to follow: A or B?\nkind : Which is kinder?\n")
    first, second = read_concepts(path)
    assert first == Concept("clear", "Which is easier to follow: A or B?")
    assert second.name == "kind"
    for text in ("no colon\n", "a: b\na: c\n", "# nothing\n", ": b\n"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_concepts(path)
    with pytest.raises(InputError):
        read_concepts(tmp_path / "none.txt")


def test_shares_are_exact_or_clustered():
    sign = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 5)
    found, p = share(sign, np.arange(15))
    assert (found.value, found.n) == (0.8, 10)
    assert p == pytest.approx(binomtest(8, 10).pvalue)
    # 40 prompts with two votes alike: as sure as 40 votes, not 80
    single = np.array([1.0] * 28 + [-1.0] * 12)
    twice, p_twice = share(np.repeat(single, 2), np.repeat(np.arange(40), 2))
    once, _ = share(single, np.arange(40))
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.1)
    assert p_twice == pytest.approx(binomtest(28, 40).pvalue, abs=0.01)
    nothing, p_nothing = share(np.zeros(3), np.arange(3))
    assert np.isnan(nothing.value)
    assert p_nothing == 1


def test_one_column_of_turned_pairs_is_the_exact_test():
    """9 of 10: all 2^10 turns counted, against the drawn ones."""
    signs = np.array([1.0] * 9 + [-1.0])
    exact = np.mean([abs(np.dot(turn, signs)) >= 8 for turn in product((-1, 1), repeat=10)])
    found = flipped(signs[:, None], np.arange(10), rounds=20_000)[0]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_turned_pairs_hold_their_level_over_all_columns():
    """200 data sets in which nothing is preferred: some column is called sure in about 5% of them."""
    rng, called = np.random.default_rng(0), 0
    for seed in range(200):
        signs = rng.choice([-1.0, 0.0, 1.0], size=(30, 12))
        called += flipped(signs, np.arange(30), rounds=199, seed=seed).min() <= 0.05
    assert 1 <= called <= 22  # binomial(200, .05): 10 +- 4 standard deviations
    # a column beside its copy costs nothing
    one = flipped(signs[:, :1], np.arange(30), rounds=999)
    np.testing.assert_allclose(flipped(np.repeat(signs[:, :1], 5, 1), np.arange(30), rounds=999), one[0])
    assert flipped(np.zeros((0, 2)), np.zeros(0, int)).tolist() == [1.0, 1.0]
