"""Pairs that compare a text with itself."""

from __future__ import annotations

from collections.abc import Iterator

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally


class Identical(Check):
    """The two sides are the same text, or the same but for white space."""

    kinds = (
        Kind(
            "identical-pairs",
            "error",
            "pairs with the same text on both sides",
            "their margin is zero for ever: loss 0.693, no gradient, and accuracy counts them as coin tosses",
            "leave them out (--fix does)",
        ),
        Kind(
            "space-only-difference",
            "warning",
            "pairs whose sides differ in white space alone",
            "the model learns a preference for blanks or line breaks, which nobody meant",
            "leave them out, or strip the responses and look again",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.same, self.space, self.total = Tally(), Tally(), 0

    def look(self, row: Looked) -> None:
        """Compare the sides of each pair, ties included."""
        own = row.example.pairs
        for pair in own or row.pairs:
            self.total += 1
            if row.keys[pair.chosen] == row.keys[pair.rejected]:
                self.same.add(row.index)
                continue
            a, b = row.texts[pair.chosen], row.texts[pair.rejected]
            # Equal texts but for blanks begin with the same letter: most pairs are told apart by that.
            if a.lstrip()[:1] == b.lstrip()[:1] and abs(len(a) - len(b)) < 100 and a.split() == b.split():
                self.space.add(row.index)

    def findings(self) -> Iterator[Finding]:
        """Both kinds."""
        yield from self.tallied("identical-pairs", self.same, self.total)
        yield from self.tallied("space-only-difference", self.space, self.total)
