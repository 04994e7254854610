"""Attention over a row of `layout.pack`: each token sees what it would have seen had its sequence been alone.

Per group of the row: the common part and its first branch are one causal block; all other branches look at the common
part together, and each at itself. The two views of a branch are joined by their log-sum-exps, so that no mask is ever
made and no key is laid twice. The backward pass runs over the same blocks with the joined sums, which is what makes it
exact (Dao et al. 2022, arXiv 2205.14135, for the identity). What that kernel cannot do - sliding windows shorter than a
sequence, soft-capped scores, attention sinks, other devices than the CPU - goes by `attend`, group by group and with
masks, which is also what the fast one is tested against. On a GPU the whole row goes through one compiled kernel
(`flex.py`) where that gives what `attend` gives.

A transformers model is led here by an attention function that is registered under a name of its own. It finds the
layout on the attention mask it is given, which models hand down unchanged; without one it does what the model's own
attention does, so generation and padded batches stay as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from boresight.engine import flex
from boresight.engine.layout import Group, aligned
from boresight.errors import RunError

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

SHORT = 512
"""Keys up to which the CPU's backward kernel is faster in fp32 than in half precision: 5 times at 60, alike at 500."""
PREFIX = "boresight-"
"""Before the name of the model's own attention: what transformers knows ours by."""
Kernel = Literal["", "segments", "flex"]
"""What attention is computed by; in the name behind PREFIX, if it is not by device: flex_attention on GPUs alone."""

_HARMLESS = {"position_ids", "cache_position"}
"""Tensors given to attention functions that change nothing in what is computed."""


class CannotPack(RunError):
    """A layer whose attention is not of the kind that can be computed by segments."""

    def __init__(self, what: str) -> None:
        super().__init__(what, mend="report it with the model's config.json")


