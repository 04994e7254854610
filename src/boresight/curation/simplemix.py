"""Mixing pairs of the model's own responses with pairs of responses that others wrote."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from boresight.curation.curated import Curated
from boresight.curation.told import name_of
from boresight.data import views
from boresight.data.example import Example
from boresight.errors import InputError
from boresight.paper import paper


@paper("simplemix")
def simplemix(
    on: Iterable[Example],
    off: Iterable[Example],
    *,
    share: float = 0.5,
    count: int | None = None,
    ranked: Literal["all", "best-worst"] = "best-worst",
    seed: int = 0,
) -> Curated:
    """Pairs drawn from two sources: each with probability `share` from `on`, else from `off`, none of them twice.

    on: the policy's own responses, paired, ranked or scored by a reward model. off: pairs of other models' or people's
    responses. count: how many pairs to draw; by default as many as the smaller source has, so that the mix is compared
    with either of them at equal size. ranked: of ranks and scores which pairs are made, the first best against the
    first worst or all. Ties make no pair.

    Each example that comes out has one pair, in the order drawn, and says where it is from: its id is "on:" or "off:"
    with its former id (or source) behind, and "~k" for pair k of several. Scores and steps are kept, labels and ranks
    are not. counts: pairs drawn from each, those left over, examples without a pair, and ties.

    Raises InputError if share is outside [0, 1], count < 1, a source that is drawn from has no pair, or the draw asks
    for more pairs than a source has.
    Source: Li and Khashabi 2025 (SIMPLEMIX): probability 1/2, then ordinary DPO with the fixed reference.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is {share}", mend="give the share of own pairs, from 0 to 1")
    counts: dict[str, int] = {}
    sources = {name: _pairs(name, some, ranked, counts) for name, some in (("on", on), ("off", off))}
    sizes = {name: len(some) for name, some in sources.items()}
    if count is None:
        count = min(sizes.values())
    if count < 1:
        empty = next((name for name, size in sizes.items() if not size), "on")
        what = f"{empty} has no pair" if not sizes[empty] else f"count is {count}"
        raise InputError(what, mend="give responses with pairs, ranks or scores, and a count of 1 or more")
    rng = random.Random(seed)
    names = ["on" if rng.random() < share else "off" for _ in range(count)]
    for name, some in sources.items():
        wanted = names.count(name)
        if wanted > len(some):
            raise InputError(
                f"{wanted} of {count} pairs were to be drawn from {name}, which has {len(some)}",
                mend=f"give a count of at most {min(sizes.values())}, another share, or more data",
            )
        rng.shuffle(some)
        counts[f"from {name}"], counts[f"left over of {name}"] = wanted, len(some) - wanted
    taken = {name: iter(some) for name, some in sources.items()}
    return Curated(tuple(next(taken[name]) for name in names), dict(sorted(counts.items())))


def _pairs(
    name: str, examples: Iterable[Example], ranked: Literal["all", "best-worst"], counts: dict[str, int]
) -> list[Example]:
    """The examples of a source, one for each pair; those without a pair are counted, and so are ties."""
    made: list[Example] = []
    without, ties = f"examples of {name} without a pair", f"ties of {name}"
    counts |= {without: 0, ties: 0}
    for index, example in enumerate(examples):
        found = views.pairs(example, ranked=ranked)
        counts[without] += not found
        counts[ties] += sum(pair.tie for pair in example.pairs)
        for k, pair in enumerate(found):
            id = f"{name}:{name_of(example, index)}" + (f"~{k}" if len(found) > 1 else "")
            made.append(replace(example, pairs=(pair,), labels=(), ranks=(), id=id))
    return made
