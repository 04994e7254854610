"""Quote-tuning: shares of n-grams by hand, which pair is made, and what makes none."""

from __future__ import annotations

import math

import pytest

from boresight.curation import Quotes, quote_tuning
from boresight.data.example import Example, Label, Message, Pair, Response, Score
from boresight.errors import InputError


def of(*texts: str, **more: object) -> Example:
    return Example("q", tuple(Response(t) for t in texts), **more)  # type: ignore[arg-type]


LETTERS = Quotes(["a b c d e f g h i j"], n=2, unit="words")


def test_shares_of_words_by_hand():
    # a b, b c are there; c x, x a are not
    assert LETTERS.quip("a b c x a") == 0.5
    assert LETTERS.quip("A  B") == 1.0
    assert LETTERS.quip("b a") == 0.0
    # as often as it occurs: a b, b a, a b
    assert LETTERS.quip("a b a b") == pytest.approx(2 / 3)
    assert LETTERS.quip("a") == LETTERS.quip("") == 0.0
    assert len(LETTERS) == 9


def test_shares_of_characters_by_hand():
    quotes = Quotes(["hello world", "no"], n=5)
    # "hello", "ello ", "llo w", "lo wo", "o wor", " worl", "world"
    assert len(quotes) == 7
    assert quotes.quip("hello\n  world") == 1.0
    # "hello" and "ello " of "hello", "ello ", "llo t", "lo th", "o the", " ther", "there"
    assert quotes.quip("hello there") == pytest.approx(2 / 7)
    assert quotes.quip("Hello") == 0.0


def test_n_grams_do_not_run_from_one_text_into_the_next():
    assert Quotes(["a b", "c d"], n=2, unit="words").quip("b c") == 0.0


def test_words_are_not_run_together():
    assert Quotes(["ab c"], n=2, unit="words").quip("a bc") == 0.0


def test_the_pair_of_the_highest_mean_is_made():
    # QUIP 0, 1/3, 2/3, 1 of four words each: 1 and 2/3 have the highest mean
    example = of("x x x x", "a b x x", "a b c x", "a b c d", ranks=(1, 2, 3, 4), id="e")
    (made,) = quote_tuning([example], LETTERS)
    assert made == of("x x x x", "a b x x", "a b c x", "a b c d", pairs=(Pair(3, 2),), id="e")
    (wider,) = quote_tuning([example], LETTERS, least=0.4)
    assert wider.pairs == (Pair(3, 1),)


def test_the_limits_themselves_make_no_pair():
    assert quote_tuning([of("a b c x", "a b x x")], LETTERS, least=0.34) == []
    halves = of("a b c", "a b x")  # 1 and 1/2
    assert quote_tuning([halves], LETTERS, least=0.5) == []
    assert quote_tuning([halves], LETTERS, least=0.49)[0].pairs == (Pair(0, 1),)
    longer = of("a b c d e", "x x x x")  # a quarter longer
    assert quote_tuning([longer], LETTERS, longer=0.25) == []
    assert quote_tuning([longer], LETTERS, longer=0.26)[0].pairs == (Pair(0, 1),)
    assert quote_tuning([of("a b c d e", "x")], LETTERS, longer=math.inf)[0].pairs == (Pair(0, 1),)


def test_what_has_no_pair_is_left_out():
    alone, empty, alike = of("a b"), of(), of("a b c", "b c d")
    assert quote_tuning([alone, empty, alike], LETTERS) == []


def test_other_feedback_goes_and_turns_are_read():
    turns = (Message("assistant", "a b c"), Message("user", "x"), Message("assistant", "x y z"))
    responses = (Response(turns), Response("a b c", "m"), Response("a b c", prompt="another"))
    example = Example("q", responses, (Pair(0, 1),), (Score(0, 9.0),), (Label(0, True),))
    assert quote_tuning([example], LETTERS) == [Example("q", responses, pairs=(Pair(1, 0),))]


def test_of_equal_pairs_the_earliest():
    (made,) = quote_tuning([of("x x", "a b", "b c")], LETTERS)
    assert made.pairs == (Pair(1, 0),)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Quotes(["abc"], n=0), "n is 0"),
        (lambda: Quotes(["abc"], n=2, unit="bytes"), "unit"),
        (lambda: Quotes(["abc"], n=4), "no n-gram"),
        (lambda: Quotes([]), "no n-gram"),
        (lambda: quote_tuning([], LETTERS, least=1.0), "least"),
        (lambda: quote_tuning([], LETTERS, least=math.nan), "least"),
        (lambda: quote_tuning([], LETTERS, longer=0.0), "longer"),
        (lambda: quote_tuning([], LETTERS, longer=math.nan), "longer"),
    ],
)
def test_what_cannot_be_used_is_refused(call, named):
    with pytest.raises(InputError) as caught:
        call()
    assert named in caught.value.what
    assert caught.value.mend
