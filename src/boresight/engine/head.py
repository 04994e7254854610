"""log p(token) from hidden states, in tiles over tokens and vocabulary: no (tokens, vocabulary) tensor ever exists.

The logits of one tile are made, folded into a running logsumexp, and thrown away; the backward pass makes them again.
Matrix products run in the dtype the model's own head would use (bf16 stays bf16 on the tensor cores); normalisation
and every accumulation are fp32, or fp64 for fp64 input. The online logsumexp is that of Milakov and Gimelshein 2018
(arXiv 1805.02867), the recomputing backward that of Cut Cross-Entropy (Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


class Space:
    """Buffers for products of at most `elements` numbers, used again for every tile.

    Fresh tensors of this size come from the kernel and go back to it at each use on CPU: their page faults cost as
    much as the product. On CUDA the allocator keeps them, and half-precision products are returned unrounded.
    """

    def __init__(self, tile: int, block: int, dtype: torch.dtype, device: torch.device) -> None:
        """tile: most numbers of a product. block: most that are wanted at a time in the accumulation's dtype."""
        self.dtype, self.exact = dtype, accumulation_dtype(dtype)
        self.unrounded = device.type == "cuda" and _UNROUNDED and dtype != self.exact
        self.block = max(1, block)
        self._tile = torch.empty(0 if self.unrounded else tile, dtype=dtype, device=device)
        self._block = torch.empty(0 if dtype == self.exact else block, dtype=self.exact, device=device)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b in the products' dtype or, unrounded, in the accumulation's; overwritten by the next."""
        if self.unrounded:
            return torch.mm(a, b, out_dtype=self.exact)
        shape = (a.shape[0], b.shape[1])
        return torch.mm(a, b, out=self._tile[: shape[0] * shape[1]].view(shape))

    def exactly(self, block: Tensor) -> Tensor:
        """Some rows of a product in the accumulation's dtype: themselves, or a copy that the next one overwrites."""
        if block.dtype == self.exact:
            return block
        return self._block[: block.numel()].view(block.shape).copy_(block)


def block_rows(columns: int, device: torch.device) -> int:
    """How many rows of logits to work on at a time: on CPU so few that they stay in the cache, but one a thread."""
    if device.type == "cpu":
        return max(torch.get_num_threads(), TILE // 8 // columns)
    return max(1, 8 * TILE // columns)


def add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """into += a @ b, in the dtype of `into`."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype == into.dtype:
            into.addmm_(a, b)
        elif a.is_cuda and _UNROUNDED:
            into.add_(torch.mm(a, b, out_dtype=into.dtype))
        else:
            into.add_(a @ b)


@dataclass(frozen=True)
class HeadShape:
    """How a head is computed: (scale, cap) as in `bend`, (tokens, vocabulary entries) of a tile, dtype of products."""

    form: tuple[float, float | None]
    tiling: tuple[int, int]
    dtype: torch.dtype


def product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype in which the model's own head would multiply: autocast's where it is on, else the weight's."""
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    return weight.dtype


def tiling_of(tokens: int, vocabulary: int, tile: int, vocab_chunk: int | None = None) -> tuple[int, int]:
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
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: HeadShape
    ) -> Tensor:
        values, ctx.total = values_and_totals(hidden, weight, bias, targets, shape)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.shape = shape
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        leaves = zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        exact = ctx.total.dtype
        made = [
            torch.zeros(leaf.shape, dtype=exact if i == 0 else leaf.dtype, device=leaf.device) if wanted else None
            for i, (leaf, wanted) in enumerate(leaves)
        ]
        add_gradients(hidden, weight, bias, targets, ctx.shape, ctx.total, settled(grads[0].to(exact)), made)
        if made[0] is not None:
            made[0] = made[0].to(hidden.dtype)
        return *made, None, None


def settled(coefficients: Tensor) -> Tensor:
    """The same, with those of nearly nothing as zero: below 1e-26 in fp32, 1e-296 in fp64.

    Pairs that are learnt have such slopes (sigmoid(-60) is 1e-26). Their products with probabilities are subnormal
    numbers, with which a CPU is fifty times slower (measured), and which Adam's epsilon leaves nothing of.
    """
    return torch.where(coefficients.abs() < torch.finfo(coefficients.dtype).tiny * 2**40, 0.0, coefficients)


def values_and_totals(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: HeadShape
) -> tuple[Tensor, Tensor]:
    """log p(targets) and logsumexp of the logits, each (tokens,), fp32 or fp64. No gradients."""
    exact = accumulation_dtype(shape.dtype)
    total = torch.full(targets.shape, -torch.inf, dtype=exact, device=hidden.device)
    picked = torch.zeros_like(total)
    least = torch.finfo(exact).min
    for columns, tiles in _tiles(hidden, weight, bias, shape):
        place, inside = _locate(targets, columns)
        for tile in tiles:
            for _, at, logits in tile.blocks():
                picked[at] = torch.where(inside[at], logits.gather(1, place[at]).squeeze(1), picked[at])
                # logits.logsumexp(1), without its temporaries; a row of -inf stays -inf
                peak = logits.amax(1).clamp(min=least)
                part = logits.sub_(peak.unsqueeze(1)).exp_().sum(1).log_().add_(peak)
                total[at] = torch.logaddexp(total[at], part)
    return picked - total, total


def add_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shape: HeadShape,
    total: Tensor,
    grad: Tensor,
    into: Sequence[Tensor | None],
) -> None:
    """Adds the gradients of (grad * log p(targets)).sum() for hidden, weight and bias to the three of `into`.

    total: the logsumexp of the logits. Those of `into` that are None are not made; the first must have the dtype of
    the accumulation.
    """
    exact, (scale, cap) = total.dtype, shape.form
    grad_hidden, grad_weight, grad_bias = into
    # d log p(target) / d logits = one-hot(target) - softmax, times the slope of the soft-cap. A tile holds its
    # negative; each row's factor goes onto the hidden state, which is narrower than the tile, or, in half precision,
    # onto the tile before that is rounded, so that nothing else is.
    factor = grad * -scale
    inner, outer = (None, factor) if shape.dtype == exact else (factor.unsqueeze(1), torch.ones_like(factor))
    scaled = None if grad_weight is None else (hidden * outer.unsqueeze(1)).to(shape.dtype)
    made = None if grad_hidden is None else torch.zeros_like(grad_hidden)
    for columns, tiles in _tiles(hidden, weight, bias, shape):
        weight_part = None if grad_weight is None else _accumulator(grad_weight[columns], exact)
        bias_part = None if grad_bias is None else _accumulator(grad_bias[columns], exact)
        place, inside = _locate(targets, columns)
        hit = inside.unsqueeze(1).to(exact).neg_()
        for tile in tiles:
            for block, at, logits in tile.blocks():
                slope = None if cap is None else (logits / cap).square_().neg_().add_(1.0)
                logits.sub_(total[at].unsqueeze(1)).exp_().scatter_add_(1, place[at], hit[at])
                if slope is not None:
                    logits.mul_(slope)
                if inner is not None:
                    logits.mul_(inner[at])
                if bias_part is not None:
                    bias_part.addmv_(logits.T, outer[at])
                tile.settle(block, logits)
            product = tile.product.to(shape.dtype)
            if made is not None:
                add_product(made[tile.rows], product, tile.part)
            if weight_part is not None and scaled is not None:
                add_product(weight_part, product.T, scaled[tile.rows])
        for whole, made_part in ((grad_weight, weight_part), (grad_bias, bias_part)):
            if whole is not None and made_part is not None and whole.dtype != exact:
                whole[columns] = made_part.to(whole.dtype)
    if grad_hidden is not None and made is not None:
        grad_hidden.addcmul_(made, outer.unsqueeze(1))


