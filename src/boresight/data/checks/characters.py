"""Characters that are not seen, or that are not what they seem."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boresight.data.checks._base import Check, Finding, Kind, Looked, Tally

CONTROLS = [chr(c) for c in (*range(9), 11, 12, *range(14, 32), 127)]
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Joiners belong into emoji and into Persian, Indic and other scripts: between Latin letters and marks they do not.
HIDDEN = re.compile(
    "[\u200b\u2060\ufeff\u180e\u00ad]|(?<=[ -\u024f])[\u200c\u200d](?=[ -\u024f])|[\U000e0000-\U000e007f]"
)
SURROGATE = re.compile("[\ud800-\udfff]")
C1 = re.compile("[\x80-\x9f]")
MOJIBAKE = re.compile("Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸ]|â€|Â[\u00a0-\u00bf]|ï»¿|ðŸ")
LATIN, CYRILLIC, GREEK = "A-Za-zÀ-ɏ", "\u0400-\u04ff", "\u0370-\u03ff"
MIXED = re.compile(
    f"[{LATIN}]{{2}}[{CYRILLIC}]|[{CYRILLIC}][{LATIN}]{{2}}|[{CYRILLIC}]{{2}}[A-Za-z]|[A-Za-z][{CYRILLIC}]{{2}}"
)
RARE = re.compile("[^\x00-\x7f\u00a0-\u00ac\u00ae-\u024f\u2010-\u2027\u2030-\u205e\u20ac]")
"""Beyond Latin letters and typographic marks: only texts with such a character meet the patterns."""
WRONG = ("Ã", "Â", "â€", "ï»¿", "ðŸ")
SCRIPTS = {
    "Latin": re.compile(f"[{LATIN}]"),
    "Cyrillic": re.compile(f"[{CYRILLIC}]"),
    "Greek": re.compile(f"[{GREEK}]"),
    "Hebrew": re.compile("[\u0590-\u05ff]"),
    "Arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "Devanagari": re.compile("[\u0900-\u097f]"),
    "Thai": re.compile("[\u0e00-\u0e7f]"),
    "Han or Kana": re.compile("[\u3040-\u30ff\u3400-\u9fff]"),
    "Hangul": re.compile("[\uac00-\ud7af\u1100-\u11ff]"),
}
PATTERNS = {
    "bidi-controls": BIDI,
    "invisible-characters": HIDDEN,
    "lone-surrogates": SURROGATE,
    "mixed-script-words": MIXED,
}
ENOUGH = 8
"""Letters of a script that a text must have before it counts as written in it."""


class Characters(Check):
    """Every text: prompt and responses. A text counts once for each kind."""

    kinds = (
        Kind(
            "control-characters",
            "warning",
            "texts with control characters (NUL, backspace, escape sequences, ...)",
            "rare byte tokens that the model learns to write; they upset terminals, databases and browsers",
            "delete them; NULs often show that a file was read in the wrong encoding",
            "texts",
        ),
        Kind(
            "bidi-controls",
            "warning",
            "texts with characters that turn the direction of writing",
            "what is read is not what is trained on: text can be hidden from annotators",
            "delete them where the text is not in a right-to-left script",
            "texts",
        ),
        Kind(
            "invisible-characters",
            "warning",
            "texts with characters that nobody sees (zero-width, soft hyphens, byte-order marks, tags)",
            "they split words into other tokens, and may carry hidden text or a watermark of the writer",
            "delete them",
            "texts",
        ),
        Kind(
            "replacement-characters",
            "warning",
            "texts with the mark of lost characters, U+FFFD",
            "the model learns to write it; what stood there is lost",
            "read the original again in its own encoding, or leave the rows out",
            "texts",
        ),
        Kind(
            "mojibake",
            "warning",
            "texts that were decoded wrongly (UTF-8 read as Latin-1)",
            "quotes and accents become two or three wrong letters, which the model learns to write",
            "decode again: text.encode('cp1252').decode('utf-8')",
            "texts",
        ),
        Kind(
            "lone-surrogates",
            "error",
            "texts with half of a character",
            "no tokenizer and no file can hold them: the run stops there",
            "repair the text where it was cut: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'ignore')",
            "texts",
        ),
        Kind(
            "mixed-script-words",
            "note",
            "texts with a word that mixes Latin and Cyrillic letters",
            "letters that look alike are other tokens: a filter is deceived, a word is split",
            "replace the letters that only look alike",
            "texts",
        ),
        Kind(
            "other-script",
            "note",
            "responses in another script than their prompt",
            "fine for translation; else the model learns to change the language",
            "look at the rows shown, and leave them out if nobody asked for it",
            "responses",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.tallies = {kind.id: Tally() for kind in self.kinds}
        self.texts = self.responses = 0

    def look(self, row: Looked) -> None:
        """Plain text costs a few searches; only texts beyond ASCII meet the patterns."""
        example = row.example
        turns = [example.prompt] if isinstance(example.prompt, str) else [m.content for m in example.prompt]
        self.texts += len(turns) + len(row.texts)
        self.responses += len(row.texts)
        rare = False
        for text in (*turns, *row.texts):
            # The searches for a single character are many times faster than a pattern.
            if not text.isprintable() and any(c in text for c in CONTROLS):
                bad = next(c for c in text if c in CONTROLS)
                self.tallies["control-characters"].add(row.index, f"U+{ord(bad):04X}")
            if text.isascii():
                continue
            if any(wrong in text for wrong in WRONG):
                self._match("mojibake", MOJIBAKE, row.index, text)
            if RARE.search(text):
                rare = True
                self._rare(row.index, text)
        if rare:
            self._scripts(row.index, "\n".join(turns), row.texts)

    def _match(self, id: str, pattern: re.Pattern[str], row: int, text: str) -> bool:
        found = pattern.search(text)
        if found:
            shown = f"U+{ord(found[0]):04X}" if len(found[0]) == 1 else ascii(found[0])[1:-1]
            self.tallies[id].add(row, shown)
        return found is not None

    def _rare(self, row: int, text: str) -> None:
        for id, pattern in PATTERNS.items():
            self._match(id, pattern, row, text)
        if "\ufffd" in text:
            self.tallies["replacement-characters"].add(row)
        if not any(c in text for c in CONTROLS) and not MOJIBAKE.search(text):
            self._match("control-characters", C1, row, text)

    def _scripts(self, row: int, prompt: str, answers: list[str]) -> None:
        asked = written_in(prompt)
        for answer in answers if asked else ():
            got = written_in(answer)
            if got and got != asked and len(SCRIPTS[asked].findall(answer)) < ENOUGH:
                self.tallies["other-script"].add(row, f"{got} after {asked}")

    def findings(self) -> Iterator[Finding]:
        """All kinds."""
        for kind in self.kinds:
            total = self.responses if kind.unit == "responses" else self.texts
            yield from self.tallied(kind.id, self.tallies[kind.id], total)


def written_in(text: str) -> str:
    """The script with most letters, if it has enough of them; else nothing."""
    if text.isascii():
        return "Latin" if len(SCRIPTS["Latin"].findall(text)) >= ENOUGH else ""
    counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] >= ENOUGH else ""
