"""Factors as players, factor scores, dissection and discretion: independent rewrites, closed forms, limits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import kendalltau

from boresight.errors import InputError
from boresight.judging.discretion import arbitrariness, discrepancy, priorities, situations, supremacy
from boresight.judging.dissect import dissect, pick, similarity, spread
from boresight.judging.factors import agreement, decipherpref, generated, profile, profile_interval, strengths


def tagged(n: int, worth: list[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tags of winners and losers, where a response wins by the sum of the worth of its factors."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(size=(2, n, len(worth))) < 0.5
    margin = (a.astype(float) - b) @ np.array(worth)
    first = rng.uniform(size=n) < 1 / (1 + np.exp(-margin))
    return np.where(first[:, None], a, b), np.where(first[:, None], b, a)


def by_mm(wins: np.ndarray, steps: int = 20_000) -> np.ndarray:
    """Hunter's MM updates for Bradley-Terry, plain loops; logits of mean 0."""
    k = len(wins)
    p = np.ones(k)
    for _ in range(steps):
        q = np.array(
            [
                wins[i].sum() / sum((wins[i, j] + wins[j, i]) / (p[i] + p[j]) for j in range(k) if j != i)
                for i in range(k)
            ]
        )
        q /= q.sum()
        if np.abs(q - p).max() < 1e-14:
            break
        p = q
    value = np.log(p)
    return value - value.mean()


def test_strengths_are_those_of_mm_updates_as_the_prior_goes():
    won, lost = tagged(120, [1.0, 0.0, -0.5, 0.3], 0)
    found = decipherpref(won, lost, penalty=1e-8)
    wins = np.zeros((4, 4))
    for w, lose in zip(won, lost, strict=True):
        for i, j in product(range(4), repeat=2):
            wins[i, j] += w[i] and not lose[i] and lose[j] and not w[j]
    np.testing.assert_array_equal(found.wins, wins)
    np.testing.assert_allclose(found.value, by_mm(wins), atol=1e-5)
    assert found.beats(0, 2) == pytest.approx(1 - found.beats(2, 0))


def test_two_factors_have_the_logit_of_their_share():
    won = np.array([[1, 0]] * 6 + [[0, 1]] * 2)
    found = decipherpref(won, 1 - won, penalty=1e-9)
    assert found.value[0] - found.value[1] == pytest.approx(np.log(3), rel=1e-6)
    # as a proportion: var(logit) = 1 / (n p (1 - p)), half of it for either player of a sum of 0
    assert found.se[0] == pytest.approx(np.sqrt(1 / (8 * 0.75 * 0.25)) / 2, rel=1e-6)


