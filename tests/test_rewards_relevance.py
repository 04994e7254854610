"""The relevance reward against its formula, written out for texts whose vectors are known."""

from __future__ import annotations

import numpy as np
import pytest

from boresight.data.example import Message
from boresight.rewards.relevance import RelevanceReward, hashed, length_incentive, repetition_penalty

VECTORS = {"q": [1.0, 0.0], "closed?": [0.0, 1.0], "answer": [0.6, 0.8]}


def encoder(texts):
    return np.array([VECTORS.get(t, [0.5, 0.5]) for t in texts])


def test_open_questions_multiply_relevance_length_and_variety():
    text = "a b c a b c a"  # trigrams abc bca cab abc bca: 3 different of 5; 7 words
    assert RelevanceReward(encoder).score(["q"], [text]).tolist() == pytest.approx([0.5 * 0.07 * 0.6])
    assert RelevanceReward(encoder, length=False).score(["q"], [text]).tolist() == pytest.approx([0.5 * 0.6])
    assert RelevanceReward(encoder, length=False, repetition=False).score(["q"], [text]).tolist() == [0.5]


def test_closed_questions_ask_for_the_answer_whatever_its_length():
    reward = RelevanceReward(encoder, {"closed?": "answer"}, scale=(2.0, -0.1))
    values = reward.score(["closed?", "closed?", "q"], ["answer", "other", "answer"])
    assert values.tolist() == pytest.approx([2 * 1.0 - 0.1, 2 * 0.7 - 0.1, 0.6 * 0.01])
    with pytest.raises(ValueError, match="no answer is known"):
        RelevanceReward(encoder, closed=lambda p: True).score(["q"], ["x"])


def test_length_and_repetition_at_their_ends():
    assert [length_incentive(t) for t in ("", "a", "a " * 250)] == [0, 0.01, 2.5]
    assert [repetition_penalty(t) for t in ("", "a b", "a b c", "a " * 12)] == [1, 1, 1, 0.1]


def test_hashed_words_are_vectors_of_unit_length():
    vectors = hashed(["the cat sat", "the cat sat", "dogs", ""])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0])
    assert float(vectors[0] @ vectors[1]) == pytest.approx(1)
    assert float(vectors[0] @ vectors[2]) < 0.3
    assert hashed([]).shape == (0, 4096)


def test_a_copied_query_loses_to_an_answer_to_the_point():
    query = "why is the sky blue"
    answer = (
        "the sky is blue because air scatters short waves of light more than long ones so that blue comes from every "
        "side while the red of the sun goes straight on"
    )
    reward, bare = RelevanceReward(), RelevanceReward(length=False, repetition=False)
    texts = [query, answer, " ".join([query] * 6), "we sell cars " + "and other fine things of every kind " * 4]
    values = reward([query] * 4, texts)
    assert values.argmax() == 1
    assert bare([query] * 4, texts).argmax() == 0  # alone, relevance makes a copy the best
    assert reward([(Message("user", query),)], [(Message("assistant", answer),)])[0] == pytest.approx(values[1])
    assert reward([], []).shape == (0,)
