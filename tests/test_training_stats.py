from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from boresight.training.stats import Interval, mean, paired_difference, proportion, win_rate


@pytest.mark.parametrize(("successes", "n"), [(1, 2), (3, 10), (58, 100), (0.5, 7), (465, 797)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_ends_are_where_the_score_test_just_rejects(successes: float, n: int, confidence: float) -> None:
    """The definition: p is inside if |share - p| <= z * sqrt(p (1 - p) / n). Solved by bisection, not by formula."""
    z = stats.norm.ppf((1 + confidence) / 2)
    share = successes / n

    def excess(p: float) -> float:
        return (share - p) ** 2 - z * z * p * (1 - p) / n

    low = optimize.brentq(excess, 0, share, xtol=1e-14)
    high = optimize.brentq(excess, share, 1, xtol=1e-14)
    found = proportion(successes, n, confidence)
    assert found.value == share
    assert found.low == pytest.approx(low, abs=1e-12)
    assert found.high == pytest.approx(high, abs=1e-12)
    assert found.n == n


def test_wilson_at_the_ends_is_closed_form() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    none, every = proportion(0, 20), proportion(20, 20)
    assert (none.low, none.value) == (0.0, 0.0)
    assert none.high == pytest.approx(z2 / (20 + z2))
    assert (every.high, every.value) == (1.0, 1.0)
    assert every.low == pytest.approx(20 / (20 + z2))


def test_wilson_agrees_with_scipy() -> None:
    ours = proportion(37, 90)
    theirs = stats.binomtest(37, 90).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_observed_says_nothing() -> None:
    empty = proportion(0, 0)
    assert math.isnan(empty.value)
    assert (empty.low, empty.high, empty.n) == (0.0, 1.0, 0)
    assert str(empty) == "nothing to estimate, n = 0"
    none = mean([])
    assert math.isnan(none.value)
    assert (none.low, none.high, none.n) == (-math.inf, math.inf, 0)


def test_one_value_or_one_cluster_has_no_spread_to_judge_by() -> None:
    assert mean([3.0]) == Interval(3.0, -math.inf, math.inf, 1)
    assert mean([1.0, 3.0], ["a", "a"]) == Interval(2.0, -math.inf, math.inf, 2)


def test_wilson_covers() -> None:
    rng = np.random.default_rng(7)
    for n, p in ((15, 0.1), (40, 0.5), (200, 0.9)):
        covered = sum(not proportion(int(k), n).excludes(p) for k in rng.binomial(n, p, 4000)) / 4000
        assert 0.93 <= covered <= 0.985, (n, p, covered)


def test_win_rate_counts_a_tie_as_half_a_win() -> None:
    assert win_rate(6, 4, 10) == proportion(8, 20)
    assert win_rate(0, 0, 0).n == 0
    both = win_rate(7, 2, 3), win_rate(3, 2, 7)
    assert both[0].low == pytest.approx(1 - both[1].high)


def test_mean_is_scipys_t_interval() -> None:
    x = np.random.default_rng(0).normal(2, 5, 23)
    found = mean(x, confidence=0.9)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_cluster_each_changes_nothing() -> None:
    x = np.random.default_rng(1).normal(size=12)
    plain, clustered = mean(x), mean(x, list(range(12)))
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high))


def test_equal_clusters_give_the_t_interval_of_their_means() -> None:
    x = np.random.default_rng(2).normal(size=(9, 4))
    clustered, of_means = mean(x.ravel(), [f"p{i}" for i in range(9) for _ in range(4)]), mean(x.mean(1))
    assert (clustered.value, clustered.low, clustered.high) == pytest.approx(
        (of_means.value, of_means.low, of_means.high)
    )
    assert clustered.n == 36


def test_copying_every_value_does_not_narrow_a_clustered_interval() -> None:
    x = np.random.default_rng(3).normal(size=15)
    names = list("abcdefghijklmno")
    once, thrice = mean(x, names), mean(np.repeat(x, 3), np.repeat(names, 3).tolist())
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert mean(np.repeat(x, 3)).high < once.high


def test_unequal_clusters_by_the_written_out_sandwich() -> None:
    values = {"a": [1.0, 2.0, 4.0], "b": [0.0], "c": [3.0, 5.0]}
    flat = [v for vs in values.values() for v in vs]
    centre = sum(flat) / 6
    meat = sum(sum(v - centre for v in vs) ** 2 for vs in values.values())
    half = stats.t.ppf(0.975, 2) * math.sqrt(3 / 2 * meat) / 6
    found = mean(flat, [k for k, vs in values.items() for _ in vs])
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    rng = np.random.default_rng(11)
    names = np.repeat(np.arange(30), 5).tolist()
    plain = clustered = 0
    for _ in range(1500):
        x = np.repeat(rng.normal(size=30), 5) + rng.normal(size=150)
        plain += not mean(x).excludes(0)
        clustered += not mean(x, names).excludes(0)
    assert 0.93 <= clustered / 1500 <= 0.97
    assert plain / 1500 < 0.85


def test_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(size=40)
    a, b = shared + 0.1 * rng.normal(size=40), shared + 0.1 * rng.normal(size=40)
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    back = paired_difference(b, a)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert paired_difference(a, a) == Interval(0.0, 0.0, 0.0, 40)


def test_an_interval_reads_well() -> None:
    assert str(proportion(50, 100)) == "0.500 [0.404, 0.596], n = 100"
    assert Interval(1.0, 0.5, 2.0, 3).excludes(0.4)
    assert not Interval(1.0, 0.5, 2.0, 3).excludes(0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: proportion(3, 2), "successes must be in"),
        (lambda: proportion(-1, 2), "successes must be in"),
        (lambda: proportion(1, 2, confidence=1.0), "confidence must be in"),
        (lambda: mean([1.0, 2.0], confidence=0), "confidence must be in"),
        (lambda: mean([1.0, math.nan]), r"values\[1\] is not finite"),
        (lambda: mean([[1.0]]), "must have shape"),
        (lambda: mean([1.0, 2.0], ["a"]), "2 values but 1 cluster"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "1 of a, 2 of b"),
        (lambda: paired_difference([math.inf], [1.0]), r"a\[0\] is not finite"),
        (lambda: win_rate(1, -1, 0), "must not be negative"),
    ],
)
def test_unusable_numbers_are_refused_by_name(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]
