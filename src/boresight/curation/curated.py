"""What curation gives back: examples, and how many of what were made of them or left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from boresight.data.example import Example


@dataclass(frozen=True)
class Curated(Sequence[Example]):
    """A list of examples, for `boresight.data.write.write` or to train on. counts: of what, by words."""

    examples: tuple[Example, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self.examples[index]

    def lines(self) -> list[str]:
        """In words: how many examples there are, then each count that is not 0."""
        counted = [f"  {what}: {count:,}" for what, count in self.counts.items() if count]
        return [f"{len(self):,} examples", *counted]
