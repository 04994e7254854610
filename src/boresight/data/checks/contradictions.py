"""Verdicts that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Check, Finding, Kind
from boresight.data.checks._columns import Ints, mixed, numbered


class Contradictions(Check):
    """The same two responses compared both ways; the same response labelled both ways."""

    kinds = (
        Kind(
            "reversed-duplicates",
            "error",
            "comparisons that are also there the other way round",
            "the two gradients cancel: the pair costs time, teaches nothing, and holds the accuracy down",
            "find out which one is meant; --fix keeps the majority, and neither where it is even",
        ),
        Kind(
            "annotator-conflicts",
            "warning",
            "comparisons on which named annotators disagree",
            "opposite gradients on the same tokens: such pairs pull the margin towards the log-odds of the votes",
            "keep them for methods that model annotators or noise; else take the majority or leave them out",
        ),
        Kind(
            "conflicting-labels",
            "error",
            "responses that are labelled both desirable and undesirable",
            "the two labels pull the same response up and down at once",
            "find out which one is meant; --fix keeps the majority, and neither where it is even",
            "labels",
        ),
    )

    def findings(self) -> Iterator[Finding]:
        """Each compared item counts once, whatever the number of its votes."""
        votes = self.setting.columns.decided
        items, count = numbered(votes.item)
        if count:
            by_one = contradicted(mixed(votes.item, votes.annotator), votes.up)
            clear = ~np.isin(items, items[by_one])
            between = contradicted(votes.item, votes.up) & clear
            for id, which in (("reversed-duplicates", by_one), ("annotator-conflicts", between)):
                if which.any():
                    yield self.found(id, len(np.unique(items[which])), count, votes.row[which])
        labels = self.setting.columns.labels
        answers, count = numbered(labels["answer"])
        which = contradicted(labels["answer"], labels["desirable"] > 0)
        if which.any():
            yield self.found("conflicting-labels", len(np.unique(answers[which])), count, labels["row"][which])


def contradicted(keys: Ints, up: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which entries share their key with one of the other direction."""
    if not len(keys):
        return np.zeros(0, bool)
    groups, count = numbered(keys)
    ups, downs = np.bincount(groups, up, count), np.bincount(groups, ~up, count)
    return (np.minimum(ups, downs) > 0)[groups]
