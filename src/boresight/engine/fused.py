"""Head, loss and gradient in one pass over the logits: three matrix products a token, where recomputing takes four.

The gradient of the loss needs the softmax of each token and one coefficient, d loss / d log p(target). If the loss is
a sum over groups of tokens, each of which needs no log-probs but its own, the coefficients of a group are known as
soon as its log-probs are: its logits, still in memory, become the gradient and are overwritten by the next group's.

It may be used where the loss separates by rows (pairs, single responses, lists) and everything else it needs - the
reference's log-probs, weights, normalisers - is known beforehand. It may not where rows depend on one another (a
running mean, a sort, a baseline over the batch): those go through `token_log_probs`. A parameter that `loss_of` uses
of its own gets no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boresight.engine.head import (
    TILE,
    HeadShape,
    Space,
    accumulation_dtype,
    add_gradients,
    add_product,
    bend,
    block_rows,
    product_dtype,
    settled,
    tiling_of,
    values_and_totals,
)
from boresight.errors import InputError

ROOM = 1 << 26
"""Logits held at once: 256 MiB in fp32, 512 tokens of a vocabulary of 131,072."""

LossOf = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class _Plan:
    groups: list[Tensor]
    loss_of: LossOf
    form: tuple[float, float | None]
    room: int
    dtype: torch.dtype
    graded: bool


def fused_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    groups: Sequence[Tensor],
    loss_of: LossOf,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
    room: int = ROOM,
) -> tuple[Tensor, Tensor]:
    """The sum of `loss_of(g, log-probs of group g)` over the groups, and the log-probs of all tokens.

    hidden: (tokens, width). weight: (vocabulary, width). bias: (vocabulary,). targets: (tokens,) int64 in
    [0, vocabulary). groups: int64 indices of tokens; each token is in exactly one group, whose order is the order of
    the log-probs that `loss_of` gets, in nats, fp32 or fp64; it returns a scalar. scale, cap: as in `token_log_probs`.
    At most `room` logits exist at a time: a group of more is computed in tiles, with four products a token.

    Returns the loss, a scalar, differentiable once in hidden, weight and bias, and the log-probs, (tokens,), without
    gradient. Raises InputError if the groups are no partition of the tokens or a loss is no scalar.
    """
    tokens, device = targets.shape[0], hidden.device
    # Looked at where they lie: on a CPU, if nobody is to wait for a GPU.
    lie = groups[0].device if groups else device
    every = torch.cat([torch.zeros(0, dtype=torch.int64, device=lie), *groups])
    if every.shape[0] != tokens or not torch.equal(every.sort().values, torch.arange(tokens, device=lie)):
        raise InputError("the groups of a fused loss must hold every token exactly once")
    groups = [group.to(device, non_blocking=True) for group in groups]
    graded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    plan = _Plan(groups, loss_of, (scale, cap), room, product_dtype(hidden, weight), graded)
    loss, values = _FusedLoss.apply(hidden, weight, bias, targets, plan)
    return loss, values


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        wanted = [plan.graded and need for need in ctx.needs_input_grad[:3]]
        run = _Pass(hidden, weight, bias, targets, plan, wanted)
        for number in range(len(plan.groups)):
            run.group(number)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.plan, ctx.made, ctx.coefficients = plan, run.made, run.coefficients
        ctx.mark_non_differentiable(run.values)
        return run.loss, run.values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        # The gradients are handed over, so that no copy is kept; whoever asks again (retain_graph) waits for them.
        made, ctx.made = ctx.made, None
        if made is None:
            made = _again(hidden, weight, bias, targets, ctx.plan, ctx.coefficients, ctx.needs_input_grad[:3])
        given = grads[0]
        neutral = not given.is_cuda and float(given) == 1.0
        out: list[Tensor | None] = []
        for leaf, gradient in zip((hidden, weight, bias), made, strict=True):
            if gradient is not None and leaf is not None:
                gradient = (gradient if neutral else gradient.mul_(given)).to(leaf.dtype)
            out.append(gradient)
        return *out, None, None


class _Pass:
    """One pass over the groups; what it has made so far."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan, wanted: list[bool]
    ) -> None:
        self.hidden, self.weight, self.bias, self.targets, self.plan = hidden, weight, bias, targets, plan
        exact, device = accumulation_dtype(plan.dtype), hidden.device
        self.exact = exact
        self.loss = torch.zeros((), dtype=exact, device=device)
        self.values = torch.zeros(targets.shape, dtype=exact, device=device)
        self.coefficients = torch.zeros_like(self.values)
        self.made = _zeros((hidden, weight, bias), exact, wanted)
        self.vocabulary = weight.shape[0]
        self.cast = weight.to(plan.dtype)
        sizes = [len(group) * self.vocabulary for group in plan.groups]
        most = max([size for size in sizes if size <= plan.room], default=0)
        self.logits = torch.empty(most, dtype=plan.dtype, device=device)
        self.block = block_rows(self.vocabulary, device)
        self.space = Space(0, min(most, self.block * self.vocabulary), plan.dtype, device)

    def group(self, number: int) -> None:
        index = self.plan.groups[number]
        whole = len(index) * self.vocabulary <= self.plan.room
        rows, targets = self.hidden[index], self.targets[index]
        if whole:
            with torch.autocast(rows.device.type, enabled=False):
                tile, values = self._tile(rows.to(self.plan.dtype), targets)
        else:
            shape = HeadShape(
                self.plan.form, tiling_of(len(index), self.vocabulary, min(TILE, self.plan.room)), self.plan.dtype
            )
            values, total = values_and_totals(rows, self.weight, self.bias, targets, shape)
        self.values[index] = values
        coefficients = self._coefficients(number, values)
        if coefficients is None:
            return
        self.coefficients[index] = coefficients
        if whole:
            with torch.autocast(rows.device.type, enabled=False):
                self._gradients(index, rows, tile, coefficients)
        else:
            part = torch.zeros_like(rows, dtype=self.exact)
            into = (None if self.made[0] is None else part, *self.made[1:])
            add_gradients(rows, self.weight, self.bias, targets, shape, total, coefficients, into)
            if self.made[0] is not None:
                self.made[0][index] = part

    def _coefficients(self, number: int, values: Tensor) -> Tensor | None:
        """Adds the loss of the group; d loss / d log-probs, or None if no gradient is wanted."""
        if not self.plan.graded:
            self.loss += _scalar(self.plan.loss_of(number, values))
            return None
        with torch.enable_grad():
            leaf = values.detach().requires_grad_()
            loss = _scalar(self.plan.loss_of(number, leaf))
            self.loss += loss.detach()
            if not loss.requires_grad:
                return torch.zeros_like(values)
            found = torch.autograd.grad(loss, leaf, allow_unused=True)[0]
        return torch.zeros_like(values) if found is None else settled(found)

    def _tile(self, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The group's softmax minus one-hot, times the soft-cap's slope, in the products' dtype; and its log-probs."""
        count, (scale, cap), graded = len(rows), self.plan.form, self.plan.graded
        tile = self.logits[: count * self.vocabulary].view(count, self.vocabulary)
        place, values = targets.unsqueeze(1), torch.empty(count, dtype=self.exact, device=rows.device)
        at_once = not self.space.unrounded
        if at_once:
            torch.mm(rows, self.cast.T, out=tile)
        for start in range(0, count, self.block):
            part = slice(start, start + self.block)
            logits = self.space.exactly(tile[part]) if at_once else self.space.product(rows[part], self.cast.T)
            if self.bias is not None:
                logits += self.bias
            logits = bend(logits, scale, cap)
            slope = (logits / cap).square_().neg_().add_(1.0) if cap is not None and graded else None
            logits = torch.log_softmax(logits, 1, out=logits) if logits.device.type == "cpu" else logits.log_softmax(1)
            values[part] = logits.gather(1, place[part]).squeeze(1)
            if not graded:
                continue
            logits.exp_().scatter_(1, place[part], values[part].unsqueeze(1).expm1())
            if slope is not None:
                logits.mul_(slope)
            if logits.data_ptr() != tile[part].data_ptr():
                tile[part] = logits
        return tile, values

    def _gradients(self, index: Tensor, rows: Tensor, tile: Tensor, coefficients: Tensor) -> None:
        """Each row's factor goes onto the hidden state and its gradient, which are narrower than the tile.

        In half precision the weight's gradient so holds one rounding more, that of the scaled hidden states.
        """
        to_hidden, to_weight, to_bias = self.made
        factor = (coefficients * -self.plan.form[0]).unsqueeze(1)
        if to_hidden is not None:
            part = torch.zeros(rows.shape, dtype=self.exact, device=rows.device)
            add_product(part, tile, self.cast)
            to_hidden[index] = part.mul_(factor)
        if to_weight is not None:
            add_product(to_weight, tile.T, (rows * factor).to(tile.dtype))
        if to_bias is not None:
            for part, weights in zip(tile.split(self.block), factor.split(self.block), strict=True):
                to_bias.addmv_(part.to(self.exact).T, weights.squeeze(1))


def _scalar(loss: Tensor) -> Tensor:
    if loss.dim():
        raise InputError(f"the loss of a group must be a scalar, not of shape {tuple(loss.shape)}", mend="return a sum")
    return loss


def _zeros(leaves: Sequence[Tensor | None], exact: torch.dtype, wanted: Sequence[bool]) -> list[Tensor | None]:
    return [
        torch.zeros(leaf.shape, dtype=exact, device=leaf.device) if need and leaf is not None else None
        for leaf, need in zip(leaves, wanted, strict=True)
    ]


def _again(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    plan: _Plan,
    coefficients: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients once more, in tiles, from the coefficients that are known."""
    made = _zeros((hidden, weight, bias), coefficients.dtype, wanted)
    shape = HeadShape(plan.form, tiling_of(len(targets), weight.shape[0], min(TILE, plan.room)), plan.dtype)
    _, total = values_and_totals(hidden, weight, bias, targets, shape)
    add_gradients(hidden, weight, bias, targets, shape, total, coefficients, made)
    return made
