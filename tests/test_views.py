"""Views: pairs, demonstrations and labels of an example, against plain enumerations of what they mean."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boresight.data.example import Example, Label, Pair, Response, Score
from boresight.data.views import demonstrations, labelled, mean_scores, pairs

THREE = tuple(map(Response, "abc"))


def test_pairs_that_are_there_are_kept_even_if_they_contradict_each_other() -> None:
    votes = (Pair(0, 1, annotator="x"), Pair(1, 0, 2.0), Pair(0, 1, tie=True), Pair(2, 0))
    example = Example("q", THREE, pairs=votes, ranks=(3, 2, 1), scores=(Score(0, 9.0),))
    assert pairs(example) == [votes[0], votes[1], votes[3]]
    assert demonstrations(example) == [0, 1, 2]
    assert labelled(example) == [
        Label(0, True, "x"), Label(1, False, "x"), Label(1, True, weight=2.0), Label(0, False, weight=2.0),
        Label(2, True), Label(0, False),
    ]  # fmt: skip


def test_nothing_but_ties_gives_nothing_although_there_are_scores() -> None:
    example = Example("q", THREE, pairs=(Pair(0, 1, tie=True),), scores=(Score(0, 1.0), Score(1, 2.0)))
    assert pairs(example) == []
    assert demonstrations(example) == []
    assert labelled(example) == []


def test_ranks_come_before_scores() -> None:
    example = Example("q", THREE, ranks=(2, 1, 2), scores=(Score(0, 9.0), Score(1, 1.0), Score(2, 5.0)))
    assert pairs(example) == [Pair(1, 0), Pair(1, 2)]
    assert pairs(example, ranked="best-worst") == [Pair(1, 0)]
    assert demonstrations(example) == [1]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_pairs_from_ranks_are_all_that_differ(ranks: list[int]) -> None:
    example = Example("q", tuple(Response(str(r)) for r in ranks), ranks=tuple(ranks))
    expected = {(i, j) for i, j in permutations(range(len(ranks)), 2) if ranks[i] < ranks[j]}
    got = [(p.chosen, p.rejected) for p in pairs(example)]
    assert len(got) == len(set(got))
    assert set(got) == expected
    extremes = pairs(example, ranked="best-worst")
    assert [(ranks[p.chosen], ranks[p.rejected]) for p in extremes] == ([(min(ranks), max(ranks))] if expected else [])
    assert demonstrations(example) == [i for i, r in enumerate(ranks) if r == min(ranks)]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=5))
def test_scores_mean_what_ranks_of_them_mean(values: list[int]) -> None:
    responses = tuple(Response(str(v)) for v in values)
    scored = Example("q", responses, scores=tuple(Score(i, float(v)) for i, v in enumerate(values)))
    ranked = Example("q", responses, ranks=tuple(1 + sum(w > v for w in values) for v in values))
    for mode in ("all", "best-worst"):
        assert pairs(scored, ranked=mode) == pairs(ranked, ranked=mode)
    assert demonstrations(scored) == demonstrations(ranked)


def test_each_attribute_counts_once_however_many_scored_it() -> None:
    scores = (
        Score(0, 1.0, "kind"),
        Score(0, 3.0, "kind"),
        Score(0, 10.0, "true"),
        Score(1, 5.0, "kind"),
        Score(1, 6.0, "true"),
    )
    assert mean_scores(Example("q", THREE, scores=scores)) == {0: 6.0, 1: 5.5}  # ((1 + 3) / 2 + 10) / 2, (5 + 6) / 2
    assert pairs(Example("q", THREE, scores=scores)) == [Pair(0, 1)]


def test_only_attributes_that_all_share_are_compared() -> None:
    scores = (Score(0, 1.0, "kind"), Score(0, 100.0, "length"), Score(1, 2.0, "kind"))
    assert pairs(Example("q", THREE, scores=scores)) == [Pair(1, 0)]
    apart = (Score(0, 1.0, "kind"), Score(1, 2.0, "true"))
    assert pairs(Example("q", THREE, scores=apart)) == []


def test_responses_without_a_score_are_in_no_pair() -> None:
    assert pairs(Example("q", THREE, scores=(Score(2, 1.0), Score(0, 0.0)))) == [Pair(2, 0)]


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (Example("q", (Response("a"),)), [0]),
        (Example("q", THREE), []),
        (Example("q", ()), []),
        (Example("q", (Response("a"),), labels=(Label(0, False),)), []),
        (Example("q", THREE, labels=(Label(2, True), Label(0, False), Label(2, True))), [2]),
        (Example("q", (Response("a"),), scores=(Score(0, -5.0, "helpfulness"),)), [0]),
    ],
)
def test_demonstrations(example: Example, expected: list[int]) -> None:
    assert demonstrations(example) == expected


def test_labels_that_are_there_are_taken_as_they_are() -> None:
    labels = (Label(0, True, "x"), Label(0, False, "y"))
    assert labelled(Example("q", THREE, labels=labels, pairs=(Pair(1, 2),))) == list(labels)


def test_without_feedback_there_is_none() -> None:
    assert pairs(Example("q", THREE)) == []
    assert pairs(Example("q", THREE), ranked="best-worst") == []
    assert labelled(Example("q", THREE)) == []
