"""log p(token) from hidden states, in tiles over tokens and vocabulary: no (tokens, vocabulary) tensor ever exists.

The logits of one tile are made, folded into a running logsumexp, and thrown away; the backward pass makes them again.
Matrix products run in the dtype the model's own head would use (bf16 stays bf16 on the tensor cores); normalisation
and every accumulation are fp32, or fp64 for fp64 input. The online logsumexp is that of Milakov and Gimelshein 2018
(arXiv 1805.02867), the recomputing backward that of Cut Cross-Entropy (Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 1 << 22
"""Elements of one tile of logits: 16 MiB in fp32, small enough for the allocator to reuse it on CPU."""

_UNROUNDED = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
"""Whether torch.mm takes `out_dtype`."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, fp32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def bend(logits: Tensor, scale: float, cap: float | None) -> Tensor:
    """What a model does to its logits after the head: `cap * tanh(scale * logits / cap)`, in place."""
    if scale != 1.0:
        logits = logits.mul_(scale)
    if cap is not None:
        logits = logits.div_(cap).tanh_().mul_(cap)
    return logits


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b as `dtype`; on CUDA half-precision products are returned unrounded."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype != dtype and a.is_cuda and _UNROUNDED:
            return torch.mm(a, b, out_dtype=dtype)
        return (a @ b).to(dtype)


