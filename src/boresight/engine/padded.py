"""Log-probs of response tokens: the module that training wraps, many sequences at a time, and the oracle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.batch import pad
from boresight.engine.dropout import evaluating
from boresight.engine.fused import LossOf, fused_loss
from boresight.engine.head import TILE, module_log_probs, picked_log_probs, token_log_probs
from boresight.engine.headform import HeadForm, bare, called_once, is_plain, is_sharded, recognise
from boresight.engine.layout import Group, by_prompt, pack, packed_length
from boresight.engine.packing import Layout, choose
from boresight.engine.segments import Laid, row_inputs
from boresight.engine.trim import trimmable, trimmed
from boresight.objectives import LogProbs

BUDGET = 8192
"""Tokens that go through a model at once where nothing else is said."""


class Arranged(Protocol):
    """A batch of sequences: what `forward` is called with, and which of them each of its values belongs to."""

    @property
    def owner(self) -> Tensor:
        """The sequence of each value, (tokens,)."""

    @property
    def count(self) -> int:
        """How many sequences."""

    def to(self, device: torch.device | str) -> Arranged:
        """The same on another device."""

    def inputs(self) -> dict[str, Any]:
        """The arguments of `forward`."""


class TokenLogProbs(nn.Module):
    """Per-token log-probs of responses under a causal language model, without ever holding all its logits.

    model: a transformers causal language model, with or without peft adapters. It runs up to its last hidden states;
    the positions that predict response tokens are picked, and only they go through the head, at most `tile` logits
    at a time. Gradient checkpointing, autocast, half-precision weights and LoRA (on the head too) work as in the
    model. This module is what accelerate, DDP or FSDP wraps: everything goes through `forward`.
    layout: how `logprobs` lays sequences out for it; by default the best that the model can take.
    """

    def __init__(self, model: nn.Module, *, tile: int = TILE, layout: Layout | None = None) -> None:
        super().__init__()
        self.model = model
        self.tile = tile
        self._form: HeadForm | None = None
        self._layout: Layout | None = None
        self._wanted = layout
        self._trim: list[nn.Module | None] | None = None  # in a list, so that it is no submodule
        # On the meta device (weights that arrive later) the model is looked at on first use.
        if not any(p.is_meta for p in model.parameters()):
            self._form, self._layout = self.form, self.layout
            _ = self.trim

    @property
    def form(self) -> HeadForm:
        """What the model does between its last hidden states and its logits."""
        if self._form is None:
            self._form = recognise(self.model)
        return self._form

    @property
    def layout(self) -> Layout:
        """How `logprobs` lays sequences out."""
        if self._layout is None:
            best = self._wanted if self._wanted == "padded" else choose(self.model)
            self._layout = best if self._wanted is None or best == "padded" else self._wanted
        return self._layout

    @layout.setter
    def layout(self, layout: Layout) -> None:
        self._layout = layout

    def arrange(self, sequences: Sequence[Tokens], pad_id: int) -> Arranged:
        """The sequences as one batch for `forward`, laid out as `layout` says."""
        if self.layout == "padded":
            return pad(sequences, pad_id)
        return pack(sequences, share=self.layout == "shared")

    @property
    def trim(self) -> nn.Module | None:
        """The part of the last layer that is computed only where something is predicted."""
        if self._trim is None:
            self._trim = [trimmable(self.model) if self.layout != "padded" else None]
        return self._trim[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        predictor: Tensor,
        targets: Tensor,
        position_ids: Tensor | None = None,
        groups: Sequence[Group] | None = None,
        needed: Tensor | None = None,
        fused: tuple[Sequence[Tensor], LossOf] | None = None,
        states: bool = False,
    ) -> Any:
        """Log-probs of `targets`, (tokens,), in nats, fp32 (fp64 for a model in fp64).

        input_ids, attention_mask: (n, L), padded on the right; or, with `groups`, one packed row (1, N) with its
        position_ids, no mask, and the places that are needed of it. predictor: (tokens,) flat index into (n * L) of
        the position that predicts each target. Without any response token the result is empty, but still tied to every
        parameter, so that a process without work takes part in the backward pass.
        fused: parts of the tokens and the loss of each, as in `fused_loss`; the result is then the sum of the losses
        and the log-probs without gradient, by `fused_loss` where the head allows it. states: the result is the
        log-probs and the last hidden states that they are made of, (tokens, width); not for a head of the model's own.
        """
        if fused is not None:
            return self._fused(input_ids, attention_mask, predictor, targets, position_ids, groups, needed, *fused)
        form, options = self.form, inputs(input_ids, attention_mask, position_ids, groups)
        if form.own:
            return self._own(options, predictor, targets)
        hidden = self._hidden(options, predictor, needed)
        head: Any = bare(self.model).get_output_embeddings()
        plain = is_plain(head)

        def compute(forward: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
            shape: dict[str, Any] = {"scale": form.scale, "cap": form.cap, "tile": self.tile}
            if plain:
                return token_log_probs(rows, head.weight, targets, bias=head.bias, **shape)
            return module_log_probs(forward, rows, targets, vocabulary=form.vocabulary, **shape)

        values = called_once(head, compute, hidden) if is_sharded(head) else compute(head, hidden)
        return (values, hidden) if states else values

    def _fused(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        predictor: Tensor,
        targets: Tensor,
        position_ids: Tensor | None,
        groups: Sequence[Group] | None,
        needed: Tensor | None,
        parts: Sequence[Tensor],
        loss_of: LossOf,
    ) -> tuple[Tensor, Tensor]:
        form, head = self.form, bare(self.model).get_output_embeddings()
        if form.own or is_sharded(head) or not is_plain(head) or not targets.numel():
            row = (position_ids, groups, needed)
            values = TokenLogProbs.forward(self, input_ids, attention_mask, predictor, targets, *row)
            return summed(values, parts, loss_of)
        hidden = self._hidden(inputs(input_ids, attention_mask, position_ids, groups), predictor, needed)
        shape: dict[str, Any] = {"bias": head.bias, "scale": form.scale, "cap": form.cap}
        return fused_loss(hidden, head.weight, targets, parts, loss_of, **shape)

    def _hidden(self, options: dict[str, Any], predictor: Tensor, needed: Tensor | None) -> Tensor:
        """The last hidden states at `predictor`, (tokens, width)."""
        base = bare(self.model)
        again = self.training and any(getattr(m, "gradient_checkpointing", False) for m in base.modules())
        whole = needed is None or not needed.numel() or again or self.layout == "padded"
        with trimmed(None if whole else self.trim, needed):
            hidden: Tensor = base.base_model(**options)[0]
        laid: Laid | None = getattr(options["attention_mask"], "laid", None)
        if laid is not None:
            laid.check(int(base.config.get_text_config().num_hidden_layers))
        return hidden.flatten(0, 1)[predictor]

    def _own(self, options: dict[str, Any], predictor: Tensor, targets: Tensor) -> Tensor:
        """By the model's own logits, at the columns where any sequence of the batch predicts a response token."""
        length = options["input_ids"].shape[1]
        row, column = predictor // length, predictor % length
        batch = dict(options)
        if "logits_to_keep" in inspect.signature(bare(self.model).forward).parameters and targets.numel():
            columns, column = torch.unique(column, return_inverse=True)
            batch["logits_to_keep"] = columns
        return picked_log_probs(self.model(**batch).logits[row, column], targets)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def summed(values: Tensor, parts: Sequence[Tensor], loss_of: LossOf) -> tuple[Tensor, Tensor]:
    """What `fused_loss` returns, from log-probs that are there already: the sum of the losses, and the log-probs."""
    losses = [loss_of(g, values[part.to(values.device, non_blocking=True)]) for g, part in enumerate(parts)]
    # Tied to the values, so that a process without work takes part in the backward pass.
    return torch.stack([values.sum() * 0.0, *losses]).sum(), values.detach()