class Blocks:
    """Which queries see which keys, as slices of the row: (queries, keys, causal)."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.first: list[slice] = []
        """Causal blocks that begin a sequence."""
        self.joined: list[tuple[slice, slice, list[slice]]] = []
        """Other branches: all of them, the common part, and each of them."""
        for start, common, branches in groups:
            begin = start + common + (branches[0] if branches else 0)
            if begin > start:
                self.first.append(slice(start, begin))
            rest, own = begin, []
            for length in branches[1:]:
                own.append(slice(begin, begin + length))
                begin += length
            if not common:  # nothing in common: plain sequences
                self.first += own
            elif own:
                self.joined.append((slice(rest, begin), slice(start, start + common), own))


class _Segments(torch.autograd.Function):
    """query (1, H, N, D), key and value (1, G, N, D), G dividing H -> (1, N, H, D). CPU."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float) -> Tensor:
        _, heads, length, width = query.shape
        out = query.new_empty(1, length, heads, width)
        exact = torch.float64 if query.dtype == torch.float64 else torch.float32
        sums = torch.empty(1, heads, length, dtype=exact)
        to = out.transpose(1, 2)

        def see(q: slice, k: slice, causal: bool) -> tuple[Tensor, Tensor]:
            one: tuple[Tensor, Tensor] = _flash(query[:, :, q], key[:, :, k], value[:, :, k], 0.0, causal, scale=scale)
            return one

        for part in blocks.first:
            to[:, :, part], sums[:, :, part] = see(part, part, True)
        for rest, common, branches in blocks.joined:
            seen, total = see(rest, common, False)
            for branch in branches:
                here = slice(branch.start - rest.start, branch.stop - rest.start)
                own, own_total = see(branch, branch, True)
                joint = torch.logaddexp(total[:, :, here], own_total)
                ours = (own_total - joint).exp_().unsqueeze(-1)
                theirs = (total[:, :, here] - joint).exp_().unsqueeze(-1)
                to[:, :, branch] = seen[:, :, here] * theirs + own * ours
                sums[:, :, branch] = joint
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        blocks, scale = ctx.blocks, ctx.scale
        grad, out = grads[0].transpose(1, 2), out.transpose(1, 2)
        to_query = _like(query)
        to_key, to_value = _like(key), _like(value)

        def back(q: slice, k: slice, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            given = [grad[:, :, q], query[:, :, q], key[:, :, k], value[:, :, k], out[:, :, q]]
            if query.dtype.itemsize < 4 and k.stop - k.start <= SHORT:
                given = [t.float() for t in given]
            three: tuple[Tensor, Tensor, Tensor] = _flash_backward(
                *given, sums[:, :, q].contiguous(), 0.0, causal, scale=scale
            )
            return three

        for part in blocks.first:
            to_query[:, :, part], to_key[:, :, part], to_value[:, :, part] = back(part, part, True)
        for rest, common, branches in blocks.joined:
            from_common, keys, values = back(rest, common, False)
            to_query[:, :, rest] = from_common
            to_key[:, :, common] += keys
            to_value[:, :, common] += values
            for branch in branches:
                own, keys, values = back(branch, branch, True)
                to_query[:, :, branch] += own
                to_key[:, :, branch], to_value[:, :, branch] = keys, values
        return to_query, to_key, to_value, None, None


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same shape, laid out (1, N, heads, D) as models lay theirs."""
    _, heads, length, width = tensor.shape
    return tensor.new_empty(1, length, heads, width).transpose(1, 2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: Sequence[Group],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same with masks, on any device, for any kernel: (1, H, N, D), (1, G, N, D), (1, G, N, E) -> (1, N, H, E).

    window: a token sees itself and the `window - 1` before it. softcap: scores become softcap * tanh(scores / softcap).
    sinks: (H,), a score of each head that takes its share of the weights and adds nothing.
    """
    pieces = []
    for start, common, branches in groups:
        begin = start
        keys, values = (t[:, :, start : start + common] for t in (key, value))
        for k, length in enumerate(branches or (0,)):
            end = start + common + sum(branches[: k + 1])
            own = slice(end - length, end)
            q = slice(begin, end)
            if k == 0:
                ks, vs = key[:, :, q], value[:, :, q]
            else:
                ks, vs = torch.cat([keys, key[:, :, own]], 2), torch.cat([values, value[:, :, own]], 2)
            begin = end
            if q.stop > q.start:
                pieces.append(
                    _one(query[:, :, q], ks, vs, scale=scale, window=window, softcap=softcap, sinks=sinks, drop=dropout)
                )
    if not pieces:
        return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1])
    # Laid out as every attention function of transformers returns it: some models take a view of it.
    return torch.cat([piece.transpose(1, 2) for piece in pieces], 1)


def _one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    drop: float,
) -> Tensor:
    """Causal attention of the last queries of one sequence, (1, H, q, D), to all of its keys, (1, G, k, D)."""
    most, many = query.shape[2], key.shape[2]
    mask = None
    if window is not None and window >= many:
        window = None
    if most < many or window is not None or softcap is not None or sinks is not None:
        at = torch.arange(many - most, many, device=query.device).unsqueeze(1)
        to = torch.arange(many, device=query.device)
        mask = to <= at
        if window is not None:
            mask = mask & (at - to < window)
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    if softcap is None and sinks is None:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, dropout_p=drop, scale=scale
        )
    scores = (query @ key.transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    assert mask is not None
    scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(1, -1, most, 1).to(scores.dtype)], 3)
    # As the models do it that have these, in fp64 too.
    exact = scores.dtype if softcap is None else torch.float32
    weights = scores.softmax(3, dtype=exact).to(query.dtype)[..., :many]
    return nn.functional.dropout(weights, drop) @ value


