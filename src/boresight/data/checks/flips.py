"""How many verdicts may be wrong: from items judged twice, and from a model that reads the words."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Check, Finding, Kind, response_text
from boresight.data.checks._columns import numbered, share_of
from boresight.stats import Interval, mean, proportion

SAMPLE = 4000
"""Pairs that are read again for the model of words."""
LEAST = 200
"""Pairs below which no model is fitted."""
FOLDS = 5
SUREST = 0.2
"""Share of the pairs that the estimate rests on. Picked among 5, 10, 20 and 40% on data of the lab with 0, 10, 20 and
30% of flipped labels and 2,000 pairs, where it gave .01, .09, .20 and .30 (so that this match is partly in-sample);
confident learning gave .06, .15, .27 and .37."""
USEFUL, GOOD = 0.55, 0.65
"""Held-out accuracy from which what the model contradicts is worth a note, and from which a warning: below, its own
errors may be all there is."""
NOISY = 0.1
REPEATED = 30
"""Items judged by two or more, below which nothing is said of them."""


class Flips(Check):
    """Two estimates, each with what it assumes."""

    kinds = (
        Kind(
            "disagreeing-votes",
            "warning",
            "share of votes that are turned over, if annotators err independently and alike",
            "the loss is driven by the wrong labels late in training; held-out accuracy ends at one less this share",
            "use a method for noisy labels (rdpo-robust, or dpo with label_smoothing) with this rate",
            "votes",
        ),
        Kind(
            "suspect-labels",
            "warning",
            "labels that a model of words contradicts, in the fifth of the pairs of which it is surest",
            "if these labels are wrong, the most informative pairs push the wrong way",
            "read the rows shown; use a method for noisy labels, or relabel the most suspect rows",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.told: dict[str, Any] = {}

    def findings(self) -> Iterator[Finding]:
        """A warning only where the whole interval lies above a tenth."""
        yield from self._from_votes()
        yield from self._from_words()

    def _from_votes(self) -> Iterator[Finding]:
        """Two votes on one item differ with probability 2e(1 - e), e being the rate of flips."""
        votes = self.setting.columns.decided
        votes = votes.take(votes.annotator >= 0)
        items, count = numbered(votes.item)
        if not count:
            return
        size, ups = np.bincount(items, minlength=count), np.bincount(items, votes.up, count)
        shared = size >= 2
        if shared.sum() < REPEATED:
            return
        m, a = size[shared], ups[shared]
        differ = 2 * a * (m - a) / (m * (m - 1))
        observed = mean(differ)
        value, low, high = (_flips(p) for p in (observed.value, observed.low, observed.high))
        rate = Interval(value, low, high, int(size[shared].sum()))
        self.told["flip_rate_from_votes"] = rate.to_dict() | {"items": int(shared.sum())}
        if rate.low > NOISY:
            rows = votes.row[((ups > 0) & (ups < size))[items]]
            yield self.found("disagreeing-votes", round(rate.value * rate.n), rate.n, rows, share=rate)

    def _from_words(self) -> Iterator[Finding]:
        """Where a held-out model is sure and mostly right, what contradicts it is mostly the label.

        The share of contradicted labels among the surest pairs is the rate of flips plus the model's own errors there,
        so an upper estimate; the model's error over all pairs is a sure bound, if fewer than half are flipped.
        """
        sample = self._sample()
        if len(sample) < LEAST:
            return
        votes = self.setting.columns.decided
        prompts = numbered(votes.prompt[sample])[0]
        probability, fitted = _predicted(self._texts(sample), prompts)
        if not fitted:
            return
        accuracy = share_of(np.sign(probability - 0.5), prompts)
        order = np.argsort(-np.abs(probability - 0.5), kind="stable")[: round(SUREST * len(sample))]
        against = order[probability[order] < 0.5]
        share = share_of(np.where(probability[order] < 0.5, 1, -1), prompts[order])
        suspect, sure = confident(probability)
        self.told["word_model"] = accuracy.to_dict()
        if not accuracy.low > 0.5:
            return  # it cannot tell the sides apart, and so says nothing of flips
        self.told["flip_rate_from_words_at_most"] = share.to_dict() | {"surely_at_most": 1 - accuracy.low}
        self.told["flip_rate_by_confident_learning"] = proportion(int(suspect.sum()), int(sure.sum())).to_dict()
        if share.low > NOISY and accuracy.low > USEFUL:
            rows = votes.row[sample][against]
            yield self.found(
                "suspect-labels",
                len(against),
                len(order),
                rows,
                share=share,
                show=rows[:3],
                severity="warning" if accuracy.low > GOOD else "note",
                more={"word_model": accuracy.to_dict(), "sampled": len(sample)},
            )

    def _sample(self) -> NDArray[np.int64]:
        """Places among the decided votes: one for each item, at most SAMPLE of them."""
        votes = self.setting.columns.decided
        first = np.unique(votes.item, return_index=True)[1]
        first = np.sort(first[votes.better[first] != votes.worse[first]])
        if len(first) > SAMPLE:
            first = np.sort(np.random.default_rng(self.setting.seed).choice(first, SAMPLE, replace=False))
        return first

    def _texts(self, sample: NDArray[np.int64]) -> list[tuple[str, str]]:
        """The two texts of each sampled vote, the better one first, read once more."""
        from boresight.data.views import pairs

        votes = self.setting.columns.decided
        texts = []
        for row, place in zip(votes.row[sample], votes.place[sample], strict=True):
            example = self.setting.examples[int(row)]
            pair = (example.pairs or pairs(example))[int(place)]
            texts.append(tuple(response_text(example.responses[i]) for i in (pair.chosen, pair.rejected)))
        return texts  # type: ignore[return-value]

    def facts(self) -> dict[str, Any]:
        """Both estimates, whether or not they are findings."""
        return self.told


def confident(probability: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pairs a model confidently contradicts, and which it is confident about at all.

    probability: of the label as given, predicted without having seen it, (pairs,). With two classes that mirror each
    other, the threshold of confident learning is one number: the mean probability of the given label.
    Source: Northcutt et al. 2021, Confident Learning, eq. 2 (the confident joint).
    """
    threshold = max(float(probability.mean()), 0.5)
    suspect = 1 - probability >= threshold
    return suspect, suspect | (probability >= threshold)


