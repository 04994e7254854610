"""Parsers: what is read, what is refused, and that any text is either."""

from __future__ import annotations

from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.judging.endpoint_wire import Token
from boresight.judging.parsers import criteria, label, score, verdict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Verdict: A", 1), ("Verdict: B", 0), ("Verdict: tie", 0.5), ("verdict: c", 0.5), ("VERDICT - A", None),
        ("**Verdict: A**", 1), ("**Verdict:** B.", 0), ("Final verdict: [[A]]", 1), ("- Verdict: `B`", 0),
        ("Verdict: Answer A", 1), ("## Verdict\nA", 1), ("My verdict: draw!", 0.5), ("> Verdict: A", 1),
        ("Verdict: A\nOn reflection.\nVerdict: B", 0), ("Answer B says Verdict: A.\nVerdict: B", 0),
        ("Verdict: A or B", None), ("Verdict: neither", None), ("Verdict: A\nVerdict: unsure", None),
        ("Verdict: AB", None), ("Verdict:", None), ("", None), ("I like A.", None), ("The verdict is A", None),
        ("A", 1), (" [[B]] ", 0), ("tie.", 0.5), ("a", 1), ("D", None), ("A B", None),
        ("Verdict: A better answer", None), ("Verdict\nVerdict: A", 1), ("Verdict:\n\nB.", 0),
        ("Verdict: A\nVerdict:", None), ("Verdict\nmy verdict: A", 1),
        ('{"verdict": "A"}', 1), ('```json\n{"verdict": "tie", "why": "x"}\n```', 0.5), ('{"verdict": "x"}', None),
        ('{"verdict": ["A"]}', None), ('{"verdict": ', None), ("{" * 9999, None),
        ("<think>Verdict: A</think>\nVerdict: B", 0),
    ],
)  # fmt: skip
def test_verdicts(text, value):
    found = verdict(text)
    assert found.value == value
    assert bool(found.why) == (value is None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Score: 7", 7), ("score: 7/10", 7), ("**Score:** 10 / 10.", 10), ("Score: 7 out of 10", 7),
        ("Score: 7.5", 7.5), ("Score\nScore: 7", 7),
        ("Score: 3\nScore: 4", 4), ("7", 7), (" [[7]] ", 7), ('{"score": 7}', 7), ('{"score": "7"}', 7),
        ("Score:\n7", 7),
        ("Score: 0", None), ("Score: 11", None), ("Score: -3", None), ("Score: 7/5", None), ("Score: 7-8", None),
        ("Score: 7 to 8", None), ("Score: seven", None), ("", None), ("I give it 7 points", None), ("Score: 7 8", None),
        ('{"score": true}', None), ('{"score": NaN}', None), ("Score: 99999999999999999999", None),
        ("Score: 7,5", None),
        ("Score: 1e1", None), ("Score: 7%", None),
    ],
)  # fmt: skip
def test_scores(text, value):
    found = score(text, 1, 10)
    assert found.value == value
    assert bool(found.why) == (value is None)


def test_a_score_at_the_ends_of_its_scale():
    assert [score(f"Score: {k}", 1, 4).value for k in (1, 4, 5)] == [1, 4, None]
    assert score("Score: -1", -2, 2).value == -1


def test_criteria():
    names = ["shape", "shape detail", "text (match)"]
    found = criteria("Words: A.\n1. shape: A\n- **Shape detail**: tie\ntext (match): B", names)
    assert found.parts == {"shape": 1, "shape detail": 0.5, "text (match)": 0}
    assert found.value == pytest.approx(0.5)
    some = criteria("shape: A\nshape: B\ntext (match): better", names)
    assert some.parts == {"shape": 0, "shape detail": None, "text (match)": None}
    assert some.value is None
    assert some.why == "no verdict on shape detail, text (match)"


LABELS = {"A": 1.0, "B": 0.0, "C": 0.5}


def test_labels_by_their_probabilities():
    top = (("A", log(0.5)), (" A", log(0.1)), ("B", log(0.2)), ("The", log(0.2)))
    found = label([Token("\n", -0.1), Token("A", log(0.5), top), Token("B", 0.0)], LABELS)
    assert found.value == pytest.approx(0.6 / 0.8)
    assert found.mass == pytest.approx(0.8)
    assert label([Token("A", -2.0)], LABELS).value == 1, "without alternatives the label itself"
    assert label([Token("B", log(0.3), (("A", log(0.6)),))], LABELS).value == pytest.approx(0.6 / 0.9)


@pytest.mark.parametrize(
    "tokens", [[], [Token(" ", 0.0)], [Token("The", 0.0, (("A", -1.0),))], [Token("AB", 0.0)], [Token("A", -9999.0)]]
)
def test_what_is_no_label(tokens):
    assert label(tokens, LABELS).value is None
    assert label(tokens, LABELS).why


PIECES = st.sampled_from(
    ["Verdict", "verdict:", ":", "A", "B", "tie", "Score", "score: ", "7", "/10", ".", "-", "*", "\n", " ", "{", "}",
     '"', "shape", "[[", "]]", "final ", "my ", "é", "\x00", "\ud800", "\u2028"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=60)


@given(TEXTS)
@settings(max_examples=400)
def test_any_text_has_a_verdict_or_a_reason(text):
    for found in (verdict(text), score(text, 1, 10), criteria(text, ["shape", "A"])):
        assert (found.value is None) == bool(found.why)
    assert verdict(text).value in (None, 0, 0.5, 1)
    assert score(text, 1, 10).value is None or 1 <= score(text, 1, 10).value <= 10


@given(TEXTS, st.sampled_from(["A", "B", "tie"]))
@settings(max_examples=200)
def test_a_last_line_with_the_verdict_decides_whatever_stands_before(text, side):
    assert verdict(f"{text}\nVerdict: {side}").value == {"A": 1, "B": 0, "tie": 0.5}[side]
    assert score(f"{text}\nScore: 3", 1, 10).value == 3


TOKENS = st.builds(
    Token,
    st.sampled_from(["A", " A", "B", "C", "x", "", " "]),
    st.floats(-60, 1e-3),
    st.lists(st.tuples(st.sampled_from(["A", " A", "B\n", "C", "x"]), st.floats(-60, 1e-3)), max_size=5).map(tuple),
)


@given(st.lists(TOKENS, max_size=4))
@settings(max_examples=300)
def test_labels_are_means_of_their_worths(tokens):
    found = label(tokens, LABELS)
    if found.value is None:
        assert found.why
        return
    place = next(t for t in tokens if t.text.strip())
    top = {**dict(place.top), place.text: place.logprob}
    chances = [(exp(min(lp, 0)), LABELS[t.strip()]) for t, lp in top.items() if t.strip() in LABELS]
    expected = sum(p * w for p, w in chances) / sum(p for p, _ in chances)
    assert found.value == pytest.approx(expected)
    assert -1e-12 <= found.value <= 1 + 1e-12
    assert 0 < found.mass <= 1


@pytest.mark.parametrize(
    "filling", ["\n", "*", "Verdict", "verdict \n", "Score: ", "score 1", "my ", "[", "{", "shape:"]
)
def test_long_answers_are_read_at_once(filling):
    """It would not end within hours if a pattern went back and forth."""
    text = filling * (1_000_000 // len(filling))
    assert score(text, 1, 10).value is None or filling.startswith("score")
    for found in (verdict(text), criteria(text, ["shape"])):
        assert found.value is None
