"""Features by hand, one by one, and that they stand whatever a text holds."""

from __future__ import annotations

from math import isfinite, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.judging.features import FEATURES, Seen, feature, features_of

TABLE = [
    ("length", "One two, three.", "", log(4)),
    ("length", "", "", 0.0),
    ("sentences", "One. Two! Three?", "", log(4)),
    ("sentences", "no mark at the end", "", log(2)),
    ("sentences", "It costs 3.50 today.", "", log(2)),
    ("word-length", "ab abcd", "", 3.0),
    ("paragraphs", "a\n\nb\n \nc", "", log(4)),
    ("list", "- a\n* b\n1. c\n2) d\nno - item", "", log(5)),
    ("headers", "# A\n## B\n#none", "", log(3)),
    ("bold", "**a** and __b__ and *c*", "", log(3)),
    ("code", "`a` and ```\nb `c`\n```", "", log(3)),
    ("links", "see https://a.b and [c](d)", "", log(3)),
    ("questions", "What? Why?", "", log(3)),
    ("ends-asking", 'Shall I?"', "", 1.0),
    ("ends-asking", "Shall I? No.", "", 0.0),
    ("exclamations", "Yes!!", "", log(3)),
    ("refusal", "I'm sorry, but I can't help with that.", "", 1.0),
    ("refusal", "You can't, I'm sorry to say.", "", 0.0),
    ("hedges", "I guess it might, maybe.", "", log(4)),
    ("hedges", "A mighty guess.", "", 0.0),
    ("polite", "Of course! Happy to help, please wait.", "", log(4)),
    ("apologies", "Sorry, unfortunately not.", "", log(3)),
    ("negations", "No, I don’t and cannot; nothing.", "", log(5)),
    ("connectives", "First boil, then wait because it is hot.", "", log(4)),
    ("first-person", "I like my tea, we do.", "", log(4)),
    ("second-person", "You and your tea, you’re right.", "", log(4)),
    ("overlap", "Paris is the capital.", "What is the capital of France?", 0.5),
    ("overlap", "Anything", "is it the", 0.0),
    ("variety", "a b a b", "", 0.5),
    ("variety", "", "", 1.0),
    ("repetition", "a b c a b c", "", 0.25),
    ("repetition", "a b", "", 0.0),
    ("punctuation", "a, b (c)", "", log(11)),
    ("digits", "3 of 1,000 and 2.5", "", log(4)),
    ("names", "In the Lake District, near Bath, it rains.", "", log(4)),
    ("shouting", "The UK and the USA, a B", "", log(3)),
    ("quotes", '"a" “b”', "", log(5)),
    ("emoji", "fine \U0001f600", "", log(2)),
    ("unfinished", "and then the", "", 1.0),
    ("unfinished", "And then it ended.", "", 0.0),
]


@pytest.mark.parametrize(("id", "text", "prompt", "value"), TABLE)
def test_by_hand(id, text, prompt, value):
    assert FEATURES[id].function(Seen(text, prompt)) == pytest.approx(value)


def test_every_feature_is_tested_by_hand_and_says_what_it_is():
    assert {row[0] for row in TABLE} == set(FEATURES)
    for one in FEATURES.values():
        assert one.meaning
        assert one.more != one.less


@settings(max_examples=60)
@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_has_finite_features(text, prompt):
    found = features_of(text, prompt)
    assert len(found) == len(FEATURES)
    assert all(isfinite(value) for value in found)


def test_a_feature_is_registered_once():
    own: dict = {}

    @feature("x", "has more x", "has less x", register=own)
    def count(seen: Seen) -> float:
        """Letters x."""
        return float(seen.text.count("x"))

    assert features_of("axx", features=own) == [2.0]
    with pytest.raises(ValueError, match="already"):
        feature("x", "a", "b", register=own)(count)