def inputs(
    input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, groups: Sequence[Group] | None
) -> dict[str, Any]:
    """What a model is called with, for a padded batch or a packed row; one token where there is none."""
    if input_ids.numel() == 0:
        one = input_ids.new_zeros(1, 1)
        return {"input_ids": one, "attention_mask": torch.ones_like(one), "use_cache": False}
    if groups is None:
        return {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    assert position_ids is not None
    return row_inputs(input_ids, position_ids, groups)


def inner(module: nn.Module) -> TokenLogProbs:
    """The `TokenLogProbs` that accelerate, DDP or FSDP wrapped."""
    return next(m for m in module.modules() if isinstance(m, TokenLogProbs))


def logprobs(
    module: nn.Module, sequences: Sequence[Tokens], pad_id: int, device: torch.device | None = None
) -> LogProbs:
    """Log-probs of the responses of `sequences` in one forward pass; gradients flow.

    module: a `TokenLogProbs`, wrapped or not; its `layout` says whether they are packed behind shared prompts, packed,
    or padded with `pad_id`. device: where it wants its input; by default where its weights are.
    """
    batch = inner(module).arrange(sequences, pad_id).to(device or _device(module))
    return LogProbs(module(**batch.inputs()), batch.owner, batch.count)


def token_values(
    module: nn.Module,
    sequences: Sequence[Tokens],
    pad_id: int,
    budget: int = BUDGET,
    progress: Callable[[int], object] | None = None,
) -> list[NDArray[np.float32]]:
    """Per-token log-probs of each response as (response length,) float32, in the order of `sequences`.

    No gradients, evaluation mode (restored afterwards), at most `budget` tokens at a time (one sequence at the least),
    longest first, responses to the same prompt together. `progress(n)` is called after each batch with the number of
    its sequences.
    """
    values: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(sequences)
    with torch.no_grad(), evaluating(module):
        for batch in together(module, portions(sequences, budget, inner(module).layout)):
            part = [sequences[i] for i in batch]
            flat = logprobs(module, part, pad_id).values.float().cpu().numpy()
            ends = np.cumsum([s.response_length for s in part])
            for i, piece in zip(batch, np.split(flat, ends[:-1]), strict=bool(batch)):
                values[i] = piece.copy()
            if progress is not None and batch:
                progress(len(batch))
    return values


def together(module: nn.Module, batches: Iterable[list[int]]) -> Iterator[list[int]]:
    """`batches`, filled up with empty ones to as many as the process with most has, where the model is split.

    The parts of a split model are gathered by all processes together, in every forward pass.
    """
    made = list(batches)
    most = len(made)
    if any(hasattr(p, "device_mesh") for p in module.parameters()):
        count = torch.tensor(most, device=_device(module))
        torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)
        most = int(count)
    yield from made
    yield from ([] for _ in range(most - len(made)))


