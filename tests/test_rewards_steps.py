"""Scores of steps and votes by them, in closed form and against a plain count."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.rewards.steps import AGGREGATES, aggregate, best_of_n, weighted_vote


def test_each_way_to_score_a_solution_by_its_steps():
    steps = [[0.5, 0.2, 0.8], [0.9], []]
    expected = {"min": (0.2, 0.9), "prod": (0.08, 0.9), "mean": (0.5, 0.9), "last": (0.8, 0.9)}
    assert set(expected) == set(AGGREGATES)
    for how, values in expected.items():
        found = aggregate(steps, how)
        assert found[:2] == pytest.approx(values)
        assert math.isnan(found[2])
    assert aggregate([]).shape == (0,)
    with pytest.raises(ValueError, match="min, prod, mean, last"):
        aggregate(steps, "max")


def test_many_poor_votes_outweigh_one_good_one_where_best_of_n_does_not():
    answers, scores = ["7", "9", "9", "9"], [0.8, 0.3, 0.3, 0.3]
    assert weighted_vote(answers, scores) == "9"
    assert best_of_n(answers, scores) == "7"
    assert weighted_vote(answers, [1.0, 0.3, 0.3, 0.3]) == "7"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), min_size=1, max_size=9))
@settings(max_examples=60)
def test_a_vote_is_the_plain_sum_and_without_scores_the_majority(votes):
    answers, scores = [a for a, _ in votes], [s / 8 for _, s in votes]
    sums = {a: sum(s for b, s in zip(answers, scores, strict=True) if b == a) for a in answers}
    assert sums[weighted_vote(answers, scores)] == max(sums.values())
    count = Counter(answers)
    assert count[weighted_vote(answers, [1.0] * len(answers))] == max(count.values())
    assert scores[answers.index(best_of_n(answers, scores))] <= max(scores)
    assert (best_of_n(answers, scores), max(scores)) in set(zip(answers, scores, strict=True))


def test_ties_go_to_the_first_and_what_has_no_score_has_no_vote():
    assert weighted_vote([3, 1], [0.5, 0.5]) == best_of_n([3, 1], [0.5, 0.5]) == 3
    assert weighted_vote([3, 1, 3], [math.nan, 0.1, math.nan]) == best_of_n([3, 1, 3], [math.nan, 0.1, math.nan]) == 1
    for answers, scores in (([], []), ([1], [0.5, 0.5]), ([1], [math.nan]), ([1], [math.inf])):
        for choose in (weighted_vote, best_of_n):
            with pytest.raises(ValueError, match="finite scores"):
                choose(answers, scores)
