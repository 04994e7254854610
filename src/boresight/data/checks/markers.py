"""Text that belongs to templates and transcripts, inside the data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally

SPECIAL = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{0,30}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<[be]os>|<pad>|\[/?(?:SEP|CLS|PAD)\]"
)
"""How the special tokens of common models are written."""
HINTS = ("<|", "<｜", "s>", "INST]", "SYS>>", "_of_turn>", "<pad>", "[SEP]", "[CLS]", "[PAD]")
ROLES = re.compile(
    r"(?:^|\n)\s*(?:###\s*)?(?:Human|User|Assistant|Instruction|System|USER|ASSISTANT|SYSTEM)\s*:|\n\nHuman\b"
)
ROLE_HINTS = ("uman", "ser:", "sistant", "SER:", "SISTANT:", "ystem:", "YSTEM:", "nstruction:")


class Markers(Check):
    """Special tokens written out, and turns of a transcript inside a response."""

    kinds = (
        Kind(
            "special-token-text",
            "warning",
            "texts that hold a special token of some model, written out",
            "a tokenizer that has the token turns it into control: a turn ends early, a role is forged",
            "take these texts out of the data, or make sure that the model does not know the token (--model tells)",
            "texts",
        ),
        Kind(
            "role-markers",
            "warning",
            "responses with a speaker's mark inside, such as Human: at the beginning of a line",
            "the model learns to go on after its answer and to speak for the user",
            "cut the response before the mark, or leave the row out",
            "responses",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.special, self.roles = Tally(), Tally()
        self.texts = self.responses = 0

    def look(self, row: Looked) -> None:
        """Prompts and responses; roles in responses only."""
        turns = [row.example.prompt] if isinstance(row.example.prompt, str) else [m.content for m in row.example.prompt]
        # Plain searches first: they are many times faster than the patterns, which few texts then need.
        for text in (*turns, *row.texts):
            self.texts += 1
            if ("<" in text or "[" in text) and any(hint in text for hint in HINTS):
                found = SPECIAL.search(text)
                if found:
                    self.special.add(row.index, found[0])
        for response in row.example.responses:
            self.responses += 1
            text = response.text
            if ("\n" in text or ":" in text[:24]) and any(hint in text for hint in ROLE_HINTS):
                found = ROLES.search(text)
                if found:
                    self.roles.add(row.index, found[0].strip())

    def findings(self) -> Iterator[Finding]:
        """Both kinds."""
        yield from self.tallied("special-token-text", self.special, self.texts)
        yield from self.tallied("role-markers", self.roles, self.responses)
