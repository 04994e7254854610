"""Which adapter is at work in a peft model: asked, switched for a while, restored exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from boresight.engine.fingerprint import adapter_tensors, base_tensors

_IDENTITY_WITHOUT_B = ("lora_A", "lora_embedding_A", "lora_magnitude_vector")
"""Parts of a LoRA adapter that do nothing while its B is zero."""


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters loaded into `model`; none for a model without peft."""
    return sorted(getattr(model, "peft_config", {}))


def active_adapters(model: Any) -> list[str]:
    """The adapters at work in `model`."""
    return list(model.active_adapters) if adapter_names(model) else []


def is_fresh(model: nn.Module, name: str) -> bool:
    """Whether a LoRA adapter still does nothing: every B is zero, every module saved with it equals the original.

    False for what cannot be told, such as adapters of another kind.
    """
    base = base_tensors(model)
    for key, tensor in adapter_tensors(model, name).items():
        parts = key.split(".")
        if any(part in _IDENTITY_WITHOUT_B for part in parts):
            continue
        if any(part in ("lora_B", "lora_embedding_B") for part in parts):
            if bool(tensor.detach().any()):
                return False
        elif "modules_to_save" in parts:
            original = base.get(".".join(part for part in parts if part != "modules_to_save"))
            if original is None or not torch.equal(original.detach().to(tensor.dtype), tensor.detach()):
                return False
        else:
            return False
    return True


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """The base alone inside the block; afterwards everything is as it was."""
    with _restored(model), model.disable_adapter():
        yield


@contextmanager
def adapter_on(model: Any, name: str) -> Iterator[None]:
    """The named adapter alone at work inside the block, frozen; afterwards everything is as it was."""
    before, shown = active_adapters(model), model.active_adapter
    with _restored(model):
        try:
            model.base_model.set_adapter(name, inference_mode=True)
            model.active_adapter = name
            yield
        finally:
            model.base_model.set_adapter(before)
            model.active_adapter = shown


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """peft freezes and thaws parameters as it switches: put back what was trainable."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
