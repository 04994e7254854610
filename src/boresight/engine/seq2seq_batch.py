"""Sequences laid out for an encoder and a decoder: every prompt once, its responses behind a start token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from boresight.data.tokens import Tokens
from boresight.engine.batch import pad
from boresight.errors import InputError


@dataclass(frozen=True)
class Seq2SeqBatch:
    """`p` different prompts of at most `P` tokens, and `n` responses to them of at most `L`; `tokens` in all.

    prompt_ids, prompt_mask: (p, P) int64, padded on the right. source: (n,) int64, the prompt of each response.
    input_ids, attention_mask: (n, L) int64, what the decoder is given: its start token and all but the last token of
    the response. predictor: (tokens,) int64, flat index into (n * L). targets: (tokens,) int64. owner: (tokens,) int64,
    the sequence each belongs to, ascending. count: sequences, those without a response included, which are in no row.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    source: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    predictor: Tensor
    targets: Tensor
    owner: Tensor
    count: int

    def to(self, device: torch.device | str) -> Seq2SeqBatch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "count"}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in moved.items()})

    def inputs(self) -> dict[str, Tensor]:
        """The arguments of `Seq2SeqLogProbs.forward`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("owner", "count")}


def lay(sequences: Sequence[Tokens], pad_id: int, start: int) -> Seq2SeqBatch:
    """Lay `sequences` out for an encoder and a decoder whose first token is `start`.

    What follows the response is not seen by anything and left out. Raises InputError for a response in several spans:
    a decoder has no place for what the user says in between.
    """
    prompts: dict[bytes, int] = {}
    before: list[Tokens] = []
    rows: list[Tokens] = []
    source: list[int] = []
    owner: list[int] = []
    for i, sequence in enumerate(sequences):
        where = np.flatnonzero(sequence.mask)
        if not where.size:
            continue
        first, last = int(where[0]), int(where[-1])
        if last - first + 1 != where.size:
            raise InputError(
                "a model with an encoder and a decoder answers once, and this response is in several spans",
                mend="train on the last turn only, or use a decoder-only model",
            )
        key = sequence.ids[:first].tobytes()
        if key not in prompts:
            prompts[key] = len(before)
            before.append(Tokens(sequence.ids[:first], np.zeros(first, np.bool_), False))
        source.append(prompts[key])
        owner += [i] * where.size
        # Behind the start token every token of the response is predicted; the last one predicts nothing.
        ids = np.concatenate([[start], sequence.ids[first : last + 1]]).astype(np.int32)
        rows.append(Tokens(ids, np.arange(ids.size) > 0, sequence.ends))
    encoder, decoder = pad(before, pad_id), pad(rows, pad_id)
    length = decoder.input_ids.shape[1]
    row = decoder.predictor // max(length, 1)
    return Seq2SeqBatch(
        prompt_ids=encoder.input_ids,
        prompt_mask=encoder.attention_mask,
        source=torch.tensor(source, dtype=torch.int64),
        input_ids=decoder.input_ids[:, :-1],
        attention_mask=decoder.attention_mask[:, 1:],
        predictor=decoder.predictor - row,  # every row is one shorter
        targets=decoder.targets,
        owner=torch.tensor(owner, dtype=torch.int64),
        count=len(sequences),
    )
