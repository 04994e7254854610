"""Responses that say nothing: empty ones, refusals, stubs; and those that are far too long."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally
from boresight.stats import proportion

_NOT = r"(?:can['’]?t|cannot|can not|unable|not able|won['’]?t)"
_DO = r"(?:help|assist|do that|provide|answer|comply|fulfill|discuss|engage)"
REFUSAL = re.compile(
    rf"(?:i['’]?m sorry|i am sorry|sorry)[,.;:]?(?: but)?[^.!?\n]{{0,40}}?\b{_NOT}"
    r"|(?:i['’]?m sorry|i am sorry)[,.] but\b"
    rf"|i (?:can['’]?t|cannot|can not|won['’]?t|will not) {_DO}"
    rf"|i['’]?m (?:not able|unable) to {_DO}"
    r"|i must (?:decline|refuse)"
    rf"|as an? (?:ai|artificial intelligence|language model)\b[^.!?\n]{{0,60}}\b(?:{_NOT}|do not|don['’]?t)"
)
"""How a refusal begins, in lower case; English only."""

_STUBS = r"n/a|na|none|null|nan|nil|undefined|error|todo|tbd|-|\.|\.\.\.|\?|\[deleted\]|\[removed\]|<empty>"
STUB = re.compile(_STUBS, re.IGNORECASE)
LONG, LONG_LINE = 50_000, 10_000
MANY = 0.05
"""The share of preferred responses from which refusals are a warning."""


class Responses(Check):
    """Looks at each response by itself."""

    kinds = (
        Kind(
            "empty-responses",
            "error",
            "responses without any text",
            "the model would learn to say nothing; rows with one are left out of training",
            "leave them out (--fix does), or look at why the writer gave nothing",
            "responses",
        ),
        Kind(
            "placeholder-responses",
            "warning",
            "responses that are nothing but a stub such as N/A, null or [deleted]",
            "the stub is trained on as an answer like any other",
            "leave these rows out, or fetch the real text",
            "responses",
        ),
        Kind(
            "refusals",
            "note",
            "responses that refuse (known by how they begin; English only)",
            "where refusals are preferred, the model learns to refuse; where they lose, it learns to comply",
            "decide whether that is wanted; leave them out if they come from another model's policy",
            "responses",
        ),
        Kind(
            "very-long-responses",
            "warning",
            f"responses of more than {LONG:,} characters",
            "they are dropped or cut at any usual max_length, or fill the memory of a batch by themselves",
            "leave them out, or cut them where their text allows it",
            "responses",
        ),
        Kind(
            "very-long-lines",
            "note",
            f"responses with a line of more than {LONG_LINE:,} characters",
            "mostly encoded data, logs or minified code: many tokens that teach little",
            "look at the rows shown",
            "responses",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.empty, self.stubs, self.refusals, self.long, self.lines = (Tally() for _ in range(5))
        self.total = self.chosen = self.chosen_refuses = 0

    def look(self, row: Looked) -> None:
        """Each response's last turn is what counts as empty."""
        refusing = set()
        for number, (response, text) in enumerate(zip(row.example.responses, row.texts, strict=True)):
            self.total += 1
            last = response.text
            if not last or last.isspace():
                self.empty.add(row.index)
            elif len(last) < 16 and STUB.fullmatch(last.strip()):
                self.stubs.add(row.index, last.strip())
            elif refuses(last):
                refusing.add(number)
                self.refusals.add(row.index)
            if len(text) > LONG:
                self.long.add(row.index, f"{len(text):,} characters")
            if len(text) > LONG_LINE and max(map(len, text.split("\n"))) > LONG_LINE:
                self.lines.add(row.index)
        best = {pair.chosen for pair in row.pairs}
        self.chosen += len(best)
        if refusing:
            self.chosen_refuses += len(best & refusing)

    def findings(self) -> Iterator[Finding]:
        """Refusals are a warning where many of the preferred responses are."""
        yield from self.tallied("empty-responses", self.empty, self.total)
        yield from self.tallied("placeholder-responses", self.stubs, self.total)
        preferred = proportion(self.chosen_refuses, self.chosen)
        many = self.chosen > 0 and preferred.low > MANY
        more = {"preferred": self.chosen, "preferred_that_refuse": self.chosen_refuses}
        yield from self.tallied("refusals", self.refusals, self.total, severity="warning" if many else None, more=more)
        yield from self.tallied("very-long-responses", self.long, self.total)
        yield from self.tallied("very-long-lines", self.lines, self.total)


def refuses(text: str) -> bool:
    """Whether a response begins as refusals do."""
    start = text[:160].lstrip().lower()
    # Nine in ten responses begin with none of these letters' words, and need no pattern.
    return start.startswith(("i ", "i'", "i’", "im ", "as a", "sorry")) and REFUSAL.match(start) is not None