def _predicted(texts: list[tuple[str, str]], prompts: NDArray[np.int64]) -> tuple[NDArray[np.float64], bool]:
    """For each pair the probability that its label is right, by a model fitted on pairs of other prompts."""
    from scipy.sparse import hstack, vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(min_df=2, max_features=20_000, sublinear_tf=True)
    try:
        words = vectorizer.fit_transform([text for pair in texts for text in pair])
    except ValueError:  # no word occurs twice
        return np.full(len(texts), 0.5), False
    length = np.array([[np.log((1 + len(a)) / (1 + len(b)))] for a, b in texts])
    x = hstack([words[0::2] - words[1::2], length]).tocsr()
    group, count = numbered(prompts)
    if count < 2 * FOLDS:
        return np.full(len(texts), 0.5), False
    fold = np.random.default_rng(0).permutation(count)[group] % FOLDS
    probability = np.full(len(texts), 0.5)
    for k in range(FOLDS):
        train = x[fold != k]
        model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=300, tol=1e-3)
        with threadpool_limits(1):  # so small a problem only waits for more threads
            model.fit(vstack([train, -train]), np.repeat([1, 0], train.shape[0]))
        probability[fold == k] = model.predict_proba(x[fold == k])[:, 1]
    return probability, True


def _flips(differ: float) -> float:
    """The rate e of flips at which two votes differ with this probability."""
    return (1 - sqrt(1 - 2 * min(max(differ, 0.0), 0.5))) / 2
