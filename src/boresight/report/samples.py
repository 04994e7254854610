"""What the policy said before training and says now, with the words that changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from boresight.report.runs import Record
from boresight.report.words import clean

SEPARATOR = "\n\n---\n\n"
"""Between prompt and response in a run's samples."""

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|\s+|[^\w\s]")

Piece = tuple[str, bool]
"""Text, and whether the other side lacks it."""


@dataclass(frozen=True)
class Pair:
    """One prompt with the policy's answers at two steps, in pieces; `after` is None where there is only one step."""

    prompt: str
    before: list[Piece]
    after: list[Piece] | None
    before_step: int
    after_step: int
    same: bool


def pairs(record: Record, most: int, characters: int) -> list[Pair]:
    """The first `most` samples of a run, each text cut to so many characters."""
    tags = sorted((t for t in record.texts if t.startswith("sample/")), key=lambda t: (len(t), t))
    return [_pair(record.texts[tag], characters) for tag in tags[:most]]


def _pair(texts: Sequence[tuple[int, str]], characters: int) -> Pair:
    (first_step, first), (last_step, last) = texts[0], texts[-1]
    prompt, before, after = split(first, last)
    prompt, before, after = (clean(t, characters) for t in (prompt, before, after))
    if len(texts) < 2:
        return Pair(prompt, [(before, False)], None, first_step, first_step, False)
    gone, come = differences(before, after)
    return Pair(prompt, gone, come, first_step, last_step, before == after)


def split(first: str, last: str) -> tuple[str, str, str]:
    """Prompt and the two responses. A prompt may hold the separator itself: it ends where both texts still agree."""
    cut, start = None, first.find(SEPARATOR)
    while start >= 0 and last.startswith(first[: start + len(SEPARATOR)]):
        cut, start = start, first.find(SEPARATOR, start + 1)
    if cut is None:
        return "", first, last
    after = cut + len(SEPARATOR)
    return first[:cut], first[after:], last[after:]


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, marked where the other lacks them, by words (in scripts without spaces, by characters).

    From 200 words on, words that make up more than a hundredth of the text are no anchors (difflib's autojunk): in
    the circles of a collapsed model, where every word is like that, the search would take a minute a sample.
    """
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    gone: list[Piece] = []
    come: list[Piece] = []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b).get_opcodes():
        if a1 > a0:
            gone.append(("".join(a[a0:a1]), kind != "equal"))
        if b1 > b0:
            come.append(("".join(b[b0:b1]), kind != "equal"))
    return gone, come
