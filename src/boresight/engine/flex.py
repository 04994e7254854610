"""Attention over a packed row by torch's flex_attention: one kernel for the whole row, which is what a GPU wants.

What a token sees of its row is two stretches: its own branch up to itself, and a part of what its group has in common.
A sliding window only makes them begin later. So four numbers tell the whole mask, one kernel serves every layout and
window, and which blocks of 128 x 128 the kernel has to visit is counted from the stretches, without an (N, N) mask.

On a GPU the kernel is compiled with the length of the row, and of all that follows from it, left open: rows differ in
length from one micro-batch to the next, and a kernel made for one length would be made anew for each. Rows come here in
multiples of `layout.MULTIPLE` (`layout.aligned`), which the compiler is told. What is written into the kernel, scale
and soft cap, is handed over as text, because numbers that change would be left open as well. Before the first use with
heads of some shape in some precision, values and gradients are held against `segments.attend` on a small row; where the
kernel cannot be compiled or differs, one line says so, and `attend` goes on serving these heads.

Elsewhere it runs uncompiled, with all scores in memory, and is there to be tested.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.engine.layout import Group

log = logging.getLogger(__name__)

BLOCK = 128
"""Queries, and keys, of a block that the kernel visits or leaves out as a whole."""
KERNELS = 64
"""How many kernels one process compiles at most; after that it is an error, never the uncompiled form."""
TRIAL = (Group(0, 300, (100, 60)), Group(460, 40, ()), Group(500, 0, (7, 5)))
"""The row that the kernel is tried on: 512 tokens, with blocks that are seen whole, in part and not at all."""
_CLOSE = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""By how much of the largest value kernel and truth may differ; fp32 may run in TF32 where the user allows it."""


def serves(device: torch.device) -> bool:
    """Whether attention on this device goes through here where nothing else is said."""
    return device.type == "cuda"


class Sight(NamedTuple):
    """What the tokens of a row see, on one device.

    stretches: three times (N,) int32: a token sees what lies from the first number up to, not with, the second, which
    is of the common part; and its own branch from the third up to itself. tables: the blocks to visit, as `BlockMask`
    wants them: of each block of queries how many blocks of keys and which, seen in part and seen whole; and the same of
    each block of keys.
    """

    stretches: tuple[Tensor, Tensor, Tensor]
    tables: tuple[Tensor, ...]


def stretches(groups: Sequence[Group], window: int | None = None) -> NDArray[np.int32]:
    """(3, N): see `Sight`. window: a token sees itself and the `window - 1` before it in its own sequence."""
    first: list[NDArray[Any]] = []
    until: list[NDArray[Any]] = []
    own: list[NDArray[Any]] = []
    for start, common, branches in groups:
        length = common + sum(branches)
        wide = length if window is None else window
        at = np.arange(common)
        first.append(np.zeros(common))
        until.append(np.zeros(common))
        own.append(start + np.maximum(0, at - wide + 1))
        begin = start + common
        for branch in branches:
            at = np.arange(branch)
            first.append(start + np.clip(common + at - wide + 1, 0, common))
            until.append(np.full(branch, start + common))
            own.append(begin + np.maximum(0, at - wide + 1))
            begin += branch
    three = [np.concatenate([np.zeros(0), *one]) for one in (first, until, own)]
    return np.stack(three).astype(np.int32)


