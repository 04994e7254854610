"""The loss of many sequences and its gradient with as little work as an objective allows: head and loss in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.fused import ROOM
from boresight.engine.padded import inner
from boresight.objectives import LogProbs

AT_ONCE = 512
"""Response tokens of which the logits are held at once, where their vocabulary leaves room for that."""


def total_loss(
    module: nn.Module,
    sequences: Sequence[Tokens],
    parts: Sequence[Sequence[int]],
    loss_of: Callable[[int, LogProbs], Tensor],
    pad_id: int,
    device: torch.device | None = None,
) -> tuple[Tensor, LogProbs]:
    """The sum of `loss_of(g, log-probs of the sequences in parts[g])`, 0-d; and all log-probs, without gradient.

    module: a `TokenLogProbs`, wrapped or not. parts: numbers of sequences; each sequence is in one part, and no loss
    depends on another part's. loss_of gets the log-probs in the order of its part and returns a 0-d tensor. The
    gradient is that of `logprobs` and the same losses, to rounding; the logits of a part are made only once.
    """
    device = device or next(module.parameters()).device
    places = list(_places(parts, sequences))
    indices = [index for index, _ in places]  # on the CPU, where they are looked at without waiting
    owners = [owner.to(device, non_blocking=True) for _, owner in places]

    def loss(g: int, values: Tensor) -> Tensor:
        return loss_of(g, LogProbs(values, owners[g], len(parts[g])))

    batch = inner(module).arrange(sequences, pad_id).to(device)
    total, values = module(**batch.inputs(), fused=(indices, loss))
    return total, LogProbs(values, batch.owner, batch.count)


def picked(values: LogProbs, parts: Sequence[Sequence[int]], sequences: Sequence[Tokens]) -> list[LogProbs]:
    """The log-probs of each part of the sequences, in its order, without waiting for a GPU."""
    device = values.values.device
    places = (tuple(t.to(device, non_blocking=True) for t in two) for two in _places(parts, sequences))
    return [
        LogProbs(values.values[index], owner, len(part), {n: known[index] for n, known in values.per_token.items()})
        for part, (index, owner) in zip(parts, places, strict=True)
    ]


def _places(parts: Sequence[Sequence[int]], sequences: Sequence[Tokens]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each part the places of its tokens among all, and which of its sequences each belongs to."""
    lengths = np.array([s.response_length for s in sequences], np.int64)
    ends = np.cumsum(lengths)
    for part in parts:
        spans = [np.arange(ends[i] - lengths[i], ends[i]) for i in part]
        index = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *spans]))
        yield index, torch.from_numpy(np.repeat(np.arange(len(part)), lengths[list(part)]))


def parts_of(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Rows in parts of about AT_ONCE response tokens, in order. lengths: response tokens of each row, all sides."""
    most = max(1, min(AT_ONCE, ROOM // max(1, vocabulary)))
    parts: list[list[int]] = []
    held = 0
    for row, length in enumerate(lengths):
        if not parts or held + length > most:
            parts.append([])
            held = 0
        parts[-1].append(row)
        held += length
    return parts