def _tiling(tokens: int, vocabulary: int, tile: int, vocab_chunk: int | None) -> tuple[int, int]:
    """Tokens and vocabulary entries of one tile, both at least 1, their product at most `tile` where that can be."""
    if vocab_chunk is not None:
        columns = min(vocab_chunk, vocabulary)
        return max(1, min(tokens, tile // columns)), columns
    # Flat tiles (512 x 8192 at the default) keep the products efficient and the weight's chunks few.
    rows = max(1, min(tokens, isqrt(tile) // 4))
    return rows, max(1, min(vocabulary, tile // rows))


class _TokenLogProbs(torch.autograd.Function):
    """hidden (tokens, width), weight (vocabulary, width), bias (vocabulary,) or None, targets (tokens,)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        form: tuple[float, float | None],
        tiling: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.form, ctx.tiling, ctx.dtype = form, tiling, dtype
        exact = accumulation_dtype(dtype)
        total = torch.full(targets.shape, -torch.inf, dtype=exact, device=hidden.device)
        picked = torch.zeros_like(total)
        for columns, tiles in _tiles(hidden, weight, bias, form, tiling, dtype):
            for rows, logits, _, _ in tiles:
                total[rows] = torch.logaddexp(total[rows], logits.logsumexp(1))
                place, inside = _locate(targets[rows], columns)
                picked[rows] = torch.where(inside, logits.gather(1, place).squeeze(1), picked[rows])
        ctx.total = total
        return picked - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        exact, (scale, cap) = ctx.total.dtype, ctx.form
        grad = grads[0].to(exact)
        grad_hidden = torch.zeros(hidden.shape, dtype=exact, device=hidden.device) if to_hidden else None
        grad_weight = torch.empty_like(weight) if to_weight else None
        grad_bias = torch.empty_like(bias) if to_bias else None
        for columns, tiles in _tiles(hidden, weight, bias, ctx.form, ctx.tiling, ctx.dtype):
            width = columns.stop - columns.start
            weight_part = torch.zeros((width, hidden.shape[1]), dtype=exact, device=hidden.device)
            bias_part = torch.zeros(width, dtype=exact, device=hidden.device)
            for rows, logits, hidden_rows, weight_columns in tiles:
                # d log p(target) / d logits = one-hot(target) - softmax, times the slope of the soft-cap
                slope = None if cap is None else (logits / cap).square_().neg_().add_(1.0)
                g = grad[rows].unsqueeze(1)
                tile = logits.sub_(ctx.total[rows].unsqueeze(1)).exp_().mul_(-g)
                place, inside = _locate(targets[rows], columns)
                tile.scatter_add_(1, place, g * inside.unsqueeze(1))
                if slope is not None:
                    tile.mul_(slope)
                if scale != 1.0:
                    tile.mul_(scale)
                if to_bias:
                    bias_part += tile.sum(0)
                tile = tile.to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] += _product(tile, weight_columns, exact)
                if to_weight:
                    weight_part += _product(tile.T, hidden_rows, exact)
            if grad_weight is not None:
                grad_weight[columns] = weight_part.to(weight.dtype)
            if grad_bias is not None:
                grad_bias[columns] = bias_part.to(bias.dtype)
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


_Tile = tuple[slice, Tensor, Tensor, Tensor]


def _tiles(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    form: tuple[float, float | None],
    tiling: tuple[int, int],
    dtype: torch.dtype,
) -> Iterator[tuple[slice, Iterator[_Tile]]]:
    """For each slice of the vocabulary: the slices of tokens, each with its logits, hidden rows and weight rows.

    The vocabulary is the outer loop, so that each part of the weight is cast once and its gradient is whole at the end.
    """
    exact, (height, width) = accumulation_dtype(dtype), tiling
    hidden = hidden.to(dtype)

    def along(columns: slice) -> Iterator[_Tile]:
        part = weight[columns].to(dtype)
        for start in range(0, hidden.shape[0], height):
            rows = slice(start, min(start + height, hidden.shape[0]))
            logits = _product(hidden[rows], part.T, exact)
            if bias is not None:
                logits += bias[columns]
            yield rows, bend(logits, *form), hidden[rows], part

    for start in range(0, weight.shape[0], width):
        columns = slice(start, min(start + width, weight.shape[0]))
        yield columns, along(columns)


def _locate(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where in the slice each target lies, (rows, 1), clamped; and whether it does, (rows,) bool."""
    inside = (targets >= columns.start) & (targets < columns.stop)
    return (targets - columns.start).clamp(0, columns.stop - columns.start - 1).unsqueeze(1), inside


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
    tile: int = TILE,
    vocab_chunk: int | None = None,
) -> Tensor:
    """log p(targets) under softmax(cap * tanh(scale * (hidden @ weight.T + bias) / cap)), in nats.

    hidden: (tokens, width). weight: (vocabulary, width). bias: (vocabulary,). targets: (tokens,) int64 in
    [0, vocabulary). At most `tile` logits exist at a time; `vocab_chunk` fixes how many columns of the vocabulary
    a tile has. Returns (tokens,) fp32, or fp64 for fp64 input. Differentiable once, in hidden, weight and bias.
    """
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(hidden.device.type)
    else:
        dtype = weight.dtype
    tiling = _tiling(hidden.shape[0], weight.shape[0], tile, vocab_chunk)
    return _TokenLogProbs.apply(hidden, weight, bias, targets, (scale, cap), tiling, dtype)


def module_log_probs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    *,
    vocabulary: int,
    scale: float = 1.0,
    cap: float | None = None,
    tile: int = TILE,
) -> Tensor:
    """The same through the head module itself, whatever it is: LoRA on it, quantised, hooked, sharded.

    Tokens go through it in chunks of at most `tile` logits (one token at the least); each chunk's logits are made
    again in the backward pass. Shapes as in `token_log_probs`.
    """
    from torch.utils.checkpoint import checkpoint

    def part(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = head(rows)
        exact = logits.to(accumulation_dtype(logits.dtype))
        if scale != 1.0:
            exact = exact * scale
        if cap is not None:
            exact = torch.tanh(exact / cap) * cap
        return exact.gather(1, wanted.unsqueeze(1)).squeeze(1) - exact.logsumexp(1)

    size = max(1, tile // vocabulary)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(part, rows, wanted, use_reentrant=False) for rows, wanted in chunks])
    return torch.cat([part(rows, wanted) for rows, wanted in chunks])
