"""What all data of the exact worlds is made of: rows of responses for many seeds at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from boresight.errors import InputError

D = TypeVar("D", bound="Drawn")


def generator(*names: object) -> torch.Generator:
    """A generator that depends on the names alone."""
    return torch.Generator().manual_seed(random.Random(repr(names)).getrandbits(31))


def stacked(kind: Callable[..., D], drawn: Sequence[Sequence[Tensor]], names: tuple[int, ...]) -> D:
    """Data of each seed, column by column, as one."""
    return kind(*(torch.stack(column) for column in zip(*drawn, strict=True)), seeds=names)


@dataclass(frozen=True)
class Rows:
    """Any data as one grid: prompt and response (seeds, n, K) int64, weight (seeds, n), and what the kind has.

    grades: (seeds, n, K); desirable: (seeds, n) bool; extra: as in the module's docstring; names: of the seeds.
    """

    prompt: Tensor
    response: Tensor
    weight: Tensor
    extra: Mapping[str, Tensor]
    names: tuple[int, ...]
    grades: Tensor | None = None
    desirable: Tensor | None = None

    def column(self, place: int) -> Rows:
        """One response of each row alone: (seeds, n, 1)."""
        few = slice(place, place + 1)
        extra = {name: known if name == "samples" else known[:, :, few] for name, known in self.extra.items()}
        return replace(self, prompt=self.prompt[:, :, few], response=self.response[:, :, few], extra=extra)


class Drawn:
    """What all kinds of data can do. Every tensor begins with (seeds, n)."""

    weight: Tensor
    extra: Mapping[str, Tensor]
    seeds: tuple[int, ...] | None

    def rows(self) -> Rows:
        """As one grid."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[int, ...]:
        """The seeds' numbers; their places where none were given."""
        return tuple(range(self.weight.shape[0])) if self.seeds is None else self.seeds

    @property
    def size(self) -> int:
        """Examples of each seed."""
        return self.weight.shape[1]

    def take(self: D, columns: Tensor) -> D:
        """Some examples of each seed, columns: (seeds, n) int64."""
        seed = torch.arange(columns.shape[0])[:, None]
        return self._each(lambda known: known[seed, columns])

    def part(self: D, start: int, stop: int) -> D:
        """The examples from `start` up to `stop`, of each seed."""
        return self._each(lambda known: known[:, start:stop])

    def of_seed(self: D, seed: int) -> D:
        """The examples of one seed (its place, not its number), shape (1, n)."""
        one = self._each(lambda known: known[seed : seed + 1])
        return replace(one, seeds=self.names[seed : seed + 1])  # type: ignore[type-var]

    def join(self: D, other: D) -> D:
        """These examples, then the other's; `extra` keeps what both have."""
        more = {name: torch.cat([self.extra[name], other.extra[name]], 1) for name in self.extra if name in other.extra}
        return replace(self._with(other, lambda a, b: torch.cat([a, b], 1)), extra=more)  # type: ignore[type-var]

    def knowing(self: D, **extra: Tensor) -> D:
        """The same with more in `extra`."""
        return replace(self, extra={**self.extra, **extra})  # type: ignore[type-var]

    def _with(self: D, other: D, both: Callable[[Tensor, Tensor], Tensor]) -> D:
        found = {}
        for name in self._tensors():
            a, b = getattr(self, name), getattr(other, name)
            if (a is None) != (b is None):
                raise InputError(f"only one of the two has {name}", mend="give it to both, or to none")
            if a is not None:
                found[name] = both(a, b)
        return replace(self, **found)  # type: ignore[type-var]

    def _each(self: D, change: Callable[[Tensor], Tensor]) -> D:
        found = {n: change(getattr(self, n)) for n in self._tensors() if getattr(self, n) is not None}
        extra = {name: change(known) for name, known in self.extra.items()}
        return replace(self, **found, extra=extra)  # type: ignore[type-var]

    def _tensors(self) -> list[str]:
        return [f.name for f in fields(self) if f.name not in ("extra", "seeds")]  # type: ignore[arg-type]
