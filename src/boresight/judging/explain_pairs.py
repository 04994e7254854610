"""Preferences as rows of numbers: for each pair, by how much its two responses differ in every feature."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import response_text
from boresight.data.example import Example
from boresight.data.views import pairs as decided
from boresight.judging.explain_fit import ENOUGH
from boresight.judging.features import FEATURES, Feature, Seen

Floats = NDArray[np.float64]
Of = Callable[[str, str], list[float]]

GROUPS = ("domain", "annotator", "group", "user", "prompt", "file")
"""What preferences can be set apart by."""
FIRST = Feature("first", "stands first", "stands second", lambda seen: 0.0)
"""The place of a response: of a pair, not of a text, and there only where both places were preferred."""
PLACED = 0.02
"""Least share of the rarer place for places to count: data that lists the chosen one first says nothing of them."""
NOBODY = "(none)"


@dataclass
class Compared:
    """n pairs. The first of each is the preferred response, or either of two in a tie.

    features: their meaning, in the order of columns. x: (n, d) feature of the first less that of the second. y: (n,) 1,
    or 0.5 for a tie. weight: (n,). prompt: (n,) its number; pairs whose dialogues begin alike share one. groups: names
    of each pair's domain, annotator and so on. texts: prompt, first and second response. source: where it was read.
    """

    features: list[Feature]
    x: Floats
    y: Floats
    weight: Floats
    prompt: NDArray[np.int64]
    groups: dict[str, list[str]]
    texts: list[tuple[str, str, str]]
    source: list[str]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def ids(self) -> list[str]:
        """The features' names."""
        return [one.id for one in self.features]

    @property
    def ties(self) -> int:
        """How many pairs are ties."""
        return int((self.y == 0.5).sum())

    @property
    def clusters(self) -> NDArray[np.int64]:
        """(n,) what depends on each other: pairs of one prompt; with too few prompts, votes on the same two texts."""
        if len(np.unique(self.prompt)) >= ENOUGH:
            return self.prompt
        place: dict[tuple[int, frozenset[str]], int] = {}
        keys = [(int(p), frozenset((a, b))) for p, (_, a, b) in zip(self.prompt, self.texts, strict=True)]
        return np.array([place.setdefault(key, len(place)) for key in keys], np.int64)

    def take(self, which: NDArray[np.int64]) -> Compared:
        """Some of the pairs."""
        return Compared(
            self.features,
            self.x[which],
            self.y[which],
            self.weight[which],
            self.prompt[which],
            {name: [values[i] for i in which] for name, values in self.groups.items()},
            [self.texts[i] for i in which],
            [self.source[i] for i in which],
        )

    def having(self, features: list[Feature], columns: Floats) -> Compared:
        """With further features, (n, k)."""
        x = np.column_stack([self.x, columns])
        return Compared(
            self.features + features, x, self.y, self.weight, self.prompt, self.groups, self.texts, self.source
        )


@dataclass
class _Rows:
    """Collects rows as they come."""

    x: list[list[float]] = field(default_factory=list)
    y: array[float] = field(default_factory=lambda: array("d"))
    weight: array[float] = field(default_factory=lambda: array("d"))
    prompt: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("b"))
    groups: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in GROUPS})
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    source: list[str] = field(default_factory=list)


def compared(
    files: Iterable[tuple[str, Iterable[Example]]],
    features: Mapping[str, Feature] | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> Compared:
    """The pairs of examples, from each of several files by its name.

    An example's own pairs, ties among them; else those that its ranks or scores make. features: the register if not
    given. A feature that knows the place is added where both places were preferred. advance(n) is called as examples
    are done.
    """
    known = dict(FEATURES if features is None else features)
    rows, numbers = _Rows(), {}  # type: ignore[var-annotated]
    features_of = cache(lambda text, prompt: _features(text, prompt, known))  # votes come again on the same texts
    for name, examples in files:
        for example in examples:
            _add(rows, example, name, features_of, numbers)
            advance(1)
    x = np.array(rows.x, np.float64).reshape(len(rows.y), len(known))
    made = Compared(
        list(known.values()), x, np.array(rows.y), np.array(rows.weight), np.array(rows.prompt, np.int64),
        rows.groups, rows.texts, rows.source,
    )  # fmt: skip
    place = np.array(rows.first, np.float64)
    settled = place[made.y != 0.5]
    share = float((settled > 0).mean()) if len(settled) else 0.0
    return made.having([FIRST], place[:, None]) if PLACED < share < 1 - PLACED else made


def _add(rows: _Rows, example: Example, file: str, features_of: Of, numbers: dict[object, int]) -> None:
    pairs = example.pairs or tuple(decided(example))
    if not pairs:
        return
    asked = _last_turn(example)
    texts = [response_text(r) for r in example.responses]
    key: object = _beginning(example) or (file, example.id or len(rows.y))
    number = numbers.setdefault(key, len(numbers))
    seen = {i: features_of(texts[i], asked) for i in {i for pair in pairs for i in (pair.chosen, pair.rejected)}}
    for pair in pairs:
        rows.x.append([a - b for a, b in zip(seen[pair.chosen], seen[pair.rejected], strict=True)])
        rows.y.append(0.5 if pair.tie else 1.0)
        rows.weight.append(pair.weight)
        rows.prompt.append(number)
        rows.first.append(1 if pair.chosen < pair.rejected else -1)
        told = (example.domain, pair.annotator, example.group, example.user, asked, file)
        for name, value in zip(GROUPS, told, strict=True):
            rows.groups[name].append(NOBODY if value is None else value)
        rows.texts.append((asked, texts[pair.chosen], texts[pair.rejected]))
        rows.source.append(example.source or f"pair {len(rows.y)}")


def _features(text: str, prompt: str, known: Mapping[str, Feature]) -> list[float]:
    seen = Seen(text, prompt)
    return [float(one.function(seen)) for one in known.values()]


def _last_turn(example: Example) -> str:
    """What the responses answer: the last turn of the prompt."""
    if isinstance(example.prompt, str):
        return example.prompt
    return example.prompt[-1].content if example.prompt else ""


def _beginning(example: Example) -> str:
    """How the dialogue begins, in lower case with single blanks: what prompts are told apart by."""
    if isinstance(example.prompt, str):
        start = example.prompt
    else:
        start = next((m.content for m in example.prompt if m.role == "user"), "") or example.prompt_text
    return " ".join(start.lower().split())
