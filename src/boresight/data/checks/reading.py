"""Rows that could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from boresight.data.checks._base import SHOWN, Check, Finding, Kind


class Reading(Check):
    """What the reader skipped, or kept only in part."""

    kinds = (
        Kind(
            "unreadable-rows",
            "error",
            "rows that could not be read",
            "they are not trained on: the data is smaller than its file, and perhaps not at random",
            "mend these rows, or name the format (--format); --strict stops at the first",
            "rows",
        ),
        Kind(
            "partly-read",
            "warning",
            "rows of which part of the feedback could not be read",
            "the rest of the row is used; the missing votes may not be missing at random",
            "mend these rows, or accept that their broken part is left out",
            "rows",
        ),
    )

    def findings(self) -> Iterator[Finding]:
        """Exact counts; the reader keeps the reasons of the first fifty."""
        read = self.setting.read
        if read is None:
            return
        problems = [(f"{p.file}:{p.line}", str(p).partition(": ")[2]) for p in read.problems]
        why = Counter(f"{p.key or 'row'}: expected {p.expected}" for p in read.problems)
        more = {"reasons_of_the_first": dict(why.most_common(5))}
        # The reader tells rows that it skipped and rows read in part in one list: with both, both are shown.
        for id, count in (("unreadable-rows", read.skipped), ("partly-read", read.partial)):
            if count:
                yield self.found(id, count, read.read + read.skipped, examples=problems[:SHOWN], more=more)
