"""Degraded copies: what goes, in what order, and what feedback still holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.curation import degrade, degraded
from boresight.curation.degrade import WORD
from boresight.data.example import Example, Label, Message, Pair, Response, Score, Step
from boresight.errors import InputError

OFTEN = {"the": 9, "is": 9, "cat": 1, "mat": 3, "on": 8, "red": 1}
"""Of 10 texts."""


def test_the_rarest_words_go_first_and_common_ones_stay() -> None:
    text = "The red cat is on the mat."
    # key content: red, cat (weight log 11/2 each, red first), mat (log 11/4)
    assert degraded(text, 0, OFTEN, 10) == text
    assert degraded(text, 1 / 3, OFTEN, 10) == "The cat is on the mat."
    assert degraded(text, 0.34, OFTEN, 10) == "The is on the mat."
    assert degraded(text, 1, OFTEN, 10) == "The is on the."


def test_a_word_that_comes_often_in_the_text_weighs_more_and_goes_everywhere() -> None:
    assert degraded("red, then mat; Mat. MAT!", 0.3, OFTEN | {"then": 9}, 10) == "red, then;.!"


def test_where_all_words_are_common_all_are_key_content_and_one_is_left() -> None:
    assert degraded("is the", 0.5, OFTEN, 10) == "the"
    assert degraded("is the", 1, OFTEN, 10) == "the"
    assert degraded("cat", 1, OFTEN, 10) == "cat"
    assert degraded("", 1, OFTEN, 10) == ""
    assert degraded("!?", 1, OFTEN, 10) == "!?"


def test_a_share_out_of_range_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"share must be in \[0, 1\]"):
            degraded("cat", share, OFTEN, 10)


words = st.lists(st.sampled_from(["a", "bear", "fox", "owl", "sits", "on", "rocks", "it's", "Übung"]), max_size=12).map(
    " ".join
)


@settings(max_examples=100)
@given(words, st.dictionaries(st.sampled_from(["a", "fox", "on", "owl"]), st.integers(0, 10)))
def test_what_is_left_is_a_subsequence_and_shrinks(text: str, frequency: dict[str, int]) -> None:
    before = WORD.findall(text)
    last = len(before)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        left = WORD.findall(degraded(text, share, frequency, 10))
        rest = iter(before)
        assert all(word in rest for word in left)
        assert len(left) <= last
        assert left or not before
        last = len(left)


def pair() -> Example:
    return Example(
        "say it",
        (Response("fox owl bear cat", system="a"), Response((Message("user", "so"), Message("assistant", "owl dog")))),
        pairs=(Pair(0, 1, weight=2.0),),
        scores=(Score(0, 3.0, "quality"),),
        labels=(Label(0, True),),
        ranks=(1, 2),
        steps=(Step(0, 0, 1.0),),
        user="u",
        id="one",
        source="file:1",
    )


def test_copies_follow_their_example() -> None:
    found = degrade([pair()], levels=3)
    assert [e.id for e in found] == ["one", "one~1", "one~2"]
    assert [[(s.response, s.value, s.name) for s in e.scores if s.name == "degree"] for e in found] == [
        [(0, d, "degree"), (1, d, "degree")] for d in (0.0, 1.0, 2.0)
    ]
    # "owl" is in both responses, which is more than half; fox, bear, cat and dog in one
    assert [e.responses[0].text for e in found] == ["fox owl bear cat", "owl cat", "owl"]
    assert [e.responses[1].text for e in found] == ["owl dog", "owl", "owl"]
    assert found[1].responses[1].content == (Message("user", "so"), Message("assistant", "owl"))
    assert found[1].responses[0].system == "a"


def test_only_feedback_that_still_holds_is_kept() -> None:
    whole, copy = degrade([pair()], levels=2)
    assert whole.scores[0] == Score(0, 3.0, "quality")
    assert (whole.labels, whole.steps) == (pair().labels, pair().steps)
    assert (copy.pairs, copy.ranks, copy.user, copy.source) == (pair().pairs, (1, 2), "u", "file:1")
    assert (copy.labels, copy.steps) == ((), ())
    assert {s.name for s in copy.scores} == {"degree"}


def test_most_bounds_what_is_removed() -> None:
    lone = Example("p", (Response("one two three four"),))
    others = [Example("p", (Response(t),)) for t in ("five", "six")]
    found = [e.responses[0].text for e in degrade([lone, *others], levels=3, most=0.5)[:3]]
    assert found == ["one two three four", "two three four", "three four"]
    assert degrade([], levels=3) == []


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(InputError, match="levels is 1"):
        degrade([pair()], levels=1)
    for most in (0.0, 1.5):
        with pytest.raises(InputError, match="most is"):
            degrade([pair()], most=most)
    with pytest.raises(InputError, match="file:1: has a score named degree"):
        degrade(degrade([pair()]))
