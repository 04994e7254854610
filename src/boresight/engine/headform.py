"""How a model makes logits from hidden states: read from its configuration, and verified by measurement.

The head is replaced for one tiny forward pass by a ramp that runs from -300 to 300, so that whatever the model does
to its logits afterwards (soft-cap, scale, nothing) shows over its whole range, not only where a small model's logits
happen to lie. A model whose head cannot be described this way keeps its own logits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boresight.engine.dropout import evaluating
from boresight.engine.head import bend
from boresight.errors import InputError

log = logging.getLogger(__name__)

_CLOSE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Relative tolerance of the verification; transformers rounds some scalars to the model's dtype, or to fp32."""


@dataclass(frozen=True)
class HeadForm:
    """logits = cap * tanh(scale * head(hidden) / cap), or, if `own`, whatever the model itself returns."""

    own: bool
    vocabulary: int
    scale: float = 1.0
    cap: float | None = None
    reason: str = ""


def bare(model: Any) -> Any:
    """The transformers model itself, without peft's wrapper; its adapter layers stay in place."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def is_encoder_decoder(model: Any) -> bool:
    """Whether the prompt goes through an encoder and the response through a decoder of its own (T5, BART)."""
    return bool(getattr(bare(model).config, "is_encoder_decoder", False))


def never_trained(model: nn.Module) -> set[str]:
    """Names of weights that no gradient reaches, by design: sines and cosines of positions (Pegasus, Marian)."""
    parts = [(name, part) for name, part in model.named_modules() if "Sinusoidal" in type(part).__name__]
    return {f"{name}.{key}" for name, part in parts for key, _ in part.named_parameters(recurse=False)}


def is_sharded(head: nn.Module) -> bool:
    """Whether the weights of `head` are gathered when it is called: FSDP2 on the head itself, DeepSpeed ZeRO-3."""
    return hasattr(head, "unshard") or hasattr(getattr(head, "weight", None), "ds_id")


def is_plain(head: nn.Module) -> bool:
    """Whether `head(x)` is x @ weight.T + bias and nothing else, so that its weight may be used directly."""
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward or "forward" in vars(head):
        return False
    return is_sharded(head) or not (head._forward_hooks or head._forward_pre_hooks)


def called_once(head: nn.Module, compute: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor], x: Tensor) -> Tensor:
    """`compute(head.forward, x)` inside one call of a sharded `head`.

    Its weights are gathered once, and as often on a process with many tokens as on one with none; a process that
    called it once more than the others would wait for ever.
    """
    own = head.forward
    head.forward = lambda hidden: compute(own, hidden)
    try:
        values: Tensor = head(x)
    finally:
        del head.forward
    return values


def refuse_virtual_tokens(model: nn.Module) -> None:
    """Raise InputError for adapters that put virtual tokens into the sequence."""
    for name, adapter in getattr(model, "peft_config", {}).items():
        if getattr(adapter, "is_prompt_learning", False):
            raise InputError(
                f"adapter {name!r} is a {adapter.peft_type} adapter, which puts virtual tokens before the prompt",
                mend="use LoRA or another adapter that lives inside the layers",
            )


def recognise(model: nn.Module) -> HeadForm:
    """The form of `model`'s head. Says in one warning why, if the model's own logits have to be used.

    Raises InputError for adapters that put virtual tokens into the sequence.
    """
    refuse_virtual_tokens(model)
    form = _measure(model)
    if form.own:
        log.warning(
            "%s: the chunked head is off, the model's own logits are used at response positions: %s",
            type(bare(model)).__name__,
            form.reason,
        )
    return form


def _measure(model: nn.Module) -> HeadForm:
    base = bare(model)
    vocabulary = int(base.config.get_text_config().vocab_size)
    head, body = base.get_output_embeddings(), base.base_model

    def own(reason: str) -> HeadForm:
        return HeadForm(own=True, vocabulary=vocabulary, reason=reason)

    if not isinstance(head, nn.Module) or body is base:
        return own("it has no separate body and head")
    if any(getattr(adapter, "alora_invocation_tokens", None) for adapter in getattr(model, "peft_config", {}).values()):
        return own("its adapter is switched on by invocation tokens")
    seen: list[tuple[Tensor, Tensor]] = []

    def replace(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ramp = torch.linspace(-300, 300, output.numel(), device=output.device).to(output.dtype).view(output.shape)
        seen.append((inputs[0], ramp))
        return ramp.clone()

    device = base.get_input_embeddings().weight.device
    ids = torch.linspace(1, vocabulary - 1, 4, device=device).long().unsqueeze(0)
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    with torch.no_grad(), evaluating(model):
        handle = head.register_forward_hook(replace)
        try:
            logits = model(**batch).logits
        finally:
            handle.remove()
        hidden = body(**batch)[0]
    if len(seen) != 1:
        return own(f"its head was called {len(seen)} times in one pass")
    given, ramp = seen[0]
    if given.shape != hidden.shape or not _close(hidden, given):
        return own("its head is not given the body's last hidden state")
    if logits.shape != ramp.shape:
        return own("its logits do not have the shape of its head's output")
    for scale, cap in _candidates(base.config):
        expected = bend(ramp.double().clone(), scale, cap)
        if _close(logits, expected):
            return HeadForm(own=False, vocabulary=logits.shape[-1], scale=scale, cap=cap)
    return own("what it does to its logits after the head is neither a scale nor a soft-cap of its configuration")


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = max(_CLOSE.get(a.dtype, 1e-5), _CLOSE.get(b.dtype, 1e-5))
    a, b = a.double(), b.double().to(a.device)
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-30))


def _candidates(config: Any) -> list[tuple[float, float | None]]:
    """Scales and soft-caps that the configuration's numbers could mean; 'no scale, no cap' comes first."""
    words = ("logit", "lm_head", "softcap")
    numbers = {
        float(value)
        for part in (config, config.get_text_config())
        for name, value in part.to_dict().items()
        if any(word in name for word in words)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and value != 0
    }
    scales = [1.0, *sorted(numbers), *sorted(1.0 / n for n in numbers)]
    caps: list[float | None] = [None, *sorted(n for n in numbers if n > 0)]
    return [(scale, cap) for scale in scales for cap in caps]
