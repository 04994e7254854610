"""Baselines that know no model: what a preference accuracy has to beat before it says anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from boresight.data.checks._base import response_text
from boresight.data.example import Example, Response
from boresight.data.views import pairs
from boresight.errors import InputError
from boresight.training.stats import Interval, mean, proportion


def longer_wins(examples: Iterable[Example]) -> Interval:
    """How often the longer response (in characters) is the chosen one; equal lengths count half.

    On hh-helpful: .588 on train, .570 on test. Counting equal lengths as wrong gives .565 on test; the lengths of whole
    dialogues, counted so, are the figures of the data's SOURCE.md, .585 and .563.
    Raises InputError if there are no pairs.
    """
    compared = [(i, len(response_text(c)), len(response_text(r))) for i, c, r in _sides(examples)]
    return _accuracy([c - r for _, c, r in compared], [i for i, _, _ in compared], "the baseline 'longer wins'")


def tfidf_bradley_terry(
    train: Iterable[Example],
    test: Iterable[Example],
    *,
    ngrams: tuple[int, int] = (1, 2),
    min_df: int = 1,
    sublinear: bool = False,
    dialogue: bool = False,
    C: float = 1.0,
) -> Interval:
    """Accuracy on the pairs of `test` of a Bradley-Terry model on TF-IDF features, fitted on the pairs of `train`.

    The log-odds that a response is chosen are w . (features of chosen - features of rejected): a logistic regression
    without intercept. Features are TF-IDF of word n-grams, rows of unit length, over the responses of `train`; with
    `dialogue`, over prompt and response together. min_df: rarest n-gram kept, in responses. sublinear: 1 + log of
    counts. C: inverse strength of the L2 penalty, as scikit-learn counts it. Pairs that score the same count half.

    The defaults are scikit-learn's, with word pairs added; none was chosen by its result. On hh-helpful they give
    .598 on test, and .587 with `dialogue`. Single words, min_df 2 or 5, sublinear counts and C of .1 or 10 all end
    between .57 and .61, which 797 pairs cannot tell apart: the interval is .034 to either side.
    Raises InputError if either side has no pairs, or the training pairs no words.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    fitted, held_out = _texts(train, dialogue), _texts(test, dialogue)
    for rows, name in ((fitted, "training"), (held_out, "test")):
        if not rows:
            raise InputError(f"the {name} data of the TF-IDF baseline has no pairs", mend="give data with preferences")
    words = TfidfVectorizer(ngram_range=ngrams, min_df=min_df, sublinear_tf=sublinear)
    try:
        words.fit([text for _, chosen, rejected in fitted for text in (chosen, rejected)])
    except ValueError:
        raise InputError(
            f"the responses of the training data share no n-gram that occurs in {min_df} of them",
            mend="lower min_df, or give more data",
        ) from None

    def differences(rows: Sequence[tuple[int, str, str]]):  # type: ignore[no-untyped-def]  # a scipy sparse matrix
        return words.transform([c for _, c, _ in rows]) - words.transform([r for _, _, r in rows])

    # Each pair twice, once in either order, since the solver needs two classes; half the C makes up for it.
    x = differences(fitted)
    model = LogisticRegression(C=C / 2, fit_intercept=False, max_iter=2000)
    model.fit(vstack([x, -x]), [1] * len(fitted) + [0] * len(fitted))
    margins = differences(held_out) @ model.coef_[0]
    return _accuracy(margins.tolist(), [i for i, _, _ in held_out], "the TF-IDF baseline")


def _sides(examples: Iterable[Example]) -> Iterable[tuple[int, Response, Response]]:
    """Example number, chosen, rejected of every pair."""
    for i, example in enumerate(examples):
        for pair in pairs(example):
            yield i, example.responses[pair.chosen], example.responses[pair.rejected]


def _texts(examples: Iterable[Example], dialogue: bool) -> list[tuple[int, str, str]]:
    found = []
    for i, example in enumerate(examples):
        before = example.prompt_text + "\n\n" if dialogue else ""
        for _, chosen, rejected in _sides([example]):
            found.append((i, before + response_text(chosen), before + response_text(rejected)))
    return found


def _accuracy(margins: Sequence[float], clusters: Sequence[int], what: str) -> Interval:
    """Share of positive margins, zero counting half; clustered where an example holds more than one pair."""
    if not margins:
        raise InputError(f"{what} needs pairs, and the data has none", mend="give data with preferences")
    right = [0.5 if m == 0 else float(m > 0) for m in margins]
    if len(set(clusters)) == len(clusters):
        return proportion(sum(right), len(right))
    return mean(right, clusters)