def test_a_factor_that_both_have_takes_no_part():
    won, lost = np.array([[1, 1, 0]]), np.array([[0, 1, 1]])
    found = decipherpref(won, lost)
    np.testing.assert_array_equal(found.wins, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert found.value[1] == pytest.approx(0)
    np.testing.assert_array_equal(found.part, [0, -1, 0])
    np.testing.assert_array_equal(found.unbeaten, [1, 0, -1])
    assert np.isfinite(found.value).all()


def test_players_that_never_met_are_in_other_parts():
    winners, losers = np.array([[1, 0, 0, 0], [0, 0, 1, 0]]), np.array([[0, 1, 0, 0], [0, 0, 0, 1]])
    part = strengths(winners, losers).part
    assert part[0] == part[1] != part[2] == part[3]


def test_planted_strengths_are_covered():
    """Players alone, so that the model is true: the standard error is that of the truth."""
    truth, rng, inside = np.array([1.0, 0.0, -1.0]), np.random.default_rng(0), 0
    for _ in range(100):
        i, j = np.array([(a, b) for a, b in rng.integers(3, size=(400, 2)) if a != b]).T
        first = rng.uniform(size=len(i)) < 1 / (1 + np.exp(truth[j] - truth[i]))
        eye = np.eye(3, dtype=int)
        found = strengths(eye[np.where(first, i, j)], eye[np.where(first, j, i)], penalty=1e-6)
        inside += (np.abs(found.value - truth) <= 1.96 * found.se).sum()
    assert 275 <= inside <= 297  # 285 of 300 expected; 4 standard deviations, were they independent


def test_no_comparison_at_all():
    found = decipherpref(np.zeros((0, 2)), np.zeros((0, 2)))
    np.testing.assert_array_equal(found.value, [0, 0])
    np.testing.assert_array_equal(found.part, [-1, -1])
    with pytest.raises(InputError):
        decipherpref(np.zeros((2, 2)), np.zeros((2, 3)))


@pytest.mark.parametrize("seed", range(4))
def test_factor_scores_by_counting(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-1, 2, size=(40, 3)), rng.choice([0.0, 0.5, 1.0], 40)
    for k in range(3):
        c = d = f = p = 0
        for i in range(40):
            sign = int(y[i] > 0.5) - int(y[i] < 0.5)
            c += x[i, k] * sign == 1
            d += x[i, k] * sign == -1
            f += x[i, k] == 0 and sign != 0
            p += x[i, k] != 0 and sign == 0
        assert profile(x, y, ties="a")[k] == pytest.approx((c - d) / 40)
        assert profile(x, y, ties="b")[k] == pytest.approx((c - d) / np.sqrt((c + d + f) * (c + d + p)))
        assert profile(x, y, ties="gamma")[k] == pytest.approx((c - d) / (c + d))
        assert profile_interval(x, y)[k].value == pytest.approx((c - d) / 40)


def test_scores_of_generated_outputs_are_kendalls_tau():
    rng = np.random.default_rng(0)
    factors, worth = rng.integers(0, 3, size=(12, 2)).astype(float), rng.integers(0, 4, 12).astype(float)
    found = profile(*generated(factors, worth), ties="b")
    np.testing.assert_allclose(found, [kendalltau(factors[:, k], worth).statistic for k in range(2)])
    prompts = np.repeat([0, 1], 6)
    assert len(generated(factors, worth, prompts)[1]) == 2 * 15


def test_scores_of_which_nothing_is_known():
    assert np.isnan(profile(np.zeros((3, 1)), ties="b")[0])
    assert np.isnan(profile(np.ones((3, 1)), np.full(3, 0.5), ties="gamma")[0])
    assert profile(np.ones((3, 1)), np.full(3, 0.5), ties="a")[0] == 0
    assert np.isnan(profile(np.zeros((0, 1)))[0])
    assert np.isnan(agreement([1.0, np.nan], [1.0, 2.0]))
    assert np.isnan(agreement([1.0, 1.0], [1.0, 2.0]))
    assert agreement([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert agreement([1.0, 2.0, np.nan, 4.0], [1.0, 2.0, 3.0, 9.0], by="spearman") == pytest.approx(1)
    with pytest.raises(InputError):
        profile(np.ones((3, 1)), ties="c")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        profile(np.ones((3, 1)), np.ones(2))


def test_dissection_is_the_posterior_mode():
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, size=(80, 3)).astype(float)
    y = (rng.uniform(size=80) < 1 / (1 + np.exp(-x @ [0.5, -0.3, 0.0]))).astype(float)

    def negative(w):
        m = x @ w
        return (np.log1p(np.exp(-m)) * y + np.log1p(np.exp(m)) * (1 - y)).sum() + (w**2).sum() / (2 * 0.3**2 * 2)

    best = minimize(negative, np.zeros(3), tol=1e-12)
    found = dissect(x, y, scale=0.3)
    np.testing.assert_allclose(found.w, best.x, atol=1e-5)
    curve = np.array(
        [
            [
                sum(x[i, a] * x[i, b] * (p := 1 / (1 + np.exp(-x[i] @ found.w))) * (1 - p) for i in range(80))
                for b in range(3)
            ]
            for a in range(3)
        ]
    ) + np.eye(3) / (2 * 0.3**2)
    np.testing.assert_allclose(found.sd, np.sqrt(np.diag(np.linalg.inv(curve))), rtol=1e-8)
    np.testing.assert_allclose(found.share, 1 / (1 + np.exp(-found.w)))


def test_the_laplace_posterior_is_that_of_a_fine_grid():
    rng = np.random.default_rng(1)
    x = rng.integers(-1, 2, size=(60, 2)).astype(float)
    y = (rng.uniform(size=60) < 1 / (1 + np.exp(-x @ [0.9, 0.0]))).astype(float)
    axis = np.linspace(-2, 2, 401)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    m = a[..., None] * x[:, 0] + b[..., None] * x[:, 1]
    log_density = -(np.abs(a) + np.abs(b)) / 0.1 - (np.logaddexp(0, -m) * y + np.logaddexp(0, m) * (1 - y)).sum(-1)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    truth = np.array([(density * a).sum(), (density * b).sum()])
    sd = np.sqrt([(density * (a - truth[0]) ** 2).sum(), (density * (b - truth[1]) ** 2).sum()])
    found = dissect(x, y, prior="laplace", draws=1000)
    np.testing.assert_allclose(found.w, truth, atol=0.02)
    np.testing.assert_allclose(found.sd, sd, rtol=0.1)
    assert found.rhat is not None
    assert (found.rhat < 1.02).all()


def test_without_data_the_posterior_is_the_prior():
    nothing = dissect(np.zeros((0, 2)))
    np.testing.assert_array_equal(nothing.w, [0, 0])
    np.testing.assert_allclose(nothing.sd, spread(0.1))
    drawn = dissect(np.zeros((5, 1)), prior="laplace", draws=1500)
    assert drawn.w[0] == pytest.approx(0, abs=0.01)
    assert drawn.sd[0] == pytest.approx(spread(0.1), rel=0.1)
    # perfectly separable, by far more than the prior allows for
    assert np.isfinite(dissect(np.ones((1000, 1)), scale=10).w).all()
    for bad in ({"scale": 0.0}, {"prior": "flat"}):
        with pytest.raises(InputError):
            dissect(np.ones((2, 1)), **bad)  # type: ignore[arg-type]


def test_judges_are_alike_as_their_weights_correlate():
    x = np.random.default_rng(0).normal(size=(50, 4))
    judge = {"a": dissect(x, scale=1.0), "b": dissect(-x, scale=1.0)}
    assert similarity(judge, judge) == pytest.approx(1)
    turned = {"a": judge["b"], "c": judge["a"]}
    assert similarity(judge, turned) == pytest.approx(-1)
    assert np.isnan(similarity({}, judge))
    assert pick(np.array([[0.0, 0, 0, 0], list(judge["a"].w)]), judge["a"]) == 1
    assert pick(np.zeros((3, 4)), judge["a"]) == 0


def test_situations_and_arbitrariness_by_hand():
    verdicts = np.array([[1, 0], [1, 1], [1, -1], [0, 0], [0, -1]])
    found = situations(verdicts)
    np.testing.assert_array_equal(found.consensus, [True, True, False, False, True])
    np.testing.assert_array_equal(found.conflict, [False, False, True, False, False])
    np.testing.assert_array_equal(found.indifference, [False, False, False, True, False])
    assert found.shares()["consensus"].value == pytest.approx(0.6)
    assert arbitrariness(verdicts, [1, -1, 1, 1, -1]).value == pytest.approx(1 / 3)
    # what the annotator left undecided does not count
    assert arbitrariness(verdicts, [0, -1, 1, 1, -1]).value == pytest.approx(1 / 2)
    clustered = arbitrariness(verdicts, [1, -1, 1, 1, -1], prompts=[0, 0, 1, 2, 3])
    assert clustered.value == pytest.approx(1 / 3)
    nobody = arbitrariness(np.zeros((2, 2), int), [1, 1])
    assert np.isnan(nobody.value)
    assert (nobody.low, nobody.high) == (0, 1)


def test_supremacy_and_priorities_by_hand():
    verdicts = np.array([[1, -1, 0]] * 4 + [[-1, 1, 1]])
    choices = np.array([1, 1, 1, -1, 1])
    share, games = supremacy(verdicts, choices)
    assert games[0, 1] == 5
    assert share[0, 1] == pytest.approx(3 / 5)
    assert share[1, 0] == pytest.approx(2 / 5)
    assert games[0, 2] == 1
    assert share[2, 0] == 1
    assert np.isnan(share[1, 2])
    alone = priorities(verdicts[:4, :2], choices[:4], penalty=1e-9)
    assert alone.value[0] - alone.value[1] == pytest.approx(np.log(3), rel=1e-6)
    # a principle that wins all its conflicts comes first, and stays finite
    always = priorities(verdicts, choices)
    assert always.order[0] == 2
    assert always.unbeaten[2] == 1
    assert np.isfinite(always.value).all()


def test_discrepancy_is_the_share_of_exchanged_couples():
    assert discrepancy([3.0, 2.0, 1.0], [9.0, 1.0, 0.0]) == pytest.approx(0)
    assert discrepancy([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(1)
    assert discrepancy([3.0, 2.0, 1.0], [2.0, 3.0, 1.0]) == pytest.approx(1 / 3)
    assert np.isnan(discrepancy([1.0, 1.0], [1.0, 2.0]))
    for a, b in (([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(InputError):
            discrepancy(a, b)
    with pytest.raises(InputError):
        situations(np.array([[2]]))
    with pytest.raises(InputError):
        arbitrariness(np.array([[1]]), [1, 1])
