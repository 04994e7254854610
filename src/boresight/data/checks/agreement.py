"""How far annotators agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Check, Finding, Kind
from boresight.data.checks._columns import Ints, Votes, numbered
from boresight.stats import Interval, proportion

RELIABLE = 0.667
"""Below this alpha Krippendorff would draw no conclusion (Content Analysis, 2004, section 11.4)."""
RESAMPLES = 500
LISTED = 20
"""How many annotators are listed, those with most votes first."""
LEAST = 20
"""Shared votes that an annotator must have to be judged."""

Counts = NDArray[np.float64]


class Agreement(Check):
    """Krippendorff's alpha over everything that two or more named annotators judged, and each annotator's rates."""

    kinds = (
        Kind(
            "low-agreement",
            "warning",
            f"Krippendorff's alpha of the annotators lies below {RELIABLE}",
            "much of what would be learned is who annotated, or chance: accuracy cannot rise above their agreement",
            "ask for more votes on each item and take the majority; look at the guideline",
            "items",
        ),
        Kind(
            "odd-annotators",
            "warning",
            "annotators who agree with the others much less than the rest do, or nearly always choose the same place",
            "their votes are noise, or another task, with the same weight as all others",
            "look at their votes; leave them out or weigh them down",
            "annotators",
        ),
    )

    alpha: Interval | None = None
    listed: tuple[dict[str, Any], ...] = ()

    def findings(self) -> Iterator[Finding]:
        """Nothing where no two annotators are named."""
        columns = self.setting.columns
        names = columns.annotators
        pairs = columns.votes.take(columns.votes.annotator >= 0)
        labels = {k: v[columns.labels["annotator"] >= 0] for k, v in columns.labels.items()}
        if len(names) < 2:
            return
        by_pairs = len(pairs) >= len(labels["row"])
        keys = pairs.item if by_pairs else labels["answer"]
        verdict = np.where(pairs.tie, 2, pairs.up).astype(np.int64) if by_pairs else labels["desirable"]
        annotator, row = (pairs.annotator, pairs.row) if by_pairs else (labels["annotator"], labels["row"])
        items, count = numbered(keys)
        table = np.zeros((count, 3))
        np.add.at(table, (items, verdict), 1)
        shared = table.sum(1) >= 2
        if shared.any():
            self.alpha = alpha(table[shared], mirrored=by_pairs, seed=self.setting.seed)
            if self.alpha.high < RELIABLE:
                title = f"Krippendorff's alpha of the annotators, below {RELIABLE}"
                split = np.flatnonzero((np.minimum(table, 1).sum(1) > 1)[items])
                yield self.found(
                    "low-agreement", int((np.minimum(table, 1).sum(1) > 1).sum()), int(shared.sum()), row[split],
                    share=self.alpha, title=title,
                )  # fmt: skip
        yield from self._annotators(table, items, verdict, annotator, row, pairs if by_pairs else None)

    def _annotators(
        self, table: Counts, items: Ints, verdict: Ints, annotator: Ints, row: Ints, pairs: Votes | None
    ) -> Iterator[Finding]:
        """Each one's votes, agreement with each other vote on the same items, and choice of the first place."""
        others = table.sum(1)[items] - 1
        agree = np.where(others > 0, (table[items, verdict] - 1) / np.maximum(others, 1), 0.0)
        number = len(self.setting.columns.annotators)
        votes = np.bincount(annotator, minlength=number)
        shared = np.bincount(annotator, others > 0, number)
        agreed = np.bincount(annotator, agree, number)
        # Over ordered pairs of votes on an item: how many there are and agree, in all and with each annotator.
        pairings, agreeing = (others.sum(), (table[items, verdict] - 1).sum())
        with_a, agree_a = (
            np.bincount(annotator, others, number),
            np.bincount(annotator, table[items, verdict] - 1, number),
        )
        first, decided, ties = (np.zeros(number, np.int64) for _ in range(3))
        if pairs is not None:
            decided = np.bincount(annotator[~pairs.tie], minlength=number)
            first = np.bincount(annotator[~pairs.tie & pairs.first], minlength=number)
            ties = np.bincount(annotator[pairs.tie], minlength=number)
        # One place for all pairs says nothing where the data lists the chosen response first.
        placed = pairs is not None and 0.02 < first.sum() / max(decided.sum(), 1) < 0.98
        judged, odd = int((shared >= LEAST).sum()), []
        confidence = 1 - 0.01 / max(judged, 1)  # for all annotators together
        listed = []
        for a in np.argsort(-votes, kind="stable"):
            about = {"annotator": self.setting.columns.annotators[a], "votes": int(votes[a]), "ties": int(ties[a])}
            if shared[a]:
                about["agrees_with_others"] = proportion(min(agreed[a], shared[a]), int(shared[a])).to_dict()
            if placed and decided[a]:
                about["chose_the_first"] = proportion(first[a], int(decided[a])).to_dict()
            listed.append(about)
            rest = pairings - 2 * with_a[a]
            own = proportion(min(agreed[a], shared[a]), int(shared[a]), confidence)
            low = shared[a] >= LEAST and rest >= LEAST and own.high < (agreeing - 2 * agree_a[a]) / rest - 0.1
            one = proportion(first[a], int(decided[a]), confidence)
            stuck = placed and decided[a] >= LEAST and (one.low > 0.8 or one.high < 0.2)
            if low or stuck:
                odd.append(int(a))
        self.listed = tuple(listed[:LISTED])
        if odd:
            more = {"annotators": [x for x in listed if self.setting.columns.annotators.index(x["annotator"]) in odd]}
            rows = row[np.isin(annotator, odd)]
            yield self.found("odd-annotators", len(odd), judged or len(votes), rows, more=more)

    def facts(self) -> dict[str, Any]:
        """Alpha, unless all votes are of one value, and the annotators with most votes."""
        names = self.setting.columns.annotators
        found: dict[str, Any] = {"annotators": len(names)} if names else {}
        if self.alpha is not None and not np.isnan(self.alpha.value):
            found["krippendorff_alpha"] = self.alpha.to_dict()
        if self.listed:
            found["by_annotator"] = list(self.listed)
        return found


