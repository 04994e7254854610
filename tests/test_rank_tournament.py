"""Schedules: how often they ask, whom against whom, and what comes of it."""

import numpy as np
import pytest

from boresight.judging.tournament import Matches, against_anchor, all_pairs, random_pairs, single_elimination


def sure(prompts, first, second):
    """The lower number always wins."""
    return (first < second).astype(float)


@pytest.mark.parametrize("systems", [2, 3, 4, 5, 7, 8, 13, 16, 20])
def test_a_bracket_has_one_match_less_than_systems_and_each_loser_goes_home(systems):
    found = single_elimination(sure, systems, 30, seed=systems)
    assert len(found) == 30 * (systems - 1)
    rounds = int(np.ceil(np.log2(systems)))
    for prompt in range(30):
        own = found.prompt == prompt
        loser = np.where(found.outcome[own] == 1, found.second[own], found.first[own])
        assert sorted(loser) == list(range(1, systems))  # all but the winner lose once
        played = np.bincount(np.concatenate([found.first[own], found.second[own]]), minlength=systems)
        assert played.max() <= rounds
        assert played.min() >= 1
        if systems > 2 and systems & (systems - 1) == 0:
            assert np.count_nonzero(played == 1) == systems // 2
    # Free passes into the second round: as many as are missing to a power of two, at least one match less there.
    assert (found.outcome == (found.first < found.second)).all()


def test_every_round_is_asked_at_once():
    calls = []

    def judge(prompts, first, second):
        calls.append(len(prompts))
        return sure(prompts, first, second)

    single_elimination(judge, 6, 10)
    assert calls == [20, 20, 10]  # two free passes in the first round


def test_brackets_are_drawn_anew_on_each_prompt_and_by_the_seed():
    one, same, other = (single_elimination(sure, 8, 20, seed=s) for s in (1, 1, 2))
    assert (one.first == same.first).all()
    assert (one.first != other.first).any()
    opening = {
        tuple(sorted(map(tuple, np.sort(np.stack([one.first, one.second], 1)[one.prompt == p][:4])))) for p in range(20)
    }
    assert len(opening) > 10
    assert 0.3 < (one.first < one.second).mean() < 0.7


def test_a_tie_sends_one_of_the_two_on():
    found = single_elimination(lambda p, a, b: np.full(len(p), 0.5), 8, 200, seed=0)
    assert len(found) == 1400
    assert found.win_rates() == pytest.approx(np.full(8, 0.5))
    finals = np.concatenate([found.first[-200:], found.second[-200:]])
    assert np.bincount(finals, minlength=8).min() > 20


def test_the_other_schedules_ask_what_they_say():
    found = against_anchor(sure, 5, 7, anchor=2)
    assert len(found) == 28
    assert ((found.first == 2) ^ (found.second == 2)).all()
    assert found.win_rates()[[0, 1, 3, 4]].tolist() == [1, 1, 0, 0]
    whole = all_pairs(sure, 4, 3)
    assert len(whole) == 18
    assert len({(p, *sorted((a, b))) for p, a, b in zip(whole.prompt, whole.first, whole.second, strict=True)}) == 18
    assert len(all_pairs(sure, 4, 3, budget=8)) == 8
    some = random_pairs(sure, 6, 4)
    assert np.bincount(some.prompt).tolist() == [5] * 4
    assert len({(p, *sorted((a, b))) for p, a, b in zip(some.prompt, some.first, some.second, strict=True)}) == 20
    for bad, what in (
        (lambda: against_anchor(sure, 3, 1, anchor=3), "none of 3"), (lambda: all_pairs(sure, 1, 1), "needs two"),
        (lambda: all_pairs(sure, 3, 1, budget=0), "asks nothing"), (lambda: random_pairs(sure, 3, 1, each=4), "of 3"),
        (lambda: single_elimination(sure, 3, 0), "no prompt"),
        (lambda: single_elimination(lambda p, a, b: np.full(len(p), 0.7), 3, 2), "1, 0.5 or 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            bad()


@pytest.mark.parametrize("schedule", [single_elimination, all_pairs, random_pairs])
def test_strengths_of_pooled_matches_are_the_planted_ones(schedule):
    truth = np.array([1.0, 0.4, 0.0, -0.3, -1.1])
    random = np.random.default_rng(0)

    def judge(prompts, first, second):
        return (random.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first]))).astype(float)

    # Whom a system meets depends on what it won, which biases shares but not the likelihood.
    found = schedule(judge, 5, 3000, seed=1)
    assert found.strengths() == pytest.approx(truth - truth.mean(), abs=0.12)
    assert found.strengths().mean() == pytest.approx(0, abs=1e-9)


def test_a_system_without_a_match_and_one_that_always_wins():
    found = Matches(np.array([0, 1]), np.array([0, 0]), np.array([1, 1]), np.array([1.0, 1.0]), 3)
    assert np.isnan(found.win_rates()[2])
    strengths = found.strengths()
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[2] > strengths[1]