@dataclass(frozen=True)
class _Tile:
    """product: hidden[rows] @ part.T, part being some rows of the weight in the products' dtype."""

    rows: slice
    product: Tensor
    part: Tensor
    bias: Tensor | None
    form: tuple[float, float | None]
    space: Space

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """A few rows at a time: where they are in the tile, where among the tokens, and their logits, to be altered."""
        count, each = len(self.product), max(1, self.space.block // len(self.part))
        for start in range(0, count, each):
            block = slice(start, min(start + each, count))
            logits = self.space.exactly(self.product[block])
            if self.bias is not None:
                logits += self.bias
            at = slice(self.rows.start + block.start, self.rows.start + block.stop)
            yield block, at, bend(logits, *self.form)

    def settle(self, block: slice, made: Tensor) -> None:
        """`made`, the altered logits of a block, into the product, if they are not there already."""
        if self.product.dtype != made.dtype:
            self.product[block] = made


def _tiles(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, shape: HeadShape
) -> Iterator[tuple[slice, Iterator[_Tile]]]:
    """For each slice of the vocabulary: its tiles, one for each slice of the tokens. A tile overwrites the last one.

    The vocabulary is the outer loop, so that each part of the weight is cast once and its gradient is whole at the end.
    """
    height, width = shape.tiling
    hidden = hidden.to(shape.dtype)
    block = width * min(height, block_rows(width, hidden.device))
    space = Space(height * width, block, shape.dtype, hidden.device)

    def along(columns: slice) -> Iterator[_Tile]:
        part = weight[columns].to(shape.dtype)
        for start in range(0, hidden.shape[0], height):
            rows = slice(start, min(start + height, hidden.shape[0]))
            with torch.autocast(hidden.device.type, enabled=False):
                product = space.product(hidden[rows], part.T)
            yield _Tile(rows, product, part, None if bias is None else bias[columns], shape.form, space)

    for start in range(0, weight.shape[0], width):
        columns = slice(start, min(start + width, weight.shape[0]))
        yield columns, along(columns)


def _accumulator(part: Tensor, exact: torch.dtype) -> Tensor:
    """`part` itself if it may be added to, else zeros to be rounded into it at the end."""
    return part if part.dtype == exact else torch.zeros_like(part, dtype=exact)


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
    tiling = tiling_of(hidden.shape[0], weight.shape[0], tile, vocab_chunk)
    shape = HeadShape((scale, cap), tiling, product_dtype(hidden, weight))
    values: Tensor = _TokenLogProbs.apply(hidden, weight, bias, targets, shape)
    return values


def picked_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p(targets), (tokens,) fp32 or fp64, from all logits, (tokens, vocabulary)."""
    logits = logits.to(accumulation_dtype(logits.dtype))
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)


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
        return picked_log_probs(exact, wanted)

    size = max(1, tile // vocabulary)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(part, rows, wanted, use_reentrant=False) for rows, wanted in chunks])
    return torch.cat([part(rows, wanted) for rows, wanted in chunks])
