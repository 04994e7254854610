"""What became of the data on its way to training rows: nothing is left out without being counted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

REASONS = {
    "no-feedback": "examples without the feedback that these rows are made of",
    "tie": "pairs that are ties and prefer neither side",
    "empty-response": "rows with an empty response",
    "identical": "pairs whose two responses are the same tokens",
    "identical-after-truncation": "pairs whose two responses became the same tokens when they were cut",
    "too-long": "rows that do not fit into max_length",
    "template": "rows that the chat template refuses",
    "no-such-turn": "rows in which a turn to train on is missing",
    "no-scores": "rows whose responses have no scores",
    "no-steps": "rows of which a step has no score",
    "no-mismatch": "rows for which the prompt drawn for the mismatched sequence cannot be used",
}
"""Why a row was not made."""

SHOWN = 3


@dataclass
class RowsReport:
    """Counts over a data set.

    kind: pairs, responses or lists. examples: how many were looked at. made: rows. dropped: how many by reason
    (`REASONS`). first: for each reason the sources of the first few, with details. renderer: `Renderer.describe()`.
    The following count sequences (a pair has two; mismatched ones are left out): cut_prompts and cut_answers by
    truncation; endless without an end-of-turn; seams with a token across the seam of prompt and response;
    out_of_context where generation would start from another text than training shows, other_start where it would start
    from other tokens; special_text whose data
    contains the text of a special token; bos by the number of BOS at the beginning.
    cut_mismatched: mismatched sequences whose prompt was cut to fit. lengths: quantiles in tokens.
    tokens: of all sequences together.
    marked: for each of these the sources of the first few examples in which it occurs.
    """

    kind: str = "pairs"
    examples: int = 0
    made: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    cut_prompts: int = 0
    cut_answers: int = 0
    cut_mismatched: int = 0
    endless: int = 0
    seams: int = 0
    out_of_context: int = 0
    other_start: int = 0
    special_text: int = 0
    bos: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, dict[str, float]] = field(default_factory=dict)
    tokens: int = 0
    marked: dict[str, list[str]] = field(default_factory=dict)
    renderer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RowsReport:
        """The report that `to_dict` made the dictionary of."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    def drop(self, reason: str, source: str, detail: str = "", count: int = 1) -> None:
        """Count a row that is not made."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        shown = self.first.setdefault(reason, [])
        if len(shown) < SHOWN:
            shown.append(f"{source}: {detail}" if detail else source)

    def mark(self, name: str, source: str) -> None:
        """Remember where something that is counted occurs, for the first few examples."""
        shown = self.marked.setdefault(name, [])
        if len(shown) < SHOWN and source not in shown:
            shown.append(source)

    def measure(self, prompts: list[int], responses: list[int]) -> None:
        """Fill in the quantiles from the lengths of all sequences."""
        totals = [p + r for p, r in zip(prompts, responses, strict=True)]
        self.tokens = sum(totals)
        named = {"prompt": prompts, "response": responses, "sequence": totals}
        self.lengths = {name: quantiles(values) for name, values in named.items()}

    def reasons(self) -> list[str]:
        """One line for each reason that something was left out."""
        return [f"left out: {self.reason(name)}" for name in sorted(self.dropped, key=lambda n: -self.dropped[n])]

    def reason(self, name: str) -> str:
        """One reason with its count and the first few sources."""
        return f"{REASONS.get(name, name)}: {self.dropped[name]} (first: {'; '.join(self.first.get(name, []))})"

    def warnings(self) -> list[str]:
        """One line for each thing that may be wrong in the rows that were made."""
        counted = [
            ("answers without an end-of-turn, behind which the model does not learn to stop", self.unfinished),
            ("answers that were cut; none of them was given an end-of-turn", self.cut_answers),
            ("answers trained behind another context than generation starts from", self.out_of_context),
            ("sequences before which generation starts from other tokens of the same text", self.torn),
            ("sequences whose data holds the text of a special token, which became that token", self.special_text),
            ("sequences that begin with more than one BOS", sum(n for k, n in self.bos.items() if int(k) > 1)),
        ]
        return [f"{what}: {count}" for what, count in counted if count]

    @property
    def torn(self) -> int:
        """other_start, where it is the rule: now and then a token lies across the seam in any data."""
        other, sequences = self.other_start - self.out_of_context, sum(self.bos.values())
        return other if 2 * other > sequences else 0

    @property
    def unfinished(self) -> int:
        """Sequences without an end-of-turn that were not cut either."""
        return self.endless - self.cut_answers

    def facts(self) -> list[str]:
        """What was made and how long it is, in words."""
        lines = [f"training rows ({self.kind}): {self.made:,}, made of {self.examples:,} examples"]
        if self.lengths:
            length, answer = self.lengths["sequence"], self.lengths["response"]
            lines.append(
                f"tokens a sequence: median {length['median']:.0f}, 99% up to {length['p99']:.0f}, most "
                f"{length['max']:.0f}; of the response: median {answer['median']:.0f}, most {answer['max']:.0f}"
            )
        counted = [
            ("prompts cut from the left", self.cut_prompts),
            ("mismatched sequences whose prompt was cut to fit", self.cut_mismatched),
            ("sequences with a token across the seam of prompt and response (it is trained on)", self.seams),
        ]
        notes = [f"note: {n}" for n in self.renderer.get("notes", [])]
        return lines + [f"{what}: {count}" for what, count in counted if count] + notes

    def lines(self) -> list[str]:
        """The whole report in words."""
        return [*self.facts(), *self.reasons(), *(f"note: {w}" for w in self.warnings())]


def quantiles(values: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """min, median, p90, p99 and max; empty without values."""
    if not len(values):
        return {}
    at = np.quantile(np.asarray(values), [0, 0.5, 0.9, 0.99, 1])
    return dict(zip(("min", "median", "p90", "p99", "max"), map(float, at), strict=True))