class Laid:
    """The layout of a row on its way through a model, and what its attention layers said while it was watched."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.blocks = Blocks(self.groups)
        self.longest = max((g.common + max(g.branches, default=0) for g in self.groups), default=0)
        self.windows: list[int | None] = []
        """The sliding window of each layer that was called, in order."""
        self._sights: dict[tuple[int | None, torch.device], flex.Sight] = {}

    def sight(self, window: int | None, device: torch.device) -> flex.Sight:
        """What `flex.flex` is told of the row: made once, not in every layer."""
        if (window, device) not in self._sights:
            self._sights[window, device] = flex.sight(self.groups, window, device)
        return self._sights[window, device]

    def check(self, layers: int) -> None:
        """Raise CannotPack if fewer than `layers` layers have attended by this layout since it was made."""
        if len(self.windows) < layers:
            raise CannotPack(f"the layout reached {len(self.windows)} of {layers} attention layers")

    def mask(self, device: torch.device) -> Tensor:
        """What is given to the model as its attention mask: (1, 1, 1, 1) bool, with this object on it."""
        tensor = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        tensor.laid = self  # type: ignore[attr-defined]
        return tensor


def row_inputs(input_ids: Tensor, position_ids: Tensor, groups: Sequence[Group]) -> dict[str, Any]:
    """What a transformers model whose attention was replaced is called with for a row; its `Laid` is on the mask."""
    if flex.serves(input_ids.device):
        input_ids, position_ids, groups = aligned(input_ids, position_ids, groups)
    mask = Laid(groups).mask(input_ids.device)
    return {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": mask, "use_cache": False}


def register(own: str, kernel: Kernel = "") -> str:
    """Make ours known to transformers for models whose own attention is `own`; returns the name to use."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    name = PREFIX + (f"{kernel}-" if kernel else "") + own
    AttentionInterface.register(name, _attention(own, kernel))
    if own in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    return name


def _attention(own: str, kernel: Kernel = "") -> Callable[..., tuple[Tensor, Any]]:
    """The attention function for models whose own implementation is `own`."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Any]:
        laid: Laid | None = getattr(attention_mask, "laid", None)
        if laid is not None:
            return _packed(module, query, key, value, laid, kernel, **options), None
        if attention_mask is not None and attention_mask.shape == (1, 1, 1, 1) and query.shape[2] > 1:
            raise CannotPack(f"{type(module).__name__} does not hand down the attention mask as it is")
        result: tuple[Tensor, Any] = _own(module, own)(module, query, key, value, attention_mask, **options)
        return result

    return attention


def _own(module: nn.Module, name: str) -> Callable[..., tuple[Tensor, Any]]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if name == "eager":
        eager: Callable[..., tuple[Tensor, Any]] = sys.modules[type(module).__module__].eager_attention_forward
        return eager
    chosen: Callable[..., tuple[Tensor, Any]] = ALL_ATTENTION_FUNCTIONS[name]
    return chosen


def _packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    laid: Laid,
    kernel: Kernel,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> Tensor:
    if position_bias is not None:
        raise CannotPack(f"{type(module).__name__} adds a bias to its scores")
    for name, given in others.items():
        if isinstance(given, Tensor) and name not in _HARMLESS:
            raise CannotPack(f"{type(module).__name__} gives its attention {name}, which is not known here")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise CannotPack(f"{type(module).__name__} is not causal")
    if query.shape[0] != 1 or key.shape[2] != query.shape[2]:
        raise CannotPack(f"{type(module).__name__} attends to something else than the row itself")
    laid.windows.append(sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    kind = query.device.type
    if torch.is_autocast_enabled(kind) and query.dtype != torch.float64:  # as it does for torch's own attention
        query, key, value = (t.to(torch.get_autocast_dtype(kind)) for t in (query, key, value))
    narrow = sliding_window is not None and sliding_window < laid.longest
    same_precision = query.dtype == key.dtype == value.dtype
    same = same_precision and query.shape[-1] == value.shape[-1]
    window = sliding_window if narrow else None
    form: dict[str, Any] = {"scale": scale, "softcap": softcap, "sinks": s_aux}
    by_flex = kernel == "flex"  # forced, as tests do; or where it serves and has shown that it is right
    if same_precision and not dropout and kernel == "" and flex.serves(query.device):
        by_flex = flex.sound(query, key, value, attend, **form)
    if by_flex:
        return flex.flex(query, key, value, laid.sight(window, query.device), **form)
    if kind == "cpu" and same and not (narrow or softcap or dropout) and s_aux is None:
        return _Segments.apply(query, key, value, laid.blocks, scale)
    return attend(query, key, value, laid.groups, window=window, dropout=dropout, **form)
