"""Feedback that prefers nothing, or that disagrees with itself."""

from __future__ import annotations

from collections.abc import Iterator

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally
from boresight.data.views import mean_scores


class Feedback(Check):
    """Ties, examples without feedback, labels of one kind only, scores that disagree with the pair beside them."""

    kinds = (
        Kind(
            "ties",
            "note",
            "comparisons that are ties",
            "methods on pairs leave them out; they still say that both responses are about as good",
            "nothing, unless they are many: then the pairs were drawn too much alike, or the annotators in haste",
        ),
        Kind(
            "no-feedback",
            "note",
            "examples without any feedback, among others that have some",
            "methods that learn from feedback leave them out",
            "nothing, if they are meant as demonstrations; else look at how they were made",
            "examples",
        ),
        Kind(
            "one-sided-labels",
            "warning",
            "labels that are all of one kind",
            "methods on labels (KTO, BCO) set desirable against undesirable: with one kind they have no contrast",
            "add responses of the other kind, or use sft on the desirable ones",
            "labels",
        ),
        Kind(
            "score-disagrees",
            "warning",
            "pairs whose rejected response has the higher score",
            "methods that use pairs and scores together are told opposite things; one of them is wrong",
            "find out whether pairs or scores are meant; the other way round throughout, a column is swapped",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.ties, self.bare, self.against = Tally(), Tally(), Tally()
        self.examples = self.pairs = self.scored = self.desirable = self.undesirable = 0

    def look(self, row: Looked) -> None:
        """Count the feedback of a row."""
        example = row.example
        self.examples += 1
        self.pairs += len(example.pairs)
        ties = sum(p.tie for p in example.pairs)
        if ties:
            self.ties.add(row.index, count=ties)
        good = sum(label.desirable for label in example.labels)
        self.desirable += good
        self.undesirable += len(example.labels) - good
        if not (example.pairs or example.scores or example.labels or example.ranks):
            self.bare.add(row.index)
        if example.pairs and example.scores:
            worth = mean_scores(example)
            for pair in row.pairs:
                if pair.chosen in worth and pair.rejected in worth:
                    self.scored += 1
                    if worth[pair.chosen] < worth[pair.rejected]:
                        gap = f"{worth[pair.chosen]:g} against {worth[pair.rejected]:g}"
                        self.against.add(row.index, gap)

    def findings(self) -> Iterator[Finding]:
        """The four kinds."""
        yield from self.tallied("ties", self.ties, self.pairs)
        if self.bare.count < self.examples:
            yield from self.tallied("no-feedback", self.bare, self.examples)
        labels = self.desirable + self.undesirable
        if labels > 1 and not (self.desirable and self.undesirable):
            word = "desirable" if self.desirable else "undesirable"
            yield self.found("one-sided-labels", labels, labels, (), title=f"labels that are all {word}")
        yield from self.tallied("score-disagrees", self.against, self.scored)
