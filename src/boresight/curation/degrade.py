"""Degraded copies of responses, from which a model can learn how much better one response is than another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil, log

from boresight.data.example import Example, Response, Score
from boresight.errors import InputError

WORD = re.compile(r"\w+(?:['’]\w+)*")
COMMON = 0.5
"""A word that more than this share of the responses has is no key content."""


def degrade(examples: Iterable[Example], *, levels: int = 5, most: float = 1.0) -> list[Example]:
    """The examples, and after each its copies with more and more of the responses' key content removed.

    levels: how many degrees there are; degree k of 0 .. levels - 1 has the share most * k / (levels - 1) removed, 0
    being the example itself. Every response of an example is degraded alike, so that pairs and ranks still hold; copies
    have no other feedback. Each response gets the score "degree" with k, and copies of an example with an id have the
    id with `~k` behind it. What key content is, is told by all responses of `examples` (see `degraded`).

    Raises InputError if levels < 2, `most` is outside (0, 1], or a response has a score "degree" already.
    Source: Li et al. 2024 (SPO, preference degree); how the paper finds key content was not found.
    """
    if levels < 2:
        raise InputError(f"levels is {levels}", mend="give 2 or more: whole responses are one of them")
    if not 0 < most <= 1:
        raise InputError(f"most is {most}", mend="give the share that the last degree removes, above 0 and at most 1")
    kept = list(examples)
    for example in kept:
        if any(s.name == "degree" for s in example.scores):
            where = example.source or example.id or "an example"
            raise InputError(f"{where}: has a score named degree already", mend="degrade the data only once")
    frequency: Counter[str] = Counter()
    for example in kept:
        for response in example.responses:
            frequency.update({word.lower() for word in WORD.findall(response.text)})
    count = sum(len(example.responses) for example in kept)
    return [
        _copy(example, degree, most * degree / (levels - 1), frequency, count)
        for example in kept
        for degree in range(levels)
    ]


def degraded(text: str, share: float, frequency: Mapping[str, int], count: int) -> str:
    """The text without a share of its key content, which goes in order of weight, all occurrences of a word at once.

    frequency: in how many of `count` texts each word (in lower case) occurs. Key content are the words that at most
    half of those texts have, or all words where there are none; a word's weight is how often it occurs in the text
    times log((1 + count) / (1 + frequency)), of equal weights the earlier word first. ceil(share * their number) words
    go, with the space before them, but never the last word of the text. share: in [0, 1]; 0 gives the text itself.

    Raises ValueError if share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], not {share}")
    words = [word.lower() for word in WORD.findall(text)]
    inside = Counter(words)
    key = [word for word in inside if frequency.get(word, 0) <= COMMON * count] or list(inside)
    # sorted() is stable, and Counter keeps the order in which words came
    ranked = sorted(key, key=lambda w: -inside[w] * log((1 + count) / (1 + frequency.get(w, 0))))
    # rounding in the share, such as 0.6 * 5 = 3.0000000000000004, takes no further word
    gone = set(ranked[: ceil(round(share * len(ranked), 9))])
    if gone and gone == set(inside):
        gone.discard(ranked[-1])
    if not gone:
        return text
    found = WORD.pattern
    return re.sub(rf"\s*({found})", lambda m: "" if m[1].lower() in gone else m[0], text).lstrip()


def _copy(example: Example, degree: int, share: float, frequency: Mapping[str, int], count: int) -> Example:
    told = tuple(Score(i, float(degree), "degree") for i in range(len(example.responses)))
    if degree == 0:
        return replace(example, scores=(*example.scores, *told))
    return replace(
        example,
        responses=tuple(_response(r, share, frequency, count) for r in example.responses),
        scores=told,
        labels=(),
        steps=(),
        id=None if example.id is None else f"{example.id}~{degree}",
    )


def _response(response: Response, share: float, frequency: Mapping[str, int], count: int) -> Response:
    text = degraded(response.text, share, frequency, count)
    if isinstance(response.content, str):
        return replace(response, content=text)
    *before, last = response.content
    return replace(response, content=(*before, replace(last, content=text)))
