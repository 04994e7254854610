"""What features are worth on prompts that nothing was fitted on: log-loss and accuracy, beside length and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.judging.explain_fit import folds, logistic, losses, rights, root_mean_square
from boresight.judging.explain_pairs import Compared
from boresight.stats import Interval, mean, paired_difference

Floats = NDArray[np.float64]
Margins = Callable[[Compared, Compared], Floats]
"""What a model fitted on the first says of the second: margins (n,)."""

CHANCE, LENGTH, FEATURES, WORDS = "chance", "length alone", "features", "words (TF-IDF)"


@dataclass(frozen=True)
class Held:
    """A model's held-out log-loss (nats) and accuracy, and how they differ from those of length alone.

    better: its loss less that of length alone (below 0 is better), and p of that being 0. Intervals are clustered on
    prompts, or on pairs of responses where prompts are few.
    """

    model: str
    loss: Interval
    accuracy: Interval
    better: Interval | None
    p: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "log_loss": self.loss.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "less_than_length": None if self.better is None else self.better.to_dict(),
            "p": self.p,
        }


def of_columns(columns: NDArray[np.int64] | slice, penalty: float = 1.0) -> Margins:
    """A logistic regression on some features, standardised on what it is fitted on."""

    def margins(fit: Compared, test: Compared) -> Floats:
        x = fit.x[:, columns]
        scale = root_mean_square(x, fit.weight)
        scale = np.where(scale > 0, scale, inf)  # what never differed there says nothing here
        return np.asarray(test.x[:, columns] / scale @ logistic(x / scale, fit.y, fit.weight, penalty=penalty))

    return margins


def of_words(fit: Compared, test: Compared) -> Floats:
    """Bradley-Terry on TF-IDF of single words, known from what it is fitted on; 0 where there are none."""
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    settled = [t for t, y in zip(fit.texts, fit.y, strict=True) if y != 0.5]
    words = TfidfVectorizer(sublinear_tf=True)
    try:
        words.fit([text for _, a, b in settled for text in (a, b)])
    except ValueError:
        return np.zeros(len(test))

    def differences(texts: list[tuple[str, str, str]]) -> Any:
        return words.transform([a for _, a, _ in texts]) - words.transform([b for _, _, b in texts])

    x = differences(settled)
    # Each pair in both orders, since the solver needs two classes; half the C makes up for it.
    model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=2000)
    model.fit(vstack([x, -x]), [1] * len(settled) + [0] * len(settled))
    return np.asarray(differences(test.texts) @ model.coef_[0], np.float64)


def held_out(
    pairs: Compared, models: Mapping[str, Margins], *, count: int = 5, seed: int = 0, base: str = LENGTH
) -> list[Held]:
    """Each model on folds of prompts that it was not fitted on, after chance, whose margin is always 0.

    No list where all pairs have one prompt: nothing can be held out then. base: the model that others are compared
    with.
    """
    fold = folds(pairs.prompt, count, seed)
    if not len(pairs) or fold.max() == 0:
        return []
    margins = {CHANCE: np.zeros(len(pairs)), **{name: np.zeros(len(pairs)) for name in models}}
    for k in range(int(fold.max()) + 1):
        fit, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        kept, tested = pairs.take(fit), pairs.take(out)
        for name, model in models.items():
            margins[name][out] = model(kept, tested)
    clusters = pairs.clusters
    found, against = [], losses(margins[base], pairs.y) if base in margins else None
    for name, m in margins.items():
        loss, right = losses(m, pairs.y), rights(m, pairs.y)
        better = None if against is None or name == base else paired_difference(loss, against, clusters)
        p = None if better is None else _p(better, clusters)
        found.append(Held(name, mean(loss, clusters), mean(right, clusters), better, p))
    return found


def _p(interval: Interval, clusters: NDArray[np.int64]) -> float:
    """Two-sided p of the mean behind a 95% t interval being 0."""
    from scipy.stats import t

    freedom = len(np.unique(clusters)) - 1
    if freedom < 1 or not np.isfinite(interval.high - interval.low):
        return 1.0
    error = (interval.high - interval.low) / 2 / t.ppf(0.975, freedom)
    if error <= 1e-15:
        return 1.0 if interval.value == 0 else 0.0
    return float(2 * t.sf(abs(interval.value) / error, freedom))