def _pieces(sequences: Sequence[Tokens], group: Sequence[int], budget: int) -> Iterator[tuple[int, list[int]]]:
    """Sequences behind one prompt in rows of at most `budget` tokens, longest first; each with its tokens."""
    piece: list[int] = []
    cost = 0
    for i in sorted(group, key=lambda i: -len(sequences[i])):
        more = packed_length([sequences[j] for j in (*piece, i)])
        if piece and more > budget:
            yield cost, piece
            piece, more = [], packed_length([sequences[i]])
        piece, cost = [*piece, i], more
    yield cost, piece


def portions(sequences: Sequence[Tokens], budget: int, layout: Layout = "shared") -> Iterator[list[int]]:
    """The places of `sequences` in batches of at most `budget` tokens (one sequence at the least), longest first.

    The tokens of a batch are those of its packed row, or, where it is padded, its sequences times the longest.
    """
    members = by_prompt(sequences) if layout == "shared" else [[i] for i in range(len(sequences))]
    pieces = [piece for group in members for piece in _pieces(sequences, group, budget)]
    batch: list[int] = []
    total = longest = 0
    for cost, group in sorted(pieces, key=lambda piece: -piece[0]):
        longest = max(longest, cost)
        total = (len(batch) + 1) * longest if layout == "padded" else total + cost
        if batch and total > budget:
            yield batch
            batch, total, longest = [], cost, cost
        batch = batch + group
    if batch:
        yield batch


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
