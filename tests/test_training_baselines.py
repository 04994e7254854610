from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from boresight.data.example import Example, Message, Pair, Response
from boresight.errors import InputError
from boresight.training.baselines import longer_wins, tfidf_bradley_terry
from boresight.training.stats import mean, proportion


def pair(chosen: str, rejected: str, prompt: str = "say something") -> Example:
    return Example(prompt, (Response(rejected), Response(chosen)), (Pair(1, 0),))


def test_the_longer_wins_and_ties_count_half() -> None:
    examples = [pair("four", "two"), pair("ab", "cd"), pair("a", "longer"), pair("longest", "x")]
    assert longer_wins(examples) == proportion(2.5, 4)


def test_a_tie_in_the_data_is_no_pair() -> None:
    tied = Example("p", (Response("a"), Response("bb")), (Pair(0, 1, tie=True),))
    assert longer_wins([tied, pair("ab", "c")]).n == 1
    with pytest.raises(InputError, match="no"):
        longer_wins([tied])


def test_several_pairs_of_one_prompt_are_clustered() -> None:
    """Ranked responses: three pairs each, which stand or fall together."""
    ranked = [Example(f"p{i}", tuple(Response("x" * n) for n in ns), ranks=(1, 2, 3)) for i, ns in enumerate(
        [(9, 5, 1), (2, 4, 8), (5, 5, 3), (1, 2, 7)]
    )]  # fmt: skip
    right = [1, 1, 1, 0, 0, 0, 0.5, 1, 1, 0, 0, 0]
    found, expected = longer_wins(ranked), mean(right, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
    assert (found.value, found.low, found.high, found.n) == pytest.approx(
        (expected.value, expected.low, expected.high, 12)
    )


def test_a_response_of_several_messages_counts_with_all_of_them() -> None:
    long = Response((Message("assistant", "first turn"), Message("user", "?"), Message("assistant", "ok")))
    assert longer_wins([Example("p", (long, Response("a reply")), (Pair(0, 1),))]).value == 1.0


def test_tfidf_separates_what_words_decide() -> None:
    nouns = ["cats", "dogs", "trees", "rivers", "clouds", "stones"]
    train = [pair(f"good {n}", f"bad {n}") for n in nouns[:4]]
    test = [pair(f"good {n}", f"bad {n}") for n in nouns[4:]] + [pair("bad luck", "good luck")]
    assert tfidf_bradley_terry(train, test).value == pytest.approx(2 / 3)


def test_the_same_words_on_both_sides_are_a_tie() -> None:
    train = [pair("good cats", "bad cats"), pair("good dogs", "bad dogs")]
    test = [pair("unseen words", "other words unseen")]
    assert tfidf_bradley_terry(train, test, ngrams=(1, 1)).value == 0.5


def test_bradley_terry_by_hand() -> None:
    """Against TF-IDF written out and the penalised likelihood minimised by a general optimiser, in float64."""
    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(12)]

    def reply(tilt: float) -> str:
        p = np.exp(tilt * np.linspace(-1, 1, 12))
        return " ".join(rng.choice(words, size=7, p=p / p.sum()))

    train = [pair(reply(0.7), reply(0.0)) for _ in range(60)]
    test = [pair(reply(0.7), reply(0.0)) for _ in range(80)]

    def sides(examples: list[Example]) -> list[tuple[list[str], list[str]]]:
        return [(e.responses[1].content.split(), e.responses[0].content.split()) for e in examples]  # type: ignore[union-attr]

    documents = [d for both in sides(train) for d in both]
    idf = np.array([math.log((1 + len(documents)) / (1 + sum(w in d for d in documents))) + 1 for w in words])

    def features(document: list[str]) -> np.ndarray:
        x = np.array([document.count(w) for w in words]) * idf
        return x / np.linalg.norm(x)

    def differences(examples: list[Example]) -> np.ndarray:
        return np.array([features(c) - features(r) for c, r in sides(examples)])

    x = differences(train)
    fit = minimize(lambda w: 0.5 * w @ w + 3.0 * np.logaddexp(0, -x @ w).sum(), np.zeros(12), tol=1e-12)
    expected = float((differences(test) @ fit.x > 0).mean())
    assert 0.55 < expected < 0.95
    assert tfidf_bradley_terry(train, test, ngrams=(1, 1), C=3.0).value == pytest.approx(expected, abs=1e-9)


def test_swapping_every_pair_of_the_test_set_turns_the_accuracy_round() -> None:
    train = [pair("good cats", "bad cats"), pair("good dogs", "bad dogs"), pair("fine cats", "bad dogs")]
    test = [pair("good trees", "bad trees"), pair("bad trees", "fine trees"), pair("cats", "dogs")]
    turned = [Example(e.prompt, e.responses, (Pair(0, 1),)) for e in test]
    assert tfidf_bradley_terry(train, test).value == pytest.approx(1 - tfidf_bradley_terry(train, turned).value)


def test_what_cannot_be_fitted_is_said() -> None:
    some = [pair("good cats", "bad cats")]
    lonely = [Example("p", (Response("x"),))]
    with pytest.raises(InputError, match="training data"):
        tfidf_bradley_terry(lonely, some)
    with pytest.raises(InputError, match="test data"):
        tfidf_bradley_terry(some, lonely)
    with pytest.raises(InputError, match="n-gram that occurs in 9"):
        tfidf_bradley_terry(some, some, min_df=9)
    with pytest.raises(InputError, match="n-gram"):
        tfidf_bradley_terry([pair("!", "?")], some)


def test_reference_points_on_real_pairs(real_data: Path, tmp_path: Path) -> None:
    """The figures known beforehand: SOURCE.md and the design; nothing tiny should claim over .65."""
    from boresight.data.read import read

    folder = real_data / "hh-helpful"
    train, test = (read(folder / f"{name}.jsonl.gz", cache=tmp_path) for name in ("train", "test"))
    assert longer_wins(train).value == pytest.approx(0.585, abs=0.006)
    assert longer_wins(test).value == pytest.approx(0.565, abs=0.006)
    found = tfidf_bradley_terry(train, test)
    assert found.low < 0.583 < found.high
    assert found.value < 0.65