def tables(first: Tensor, until: Tensor, own: Tensor) -> tuple[Tensor, ...]:
    """The blocks that tokens with these stretches look into: eight tensors, for `BlockMask`."""
    length, device = len(own), own.device
    blocks = -(-length // BLOCK)
    begin = torch.arange(blocks, device=device, dtype=torch.int32) * BLOCK
    behind = torch.arange(1, length + 1, device=device, dtype=torch.int32)

    def seen(first: Tensor, until: Tensor) -> Tensor:
        low = torch.maximum(first.unsqueeze(1), begin)
        return (torch.minimum(until.unsqueeze(1), begin + BLOCK) - low).clamp_(min=0)

    each = seen(first, until) + seen(own, behind)
    count = torch.nn.functional.pad(each, (0, 0, 0, blocks * BLOCK - length)).view(blocks, BLOCK, blocks).sum(1)
    whole = count == BLOCK * BLOCK
    part = (count > 0) & ~whole

    def listed(which: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.argsort(which.int(), dim=1, descending=True, stable=True)
        return which.sum(1, dtype=torch.int32)[None, None], places.int()[None, None]

    return (*listed(part), *listed(whole), *listed(part.T), *listed(whole.T))


def sight(groups: Sequence[Group], window: int | None, device: torch.device) -> Sight:
    """What the tokens of a row laid out as `groups` see."""
    three = [torch.from_numpy(one).to(device, non_blocking=True) for one in stretches(groups, window)]
    made = Sight((three[0], three[1], three[2]), tables(*three))
    if device.type == "cuda":
        for one in made.stretches:
            _open(one, 0)
        for table in made.tables:
            for dim in range(2, table.dim()):
                _open(table, dim)
    return made


def _open(tensor: Tensor, dim: int) -> None:
    from torch._dynamo import maybe_mark_dynamic

    maybe_mark_dynamic(tensor, dim)


def _kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    of: tuple[Tensor, Tensor, Tensor],
    blocks: tuple[Tensor, ...],
    scale: str,
    softcap: str | None,
    sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """Values (1, H, N, E), and, if asked for, the log-sum-exps of the scores (1, H, N)."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    length = query.shape[2]
    if torch.compiler.is_compiling():
        for tensor in (query, key, value):
            torch._check(tensor.shape[2] % BLOCK == 0)
    first, until, own = of

    def sees(batch: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
        return ((to >= first[at]) & (to < until[at])) | ((to >= own[at]) & (to <= at))

    change: Callable[..., Tensor] | None = None
    if softcap is not None:
        cap = float(softcap)

        def capped(score: Tensor, batch: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
            return cap * torch.tanh(score / cap)

        change = capped
    sides = ("kv", "full_kv", "q", "full_q")
    names = [f"{side}_{what}" for side in sides for what in ("num_blocks", "indices")]
    listed: dict[str, Any] = dict(zip(names, blocks, strict=True))
    mask = BlockMask((length, length), **listed, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=sees)
    options: dict[str, Any] = {"score_mod": change, "block_mask": mask, "scale": float(scale)}
    options["enable_gqa"] = query.shape[1] != key.shape[1]
    if not sums:
        return flex_attention(query, key, value, **options), None
    from torch.nn.attention.flex_attention import AuxRequest

    out, more = flex_attention(query, key, value, return_aux=AuxRequest(lse=True), **options)
    return out, more.lse


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor | None]]:
    known = inspect.signature(torch.compile).parameters
    more: dict[str, Any] = {"recompile_limit": KERNELS} if "recompile_limit" in known else {}
    made: Callable[..., tuple[Tensor, Tensor | None]] = torch.compile(_kernel, fullgraph=True, **more)
    return made


def flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Sight,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """As `segments.attend`: (1, H, N, D), (1, G, N, D), (1, G, N, E) -> (1, N, H, E), in one precision.

    softcap: scores become softcap * tanh(scores / softcap). sinks: (H,), a score of each head that takes its share of
    the weights and adds nothing: what it leaves is sigmoid(log-sum-exp of the scores - its own).
    """
    run: Callable[..., tuple[Tensor, Tensor | None]] = _kernel
    if query.device.type == "cuda":
        run = _compiled()
        for tensor in (query, key, value):
            _open(tensor, 2)
    cap = None if softcap is None else repr(float(softcap))
    out, sums = run(query, key, value, *seen, repr(float(scale)), cap, sinks is not None)
    if sinks is not None:
        assert sums is not None
        left = torch.sigmoid(sums - sinks.to(sums.dtype).view(1, -1, 1))
        out = out * left.unsqueeze(-1).to(out.dtype)
    return out.transpose(1, 2).contiguous()


_tried: dict[tuple[Any, ...], bool] = {}


def sound(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    truth: Callable[..., Tensor],
    *,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> bool:
    """Whether heads like these get from `flex` what `truth`, which is `segments.attend`, gives them.

    Found on the small row TRIAL, with and without gradient, once in a process for each shape of the heads, precision
    and form of the scores. It draws from no random state but its own.
    """
    heads = (query.shape[1], key.shape[1], query.shape[3], value.shape[3])
    kind = (query.device, query.dtype, *heads, scale, softcap, sinks is not None)
    if kind not in _tried:
        try:
            with torch.autocast(query.device.type, enabled=False):
                apart = _apart(query.device, query.dtype, heads, truth, scale, softcap, sinks)
            close = _CLOSE.get(query.dtype, 0.0)
            reason = "" if apart <= close else f"its values or gradients differ by {apart:.2g} of the largest"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in ways of their own; `truth` is there for all of them
            lines = str(error).splitlines()
            reason = f"{type(error).__name__}: {lines[0][:160] if lines else ''}"
        _tried[kind] = not reason
        if reason:
            log.warning(
                "attention group by group, without flex_attention, for %d heads of %d in %s: %s",
                heads[0], heads[2], str(query.dtype).removeprefix("torch."), reason,
            )  # fmt: skip
    return _tried[kind]


def _apart(
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int, int, int],
    truth: Callable[..., Tensor],
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> float:
    """The largest difference on the trial row, of values and gradients, as a part of the largest of the truth."""
    length = sum(g.common + sum(g.branches) for g in TRIAL)
    rng = np.random.default_rng(0)
    shapes = [(heads[0], heads[2]), (heads[1], heads[2]), (heads[1], heads[3]), (heads[0], heads[3])]
    drawn = [torch.from_numpy(rng.standard_normal((1, length, h, d))).to(device, dtype) for h, d in shapes]

    def of(way: Callable[..., Tensor], kind: torch.dtype) -> list[Tensor]:
        leaves = [t.to(kind).transpose(1, 2).requires_grad_() for t in drawn[:3]]
        form = {"scale": scale, "softcap": softcap, "sinks": None if sinks is None else sinks.detach().to(kind)}
        with torch.enable_grad():
            out = way(*leaves, **form)
            slopes = torch.autograd.grad(out, leaves, drawn[3].to(out.dtype))
        with torch.no_grad():
            again = way(*(leaf.detach() for leaf in leaves), **form)
        return [out.detach(), again, *slopes]

    most = 0.0
    # Hooks of who counts or offloads what autograd keeps are meant for the model's own tensors.
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        for window in (None, 150):
            ours = of(partial(flex, seen=sight(TRIAL, window, device)), dtype)
            exact = of(partial(truth, groups=TRIAL, window=window), torch.float64)
            for one, true in zip(ours, exact, strict=True):
                apart = (one.double() - true).abs().max() / true.abs().max()
                most = max(most, float(apart.nan_to_num(nan=torch.inf)))
    return most
