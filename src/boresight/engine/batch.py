"""Token sequences laid side by side: the padded batch, and which of its positions predict response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.data.tokens import Tokens


@dataclass(frozen=True)
class PaddedBatch:
    """`n` sequences, padded on the right to the longest, `L` tokens; `tokens` response tokens in all.

    input_ids: (n, L) int64. attention_mask: (n, L) int64, 1 at real tokens.
    predictor: (tokens,) int64, the flat index into (n * L) of the position whose output predicts each response token.
    targets: (tokens,) int64, the response tokens. owner: (tokens,) int64, the sequence each belongs to, ascending.
    count: n.
    """

    input_ids: Tensor
    attention_mask: Tensor
    predictor: Tensor
    targets: Tensor
    owner: Tensor
    count: int

    def to(self, device: torch.device | str) -> PaddedBatch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "count"}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in moved.items()})

    def inputs(self) -> dict[str, Any]:
        """What `TokenLogProbs.forward` is called with."""
        return {name: getattr(self, name) for name in ("input_ids", "attention_mask", "predictor", "targets")}


def pad(sequences: Sequence[Tokens], pad_id: int) -> PaddedBatch:
    """Pad `sequences` on the right with `pad_id`. No sequences, or none with a response token, is fine.

    What is real is told by the attention mask alone, so `pad_id` may be any id, EOS too.
    """
    n, length = len(sequences), max((len(s) for s in sequences), default=0)
    ids = np.full((n, length), pad_id, np.int64)
    real = np.zeros((n, length), np.int64)
    response = np.zeros((n, length), np.bool_)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = sequence.ids
        real[i, : len(sequence)] = 1
        response[i, : len(sequence)] = sequence.mask
    owner, column = np.nonzero(response)
    return PaddedBatch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(real),
        predictor=torch.from_numpy(owner * length + column - 1),
        targets=torch.from_numpy(ids[owner, column]),
        owner=torch.from_numpy(owner),
        count=n,
    )
