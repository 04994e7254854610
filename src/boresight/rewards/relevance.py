"""A reward without preferences: relevance by a retriever, regularised by length and repetition (R3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from boresight.paper import paper
from boresight.rewards.base import Content, Reward, Values, last_text

Encoder = Callable[[Sequence[str]], Values]
Closed = Callable[[str], bool]
WORDS_OF_ONE = 100
"""Words at which the length incentive is 1."""


def hashed(texts: Sequence[str]) -> Values:
    """Vectors of texts without a model: hashed words and pairs of words, of unit length, (texts, 4096); 0 for none.

    A stand-in where no retriever is at hand: it knows shared words and no meaning.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    made = HashingVectorizer(n_features=4096, ngram_range=(1, 2), alternate_sign=False, norm="l2")
    vectors: Values = made.transform(list(texts)).toarray() if len(texts) else np.zeros((0, 4096))
    return vectors


def length_incentive(text: str) -> float:
    """Words over 100."""
    return len(text.split()) / WORDS_OF_ONE


def repetition_penalty(text: str) -> float:
    """Different trigrams of words over all of them, in (0, 1]; 1 for a text with fewer than three words."""
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


@paper("r3-relevance-reward")
class RelevanceReward(Reward):
    """Relevance to the query times length and variety for open questions; to a known answer for closed ones.

    open: M(query) . M(response) * words / 100 * repetition penalty. closed: rescaled M(answer) . M(response) *
    repetition penalty. The product keeps each from being had alone: a copied query is relevant and short, a long
    ramble is long and off the point, one sentence said ten times repeats itself.
    encoder: texts -> (texts, dimensions), the unsupervised retriever (the paper's is Contriever). answers: prompt ->
    its known answer. closed: which prompts are closed questions; those with an answer by default. scale: (factor,
    shift) that bring relevance to answers to the range of the other.
    Source: Kim et al. 2024, Preference-free alignment learning with regularized relevance reward, section 3; the
    formula as a published reading note gives it, the rescaling being linear here.
    """

    def __init__(
        self,
        encoder: Encoder = hashed,
        answers: dict[str, str] | None = None,
        *,
        closed: Closed | None = None,
        scale: tuple[float, float] = (1.0, 0.0),
        length: bool = True,
        repetition: bool = True,
    ) -> None:
        self.encoder, self.answers, self.scale = encoder, answers or {}, scale
        self.length, self.repetition = length, repetition
        self._closed = closed or (lambda prompt: prompt in self.answers)

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,). Raises ValueError for a closed question without an answer."""
        asked, given = [last_text(p) for p in prompts], [last_text(r) for r in responses]
        closed = [self._closed(p) for p in asked]
        for prompt, is_closed in zip(asked, closed, strict=True):
            if is_closed and prompt not in self.answers:
                raise ValueError(f"no answer is known to the closed question {prompt[:60]!r}")
        wanted = [self.answers[p] if c else p for p, c in zip(asked, closed, strict=True)]
        unique = list(dict.fromkeys([*wanted, *given]))
        vectors = dict(zip(unique, self.encoder(unique), strict=True))
        values = np.array([float(vectors[w] @ vectors[g]) for w, g in zip(wanted, given, strict=True)])
        factor, shift = self.scale
        for i, (text, is_closed) in enumerate(zip(given, closed, strict=True)):
            if is_closed:
                values[i] = factor * values[i] + shift
            elif self.length:
                values[i] *= length_incentive(text)
            if self.repetition:
                values[i] *= repetition_penalty(text)
        return values
