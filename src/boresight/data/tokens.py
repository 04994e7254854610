"""`Tokens` and `Row`: what a model is given. A row is one training example, tokenised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tokens:
    """One conversation with one response, tokenised once.

    ids: (length,) int32, prompt and response together. mask: (length,) bool, true at the tokens of the response
    (the ones that are trained on and whose log-probs are summed); never true at position 0, which nothing predicts.
    ends: the last response token ends the turn (EOS or the template's end-of-turn), so the answer is whole.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    ends: bool

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.ids.shape != self.mask.shape:
            raise ValueError(f"ids and mask must both have shape (length,), not {self.ids.shape} and {self.mask.shape}")
        if self.mask.size and self.mask[0]:
            raise ValueError("the first token cannot be a response token: nothing predicts it")

    def __len__(self) -> int:
        return int(self.ids.size)

    @property
    def response_length(self) -> int:
        """Number of response tokens."""
        return int(self.mask.sum())

    def key(self) -> bytes:
        """16 bytes that identify ids and mask together: the address of this response's reference log-probs."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.int64(self.ids.size).tobytes())
        digest.update(self.ids.astype("<i4", copy=False).tobytes())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Row:
    """One training example: its token sequences and what goes with them.

    sequences: for pairs (chosen, rejected); for single responses (response,) or, where the objective needs it,
    (response, the same response behind another row's prompt).
    weight: what the example's loss is multiplied by. desirable: for labelled responses.
    index: which example of the data it came from. source: where that was read, "file:line".
    """

    sequences: tuple[Tokens, ...]
    weight: float = 1.0
    desirable: bool | None = None
    index: int = -1
    source: str | None = None

    def to_arrow(self) -> dict[str, Any]:
        """The flat dictionary that is stored in Arrow; `from_arrow` is its inverse."""
        return {
            "ids": [s.ids for s in self.sequences],
            "mask": [s.mask for s in self.sequences],
            "ends": [s.ends for s in self.sequences],
            "weight": self.weight,
            "desirable": self.desirable,
            "index": self.index,
            "source": self.source,
        }

    @classmethod
    def from_arrow(cls, row: dict[str, Any]) -> Row:
        """The row that `to_arrow` made the dictionary of."""
        return cls(
            sequences=tuple(
                Tokens(np.asarray(i, np.int32), np.asarray(m, np.bool_), e)
                for i, m, e in zip(row["ids"], row["mask"], row["ends"], strict=True)
            ),
            weight=row["weight"],
            desirable=row["desirable"],
            index=row["index"],
            source=row["source"],
        )
