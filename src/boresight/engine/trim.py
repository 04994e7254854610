"""The last layer's feed-forward part at the positions that predict something, and nowhere else.

Of a prompt's tokens nothing is asked after the last layer's attention: their feed-forward part, most of a layer's
work, would be computed for nothing. Which module that is, and whether leaving it out changes anything, is tried on the
model itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.dropout import evaluating
from boresight.engine.headform import bare
from boresight.engine.layout import pack
from boresight.engine.segments import row_inputs

_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-5}


def trimmable(model: nn.Module) -> nn.Module | None:
    """The feed-forward part of the last layer of a model that takes packed rows, or None if it has to be whole."""
    base: Any = bare(model)
    kinds = set(getattr(base, "_no_split_modules", None) or ())
    layers = [m for m in base.base_model.modules() if type(m).__name__ in kinds]
    if not layers:
        return None
    parts = {n: m for n, m in layers[-1].named_children() if "att" not in n.lower() and _weights(m)}
    # Norms are small; what is left beside the attention is the feed-forward part, if it is one module.
    part = max(parts.values(), key=_weights, default=None)
    if part is None or 2 * _weights(part) < sum(map(_weights, parts.values())):
        return None
    return part if _same(model, base, part) else None


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


def _same(model: nn.Module, base: Any, part: nn.Module) -> bool:
    """Whether what predicts stays what it was, and one call of `part` on the row is all there is."""
    config = base.config.get_text_config()
    ids = np.linspace(1, config.vocab_size - 1, 12).astype(np.int32)
    sequences = [Tokens(ids, np.arange(12) >= 8, True), Tokens(ids[::-1].copy(), np.arange(12) >= 5, True)]
    batch = pack(sequences).to(base.get_input_embeddings().weight.device)
    seen: list[Tensor] = []
    laid = batch.input_ids, batch.position_ids, batch.groups
    shape = row_inputs(*laid)["input_ids"].shape

    def run() -> Tensor:
        hidden: Tensor = base.base_model(**row_inputs(*laid))[0]
        return hidden[0, batch.predictor]

    def watch(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        fits = len(given) == 1 and isinstance(made, Tensor) and given[0].shape == (*shape, width)
        seen.append(made if fits and made.shape == given[0].shape else torch.zeros(0))

    width = int(base.get_input_embeddings().weight.shape[1])
    with evaluating(model), torch.no_grad():
        handle = part.register_forward_hook(watch)
        try:
            whole = run()
        finally:
            handle.remove()
        if len(seen) != 1 or not seen[0].numel():
            return False
        try:
            with trimmed(part, batch.needed):
                less = run()
        except (RuntimeError, TypeError, IndexError, ValueError):
            return False
    close = _CLOSE.get(whole.dtype, 2e-2)
    return bool((whole - less).abs().max() <= close * whole.abs().max())


@contextmanager
def trimmed(part: nn.Module | None, places: Tensor | None) -> Iterator[None]:
    """Inside, `part` computes a packed row (1, N, width) at `places`, (n,) ascending, and gives zeros elsewhere.

    Not for a model that computes its layers again in the backward pass, which is outside. None: nothing is trimmed.
    """
    if part is None or places is None:
        yield
        return
    before, forward = vars(part).get("forward"), part.forward

    def less(row: Tensor) -> Tensor:
        made: Tensor = forward(row[:, places])
        return made.new_zeros(1, row.shape[1], made.shape[2]).index_copy(1, places, made)

    part.forward = less
    try:
        yield
    finally:
        del part.forward
        if before is not None:
            part.forward = before
