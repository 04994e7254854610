"""Bradley-Terry: closed forms, another way of computing it, coverage of intervals, what leaves it without a bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arenas import centre, drawn, newton, table, votes
from boresight.errors import InputError
from boresight.judging.ranking import METHODS, matrices, rank_intervals, ranking, scores, shape
from boresight.judging.ranking_fit import cluster_weights, fit, refit
from boresight.judging.ranking_power import apart
from boresight.judging.votes import collect

ABC = [("a", "b", 1)] * 7 + [("a", "b", 0)] * 3 + [("b", "c", 1)] * 6 + [("c", "b", 1)] * 4 + [("a", "c", 0.5)] * 5


def columns(found):
    return found.first, found.second, found.outcome, len(found.systems)


def test_two_systems_differ_by_the_logit_of_the_share():
    for won, tied, lost in ((3, 0, 1), (5, 2, 4), (1, 7, 1), (0, 3, 1)):
        found = fit(*columns(votes([("a", "b", 1)] * won + [("a", "b", 0.5)] * tied + [("b", "a", 1)] * lost)))
        share = (won + tied / 2) / (won + tied + lost)
        assert found.difference(0, 1)[0] == pytest.approx(np.log(share / (1 - share)), abs=1e-9)
        # The sandwich of two systems: the variance of the share by the delta method.
        outcomes = np.array([1] * won + [0.5] * tied + [0] * lost)
        n = len(outcomes)
        error = np.sqrt(((outcomes - share) ** 2).sum() / (n - 1) / n) / (share * (1 - share))
        assert found.difference(0, 1)[1] == pytest.approx(error, rel=1e-6)


def test_equal_records_give_equal_strengths_and_doubling_votes_changes_none():
    ring = [("a", "b", 1), ("b", "c", 1), ("c", "a", 1)] * 4
    assert fit(*columns(votes(ring))).strength == pytest.approx(np.zeros(3), abs=1e-12)
    once, twice = (fit(*columns(votes(ABC * k))) for k in (1, 2))
    assert once.strength == pytest.approx(twice.strength, abs=1e-9)
    weighted = fit(*columns(votes(ABC)), weight=np.full(len(ABC), 2.0))
    assert weighted.strength == pytest.approx(once.strength, abs=1e-9)
    assert weighted.covariance == pytest.approx(once.covariance, abs=1e-9)


def test_each_vote_told_from_the_other_side_is_the_same_vote():
    turned = [(b, a, 1 - y) for a, b, y in ABC]
    one, other = ranking(votes(ABC), rounds=0), ranking(votes(turned), rounds=0)
    by_name = dict(zip(other.votes.systems, other.fit.strength, strict=True))
    for name, value in zip(one.votes.systems, one.fit.strength, strict=True):
        assert by_name[name] == pytest.approx(value, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(30, 200))
def test_another_newton_and_the_library_find_the_same(seed, size, n):
    random = np.random.default_rng(seed)
    found = collect(drawn(random.normal(0, 1, size), n, seed, ties=0.2))
    wins, ties = matrices(found)
    prior = 0.0 if shape(wins, ties).bounded else 1.0
    own = fit(*columns(found), prior=prior)
    other, _ = newton(*columns(found), prior=prior, level=0.0 if prior else 1.0)
    assert own.strength == pytest.approx(other, abs=1e-6)
    if not prior:
        assert scores(found, "bradley-terry") == pytest.approx(own.strength, abs=1e-6)


def test_covariates_and_weights_as_by_another_newton():
    random = np.random.default_rng(3)
    found = collect(drawn([1, 0, -1, 0.5], 400, 3, place=0.5, ties=0.1))
    extra = np.column_stack([np.ones(len(found)), random.normal(0, 1, len(found))])
    weight = random.uniform(0.5, 2, len(found))
    own = fit(*columns(found), covariates=extra, weight=weight, clusters=found.prompt)
    strength, slope = newton(*columns(found), extra, weight=weight)
    assert own.strength == pytest.approx(strength, abs=1e-7)
    assert own.slope == pytest.approx(slope, abs=1e-7)


def test_the_sandwich_is_that_of_a_plain_computation_in_other_coordinates():
    found = collect(drawn([1, 0, -1], 300, 1, prompts=20, spread=0.5))
    own = fit(*columns(found), clusters=found.prompt)
    # Strengths against that of system 0, a plain logistic regression.
    x = np.zeros((len(found), 3))
    x[np.arange(len(found)), found.first] += 1
    x[np.arange(len(found)), found.second] -= 1
    x = x[:, 1:]
    p = 1 / (1 + np.exp(-x @ (own.strength[1:] - own.strength[0])))
    h = np.linalg.inv(x.T @ (x * (p * (1 - p))[:, None]))
    sums = np.stack([(x * (found.outcome - p)[:, None])[found.prompt == g].sum(0) for g in np.unique(found.prompt)])
    v = h @ sums.T @ sums @ h * 20 / 19
    assert own.clusters == 20
    for a in (1, 2):
        assert own.difference(a, 0)[1] == pytest.approx(np.sqrt(v[a - 1, a - 1]), rel=1e-6)
    assert own.difference(1, 2)[1] == pytest.approx(np.sqrt(v[0, 0] + v[1, 1] - 2 * v[0, 1]), rel=1e-6)


def test_refits_are_fits_of_the_weighted_votes():
    found = collect(drawn([1, 0, -1, 0.3], 200, 5, prompts=12, ties=0.2))
    weights = cluster_weights(12, 5, 0)
    start = fit(*columns(found)).strength
    own = refit(*columns(found), found.prompt, weights, start)
    for row, weight in zip(own, weights, strict=True):
        assert row == pytest.approx(fit(*columns(found), weight=weight[found.prompt]).strength, abs=1e-6)
    again = refit(*columns(found), found.prompt, np.ones((1, 12)), np.zeros(4))
    assert again[0] == pytest.approx(start, abs=1e-8)


def test_weights_of_the_bootstrap_give_a_mean_its_unbiased_variance():
    values = np.random.default_rng(0).normal(0, 1, 9)
    weights = cluster_weights(9, 200_000, 0)
    means = (weights @ values) / weights.sum(1)
    assert means.var() == pytest.approx(values.var(ddof=1) / 9, rel=0.02)
    assert (weights > 0).all()
    with pytest.raises(ValueError, match="needs 3"):
        cluster_weights(2, 10, 0)


@pytest.mark.parametrize(("prompts", "n", "least"), [(40, 1600, 0.91), (9, 360, 0.88)])
def test_intervals_cover_planted_strengths(prompts, n, least):
    truth = np.array([0.8, 0.3, 0.0, -0.4, -0.7])
    # Prompts move strengths: votes on one prompt go together, and intervals that ignore it are too narrow.
    real = centre(truth, 0.7)
    drawn_, plain, ranks, naive = [], [], [], []
    for seed in range(60):
        found = ranking(table(truth, n, seed, prompts=prompts, spread=0.7), rounds=200, seed=seed)
        drawn_.append((found.low <= real) & (real <= found.high))
        plain.append(np.abs(found.fit.strength - real) <= found.fit.half() * found.fit.error)
        ranks.append((found.rank_low <= np.arange(1, 6)) & (np.arange(1, 6) <= found.rank_high))
        single = fit(*columns(found.votes))
        naive.append(np.abs(single.strength - real) <= single.half() * single.error)
    assert least <= np.mean(drawn_) <= 0.99
    assert least <= np.mean(plain) <= 0.99
    assert np.mean(ranks) >= 0.93
    assert np.mean(naive) < np.mean(plain) - 0.03


def test_rank_intervals_by_hand():
    random = np.random.default_rng(0)
    strength = np.array([3.0, 0.05, 0.0])
    drawn_ = strength + random.normal(0, 0.1, (2000, 3))
    low, high = rank_intervals(strength, drawn_)
    assert low.tolist() == [1, 2, 2]
    assert high.tolist() == [1, 3, 3]
    assert rank_intervals(strength, drawn_[:0])[1].tolist() == [3, 3, 3]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_order_of_many_votes(method):
    found = collect(drawn([1.5, 0.75, 0, -0.75, -1.5], 8000, 2, ties=0.1))
    values = scores(found, method)
    assert [found.systems[k] for k in np.argsort(-values)] == ["s0", "s1", "s2", "s3", "s4"]
    with pytest.raises(InputError, match="did you mean"):
        scores(found, method[:-1])


def test_newman_without_ties_is_bradley_terry():
    found = collect(drawn([1, 0, -1], 500, 2))
    assert scores(found, "newman") == pytest.approx(scores(found, "bradley-terry"), abs=1e-6)


def test_a_system_that_never_loses_is_told_and_held_finite():
    found = ranking(votes([("a", "b", 1)] * 5 + [("b", "c", 1), ("c", "b", 1)] * 5))
    assert [found.votes.systems[k] for k in found.shape.never_lost] == ["a"]
    assert found.prior == 1
    assert np.isfinite(found.fit.strength).all()
    assert found.high[0] == np.inf
    assert np.isfinite(found.low[0])
    assert not found.shape.bounded


def test_groups_that_always_beat_the_rest_are_levels():
    top, bottom = [("a", "b", 1), ("b", "a", 1)] * 3, [("c", "d", 1), ("d", "c", 1)] * 3
    found = ranking(votes([*top, *bottom, ("a", "c", 1), ("b", "d", 1)]))
    levels = dict(zip(found.votes.systems, found.shape.levels.tolist(), strict=True))
    assert levels == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert found.prior == 1
    assert not len(found.shape.never_lost)
    # A tie with the upper group is enough to bound it.
    assert ranking(votes([*top, *bottom, ("a", "c", 1), ("b", "d", 0.5)])).prior == 0


def test_systems_that_votes_do_not_connect_are_parts():
    found = ranking(votes([("a", "b", 1), ("b", "a", 1)] * 4 + [("c", "d", 1), ("d", "c", 1)] * 3))
    assert found.shape.parts.tolist() == [0, 0, 1, 1]
    assert not apart(found, 0, 2).comparable
    assert apart(found, 0, 2).direct == np.inf
    assert apart(found, 0, 1).comparable


def test_nothing_but_ties_makes_all_equal():
    found = ranking(votes([("a", "b", 0.5), ("b", "c", 0.5), ("c", "a", 0.5)] * 5))
    assert found.fit.strength == pytest.approx(np.zeros(3), abs=1e-12)
    assert found.fit.error == pytest.approx(np.zeros(3), abs=1e-9)
    assert found.prior == 0


def test_too_little_to_rank():
    with pytest.raises(InputError, match="nothing to rank"):
        ranking(collect([]))
    assert not len(votes([("a", "a", 1)]))
    with pytest.raises(InputError, match="clustered by"):
        ranking(votes(ABC), by="prompts")


def test_fewer_than_three_prompts_are_told():
    found = ranking(votes(ABC, prompts=[k % 2 for k in range(len(ABC))]), rounds=100)
    assert found.clustered == "item"
    assert len(found.rounds) == 100


def test_the_votes_that_are_said_to_tell_two_apart_do():
    start = table([0.45, 0.0], 60, 4, prompts=60)
    needed = apart(ranking(start, rounds=0), 0, 1)
    value = needed.value
    assert not needed.told
    assert 20 < needed.direct < 5000
    # With a truth as found, the share of new data in which the interval leaves 0 out is the power.
    n = 60 + int(needed.direct)
    told = []
    for seed in range(200):
        one = apart(ranking(table([value, 0.0], n, 100 + seed, prompts=n), rounds=0), 0, 1)
        told.append(one.low > 0)
    assert 0.70 <= np.mean(told) <= 0.9
    assert needed.alike == pytest.approx(n / 60, rel=0.1)
