"""Micro-batches: what of one is known before the model is asked, and made ready ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from boresight.data.tokens import Row, Tokens
from boresight.engine.store import ReferenceStore
from boresight.objectives import LogProbs, Objective
from boresight.training.batches import Places, mismatched, own, sequences
from boresight.training.known import per_token


class Key(NamedTuple):
    """Which rows make a micro-batch: of the held-out data or not, their numbers, and whether each counts."""

    held_out: bool
    numbers: tuple[int, ...]
    live: tuple[bool, ...]


@dataclass(frozen=True)
class Kept:
    """What is kept on disk of rows: their log-probs under the reference, under further ones, prompts' embeddings.

    embedding: row -> the embedding of its prompt, (width,).
    """

    store: ReferenceStore | None = None
    others: tuple[ReferenceStore, ...] = ()
    embedding: Callable[[Row], Tensor] | None = None


@dataclass(frozen=True)
class Micro:
    """Rows that go through the model at once, and all that is known of them; tensors on CPU.

    tokens: the sequences that the loss is made of. places: where each row's stand among them. live: (rows,) bool,
    False where a row only fills up. weights: (rows,) fp32, 0 there. lengths: (rows,) fp32, response tokens without
    samples. reference, others: log-probs of `tokens`, where needed. per_token: what is known of their response tokens,
    by name. embedding: (rows, width). mismatched, mismatched_reference: sequences behind other rows' prompts, where
    needed.
    """

    rows: list[Row]
    tokens: list[Tokens]
    places: Places
    live: Tensor
    weights: Tensor
    lengths: Tensor
    reference: LogProbs | None
    mismatched: list[Tokens]
    mismatched_reference: LogProbs | None
    others: tuple[LogProbs, ...]
    per_token: Mapping[str, Tensor]
    embedding: Tensor | None

    def __len__(self) -> int:
        return len(self.rows)


def ready(objective: Objective, kept: Kept, rows: Sequence[Row], live: Sequence[bool] | None = None) -> Micro:
    """A micro-batch of these rows; live: which of them count, by default all. What fails is told with its rows."""
    live = [True] * len(rows) if live is None else live
    store = kept.store
    try:
        tokens = sequences(objective, rows)
        twice = mismatched(rows) if "mismatched_kl" in objective.needs and store is not None else []
        embedded = [kept.embedding(row) for row in rows] if kept.embedding is not None else None
        return Micro(
            rows=list(rows),
            tokens=tokens,
            places=Places.of(objective, rows),
            live=torch.tensor(live, dtype=torch.bool),
            weights=torch.tensor([r.weight if counts else 0.0 for r, counts in zip(rows, live, strict=True)]),
            lengths=torch.tensor([float(sum(t.response_length for t in own(objective, row))) for row in rows]),
            reference=store.get(tokens) if store is not None else None,
            mismatched=twice,
            mismatched_reference=store.get(twice) if twice and store is not None else None,
            others=tuple(other.get(tokens) for other in kept.others),
            per_token=per_token(objective, rows),
            embedding=torch.stack(embedded) if embedded else None,
        )
    except Exception as error:
        error.add_note(f"in a micro-batch of {', '.join(row.source or f'row {row.index}' for row in rows)}")
        raise
