"""The same feedback more than once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from boresight.data.checks._base import Check, Finding, Kind
from boresight.data.checks._columns import Columns, Ints, mixed, repeats


class Duplicates(Check):
    """Copies: the same prompt, responses and verdict, by the same annotator or by none named."""

    kinds = (
        Kind(
            "duplicate-rows",
            "warning",
            "copies of what is there already",
            "they count double in the loss and are memorised first; split over train and test they leak",
            "keep one of each (--fix does); if repetition is meant, say so with a weight",
            "entries",
        ),
    )

    def findings(self) -> Iterator[Finding]:
        """Copies beyond the first of each: of pairs, of labels, and of examples that have neither."""
        found = copied(self.setting.columns)
        rows = np.concatenate([rows[copies] for rows, copies in found])
        if len(rows):
            yield self.found("duplicate-rows", len(rows), sum(len(entries) for entries, _ in found), rows)


def copied(columns: Columns) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints], tuple[Ints, Ints]]:
    """For own pairs, for labels, and for whole examples: (row of each entry, places of entries that are copies).

    Whole examples are those without pairs and labels of their own: with ranks or scores, or, in data without any
    feedback, with nothing but responses.
    """
    votes, labels = columns.votes, columns.labels
    own = votes.take(votes.own)
    direction = np.where(own.tie, 2, own.up).astype(np.int64)
    judged = mixed(labels["answer"], labels["annotator"], labels["desirable"])
    meant = columns.told if columns.told.any() else ~columns.told
    others = np.setdiff1d(np.flatnonzero(meant), np.concatenate([own.row, labels["row"]]))
    return (
        (own.row, repeats(mixed(own.item, direction, own.annotator))),
        (labels["row"], repeats(judged)),
        (others, repeats(columns.wholes[others])),
    )
