"""The padded path: log-probs of response tokens from right-padded batches, and the oracle it is held against."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.batch import pad
from boresight.engine.dropout import evaluating
from boresight.engine.head import TILE, accumulation_dtype, module_log_probs, token_log_probs
from boresight.engine.headform import HeadForm, bare, called_once, is_plain, is_sharded, recognise
from boresight.objectives import LogProbs


class TokenLogProbs(nn.Module):
    """Per-token log-probs of responses under a causal language model, without ever holding all its logits.

    model: a transformers causal language model, with or without peft adapters. It runs up to its last hidden states;
    the positions that predict response tokens are picked, and only they go through the head, at most `tile` logits
    at a time. Gradient checkpointing, autocast, half-precision weights and LoRA (on the head too) work as in the
    model. This module is what accelerate, DDP or FSDP wraps: everything goes through `forward`.
    """

    def __init__(self, model: nn.Module, *, tile: int = TILE) -> None:
        super().__init__()
        self.model = model
        self.tile = tile
        # On the meta device (weights that arrive later) the head is looked at on first use.
        lazy = any(p.is_meta for p in model.parameters())
        self._form: HeadForm | None = None if lazy else recognise(model)

    @property
    def form(self) -> HeadForm:
        """What the model does between its last hidden states and its logits."""
        if self._form is None:
            self._form = recognise(self.model)
        return self._form

    def forward(self, input_ids: Tensor, attention_mask: Tensor, predictor: Tensor, targets: Tensor) -> Tensor:
        """Log-probs of `targets`, (tokens,), in nats, fp32 (fp64 for a model in fp64).

        input_ids, attention_mask: (n, L), padded on the right. predictor: (tokens,) flat index into (n * L) of the
        position that predicts each target. Without any response token the result is empty, but still tied to every
        parameter, so that a process without work takes part in the backward pass.
        """
        form = self.form
        if input_ids.numel() == 0:
            input_ids, attention_mask = input_ids.new_zeros(1, 1), attention_mask.new_ones(1, 1)
        if form.own:
            return self._own(input_ids, attention_mask, predictor, targets)
        base = bare(self.model)
        hidden = base.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        hidden = hidden.flatten(0, 1)[predictor]
        head: Any = base.get_output_embeddings()
        plain = is_plain(head)

        def compute(forward: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
            shape: dict[str, Any] = {"scale": form.scale, "cap": form.cap, "tile": self.tile}
            if plain:
                return token_log_probs(rows, head.weight, targets, bias=head.bias, **shape)
            return module_log_probs(forward, rows, targets, vocabulary=form.vocabulary, **shape)

        return called_once(head, compute, hidden) if is_sharded(head) else compute(head, hidden)

    def _own(self, input_ids: Tensor, attention_mask: Tensor, predictor: Tensor, targets: Tensor) -> Tensor:
        """By the model's own logits, at the columns where any sequence of the batch predicts a response token."""
        length = input_ids.shape[1]
        row, column = predictor // length, predictor % length
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if "logits_to_keep" in inspect.signature(bare(self.model).forward).parameters and targets.numel():
            columns, column = torch.unique(column, return_inverse=True)
            batch["logits_to_keep"] = columns
        logits = self.model(**batch).logits[row, column]
        logits = logits.to(accumulation_dtype(logits.dtype))
        return logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def logprobs(
    module: nn.Module, sequences: Sequence[Tokens], pad_id: int, device: torch.device | None = None
) -> LogProbs:
    """Log-probs of the responses of `sequences` in one padded batch; gradients flow.

    module: a `TokenLogProbs`, wrapped or not. device: where it wants its input; by default where its weights are.
    """
    batch = pad(sequences, pad_id).to(device or _device(module))
    values = module(batch.input_ids, batch.attention_mask, batch.predictor, batch.targets)
    return LogProbs(values, batch.owner, batch.count)


def token_values(
    module: nn.Module,
    sequences: Sequence[Tokens],
    pad_id: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> list[NDArray[np.float32]]:
    """Per-token log-probs of each response as (response length,) float32, in the order of `sequences`.

    No gradients, evaluation mode (restored afterwards), `batch_size` sequences of similar length at a time, longest
    first. `progress(n)` is called after each batch with the number of its sequences.
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    values: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(sequences)
    with torch.no_grad(), evaluating(module):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            part = [sequences[i] for i in batch]
            flat = logprobs(module, part, pad_id).values.float().cpu().numpy()
            ends = np.cumsum([s.response_length for s in part])
            for i, piece in zip(batch, np.split(flat, ends[:-1]), strict=True):
                values[i] = piece.copy()
            if progress is not None:
                progress(len(batch))
    return values


def plain_logprobs(model: nn.Module, sequences: Sequence[Tokens], pad_id: int) -> LogProbs:
    """The oracle: the model's own full logits, log-softmax in fp32 (fp64 if the model is), gather. Gradients flow.

    Shares nothing with `TokenLogProbs` but the padding; every faster path must equal it. Memory is that of
    (n, L, vocabulary) logits.
    """
    if not sequences:
        return LogProbs.from_sequences([])
    device = _device(model)
    batch = pad(sequences, pad_id)
    logits = model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)).logits
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    mask = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    for i, sequence in enumerate(sequences):
        mask[i, : len(sequence)] = torch.from_numpy(sequence.mask)
    following = torch.log_softmax(logits[:, :-1], dim=-1)
    values = following.gather(2, batch.input_ids[:, 1:, None].to(device)).squeeze(2)
    return LogProbs.from_padded(values, mask[:, 1:].to(device))
