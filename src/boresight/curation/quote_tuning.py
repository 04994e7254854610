"""Pairs by how much of a response is quoted from trusted text, which no one has to label."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import permutations

from boresight.data.example import Example, Pair
from boresight.errors import InputError
from boresight.paper import paper

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class Quotes:
    """The n-grams of a corpus, as a set of 64-bit hashes: exact up to one false find in 2^64 / size look-ups.

    corpus: texts, taken in one by one. n: characters of an n-gram (`unit="characters"`, runs of white space being one
    space), or words and marks (`unit="words"`, small letters alike). Takes some 60 bytes of memory for each different
    n-gram. Raises InputError if n < 1, the unit is another, or no text is as long as one n-gram.
    """

    def __init__(self, corpus: Iterable[str], *, n: int = 25, unit: str = "characters") -> None:
        if n < 1:
            raise InputError(f"n is {n}", mend="give 1 or more; the paper's are 25 characters long")
        if unit not in ("characters", "words"):
            raise InputError(f"unit is {unit!r}", mend='give "characters" or "words"')
        self.n, self.unit = n, unit
        self._known = {key for text in corpus for key in self._keys(text)}
        if not self._known:
            raise InputError("the corpus has no n-gram", mend=f"give texts of at least {n} {unit}")

    def __len__(self) -> int:
        """How many different n-grams there are."""
        return len(self._known)

    def quip(self, text: str) -> float:
        """The share of the text's n-grams, each as often as it occurs, that the corpus has; 0 where it has none."""
        keys = list(self._keys(text))
        return sum(key in self._known for key in keys) / len(keys) if keys else 0.0

    def _keys(self, text: str) -> Iterator[int]:
        if self.unit == "words":
            parts = [word.lower() for word in WORD.findall(text)]
            grams = ("\0".join(parts[i : i + self.n]) for i in range(len(parts) - self.n + 1))
        else:
            plain = " ".join(text.split())
            grams = (plain[i : i + self.n] for i in range(len(plain) - self.n + 1))
        for gram in grams:
            yield int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@paper("quote-tuning")
def quote_tuning(
    examples: Iterable[Example], quotes: Quotes, *, least: float = 0.1, longer: float = 0.1
) -> list[Example]:
    """Examples with one pair each: of several responses to a prompt, one that quotes more was preferred.

    A pair may be made where QUIP(chosen) - QUIP(rejected) > least, and the lengths differ by less than `longer` of the
    shorter one's (in words and marks). Of those the pair of the highest mean QUIP is taken, of equal ones the earliest.
    Other feedback is left out, and so are examples in which no pair may be made; a response that answers a prompt of
    its own is passed over.

    Raises InputError if least is outside [0, 1), or longer is not positive.
    Source: Zhang et al. 2024 (Quote-Tuning), rank by quoting: 32 responses sampled from the model, both limits 0.1.
    """
    if not 0 <= least < 1:
        raise InputError(f"least is {least}", mend="give a share from 0 up to 1")
    if not longer > 0:
        raise InputError(f"longer is {longer}", mend="give a share above 0; math.inf for no limit")
    made = []
    for example in examples:
        pair = _pair(example, quotes, least, longer)
        if pair is not None:
            made.append(replace(example, pairs=(pair,), scores=(), labels=(), ranks=(), steps=()))
    return made


def _pair(example: Example, quotes: Quotes, least: float, longer: float) -> Pair | None:
    own = [i for i, response in enumerate(example.responses) if response.prompt is None]
    quip = {i: quotes.quip(example.responses[i].text) for i in own}
    length = {i: len(WORD.findall(example.responses[i].text)) for i in own}
    best: tuple[float, Pair] | None = None
    for won, lost in permutations(own, 2):
        short = min(length[won], length[lost])
        if quip[won] - quip[lost] <= least or abs(length[won] - length[lost]) >= longer * short:
            continue
        mean = (quip[won] + quip[lost]) / 2
        if best is None or mean > best[0]:
            best = mean, Pair(won, lost)
    return best[1] if best else None
