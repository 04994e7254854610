"""Prompts: empty ones, and how often they repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally

MANY = 0.01
"""The share of all rows on one prompt, from which (and from 50 rows) it is told."""


class Prompts(Check):
    """Empty prompts, and single prompts with a large share of the rows."""

    kinds = (
        Kind(
            "empty-prompts",
            "warning",
            "examples without any text in their prompt",
            "the model learns to answer this way whatever is asked",
            "add the prompts; answers alone are enough to rank systems, and for little else",
            "examples",
        ),
        Kind(
            "crowded-prompts",
            "note",
            "rows on prompts that each have more than one row in a hundred (and fifty at least)",
            "few prompts dominate the gradient; rows of one prompt are no independent evidence",
            "cap the rows of a prompt, or weigh them down; split train and test by prompt",
            "examples",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.empty = Tally()

    def look(self, row: Looked) -> None:
        """A prompt of white space is empty too."""
        prompt = row.example.prompt
        if not (prompt.strip() if isinstance(prompt, str) else any(m.content.strip() for m in prompt)):
            self.empty.add(row.index)

    def findings(self) -> Iterator[Finding]:
        """The two kinds."""
        prompts = self.setting.columns.prompts
        yield from self.tallied("empty-prompts", self.empty, len(prompts))
        _, place, counts = np.unique(prompts, return_inverse=True, return_counts=True)
        large = counts >= max(50, MANY * len(prompts))
        if large.any() and self.empty.count < len(prompts):
            rows = np.flatnonzero(large[place])
            more = {"prompts": int(large.sum()), "largest": int(counts.max())}
            yield self.found("crowded-prompts", len(rows), len(prompts), rows, more=more)

    def facts(self) -> dict[str, Any]:
        """How many different prompts there are."""
        return {"prompts": len(np.unique(self.setting.columns.prompts))}
