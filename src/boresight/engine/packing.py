"""Whether a model can take many sequences in one row, found by trying it on the model itself.

A model is asked for its hidden states of a few short sequences, packed behind shared prompts, and of each alone. What
differs - state-space and linear-attention layers, biases in the scores, positions of its own making, masks that are not
handed down - is not packed: such a model is given padded batches, and one line says why.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from boresight.data.tokens import Tokens
from boresight.engine import flex
from boresight.engine.dropout import evaluating
from boresight.engine.headform import bare
from boresight.engine.layout import pack
from boresight.engine.segments import PREFIX, CannotPack, Kernel, Laid, register, row_inputs

log = logging.getLogger(__name__)

Layout = Literal["shared", "packed", "padded"]
"""How sequences are laid out: in one row with prompts shared, in one row, or side by side."""

_CLOSE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""By how much of the largest hidden state packed and alone may differ; what is laid out wrongly is off by far more."""
_WINDOWED = {"full_attention", "sliding_attention"}
"""Kinds of layers whose past follows from positions alone."""


def choose(model: nn.Module, kernel: Kernel = "") -> Layout:
    """The best layout that gives `model`'s own values; the model's attention is replaced where it is packed.

    Says in one line why, if it is padded. What the model does without a packed row stays as it was. kernel: what
    attention over a packed row is computed by; "" is flex_attention on a GPU, if that gives the model's own values,
    and by segments elsewhere. A model that was looked at before keeps its kernel if none is named.
    """
    base = bare(model)
    own = base.config._attn_implementation
    reason = _reason(model, kernel)
    if reason and not kernel and flex.serves(next(model.parameters()).device):
        by_flex, reason = reason, _reason(model, "segments")
        if not reason:
            log.warning("%s: attention group by group, without flex_attention: %s", type(base).__name__, by_flex)
    if not reason:
        return "shared"
    if base.config._attn_implementation != own:
        base.set_attn_implementation(own)
    log.warning("%s: sequences are padded instead of packed: %s", type(base).__name__, reason)
    return "padded"


def _reason(model: Any, kernel: Kernel) -> str:
    """Why `model` cannot be packed with this kernel, or "" if it can."""
    try:
        if any(getattr(adapter, "alora_invocation_tokens", None) for adapter in _adapters(model)):
            raise CannotPack("its adapter is switched on by invocation tokens")
        _replace(bare(model), kernel)
        with evaluating(model), torch.no_grad():
            return _try(model)
    except CannotPack as error:
        return error.what
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
        return f"it does not take a packed row ({type(error).__name__}: {str(error).splitlines()[0][:120]})"


def _adapters(model: Any) -> list[Any]:
    return list(getattr(model, "peft_config", {}).values())


def _rope_types(config: Any) -> set[str]:
    """Kinds of rotary positions in a configuration, which has one for all layers or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return {str(part["rope_type"]) for part in (rope, *rope.values()) if isinstance(part, dict) and "rope_type" in part}


def _replace(base: Any, kernel: Kernel) -> None:
    own = base.config._attn_implementation
    if own is None:
        return
    if own.startswith(PREFIX):
        if not kernel:
            return
        own = own.removeprefix(PREFIX).removeprefix("segments-").removeprefix("flex-")
    if getattr(base.config, "is_encoder_decoder", False):
        raise CannotPack("it is an encoder with a decoder")
    config = base.config.get_text_config()
    if getattr(config, "reorder_and_upcast_attn", False) and own == "eager":
        raise CannotPack("its attention is its own (reorder_and_upcast_attn)")
    if "dynamic" in _rope_types(config):
        raise CannotPack("its rotary positions depend on the length of the whole batch (dynamic)")
    kinds = set(getattr(config, "layer_types", None) or ()) - _WINDOWED
    if kinds:
        raise CannotPack(f"it has layers of another kind ({', '.join(sorted(kinds))})")
    if not base._can_set_attn_implementation():
        raise CannotPack("its attention cannot be replaced")
    name = register(own, kernel)
    base.set_attn_implementation(name)
    if base.config.get_text_config()._attn_implementation != name:
        raise CannotPack("its attention cannot be replaced")


def _try(model: Any) -> str:
    """Why packed values are not the model's own, or "" if they are."""
    base = bare(model)
    config, embedding = base.config.get_text_config(), base.get_input_embeddings()
    ids = np.linspace(1, config.vocab_size - 1, 24).astype(np.int32)
    mask = np.arange(9) >= 5
    rows = [ids[:9], np.concatenate([ids[:5], ids[9:13]]), np.concatenate([ids[:5], ids[12:16]]), ids[15:24][::-1]]
    sequences = [Tokens(np.ascontiguousarray(row), mask, True) for row in rows]
    device = embedding.weight.device
    batch = pack(sequences).to(device)
    options = row_inputs(batch.input_ids, batch.position_ids, batch.groups)
    laid: Laid = options["attention_mask"].laid
    packed = base.base_model(**options)[0][0, batch.predictor]
    layers = int(config.num_hidden_layers)
    if len(laid.windows) != layers:
        return f"{len(laid.windows)} of its {layers} layers attend in the usual way"
    if reason := _windows(config, laid.windows):
        return reason
    alone = []
    for sequence in sequences:
        one = torch.from_numpy(sequence.ids).long().unsqueeze(0).to(device)
        hidden = base.base_model(input_ids=one, attention_mask=torch.ones_like(one), use_cache=False)[0]
        alone.append(hidden[0, torch.from_numpy(np.flatnonzero(sequence.mask) - 1).to(device)])
    expected = torch.cat(alone)
    apart = float((packed - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not apart <= _CLOSE.get(expected.dtype, 1e-4):
        return f"its hidden states of a packed row differ from those of each sequence alone by {apart:.2g}"
    return ""


def _windows(config: Any, seen: list[int | None]) -> str:
    """Why the windows that the layers told their attention are not those of the masks that the model makes, or "".

    The probe is shorter than most windows, so that its values would not show it.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        expected = [window if kind == "sliding_attention" else None for kind in kinds]
    else:
        expected = [window if getattr(config, "use_sliding_window", True) else None] * len(seen)
    silent = sum(e is not None and s is None for e, s in zip(expected, seen, strict=True))
    if silent:
        return f"{silent} of its layers keep their sliding window to themselves"
    other = sum(e != s for e, s in zip(expected, seen, strict=True))
    return f"{other} of its layers tell a sliding window that is not that of its configuration" if other else ""