def alpha(table: Counts, *, mirrored: bool = False, seed: int = 0) -> Interval:
    """Krippendorff's alpha for nominal values, with a bootstrap interval over items; `n` counts the items.

    table: (items, values), how many annotators gave each value; items with one annotator are left out. mirrored: the
    first two values are the two sides of a comparison, in no order that means anything: every item counts in both
    orders, so that alpha does not depend on how sides were named.
    Where all votes are of one value there is nothing to agree on: the value is nan, the interval [-1, 1].
    Source: Krippendorff 2004, Content Analysis, chapter 11; alpha = 1 - observed / expected disagreement.
    """
    table = table[table.sum(1) >= 2].astype(float)
    if mirrored:
        flipped = table.copy()
        flipped[:, [0, 1]] = table[:, [1, 0]]
    size = table.sum(1)
    disagreement = (size**2 - (table**2).sum(1)) / np.maximum(size - 1, 1)

    def value(weight: Counts) -> float:
        totals = weight @ table
        if mirrored:
            totals = totals + weight @ flipped
        n = totals.sum()
        expected = n**2 - (totals**2).sum()
        if expected <= 0:
            return float("nan")
        observed = (2 if mirrored else 1) * float(weight @ disagreement)
        return 1 - (n - 1) * observed / float(expected)

    count = len(table)
    centre = value(np.ones(count))
    if np.isnan(centre):
        return Interval(centre, -1.0, 1.0, count)
    random = np.random.default_rng(seed)
    drawn = [
        value(np.bincount(random.integers(0, count, count), minlength=count).astype(float)) for _ in range(RESAMPLES)
    ]
    known = [v for v in drawn if not np.isnan(v)]
    low, high = np.quantile(known, [0.025, 0.975]) if count > 1 and known else (-1.0, 1.0)
    return Interval(centre, min(float(low), centre), max(float(high), centre), count)
