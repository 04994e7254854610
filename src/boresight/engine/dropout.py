"""Switching off everything that makes a model's training mode random, and evaluating without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_WORDS = ("dropout", "pdrop", "layerdrop", "jitter", "drop_path", "drop_rate", "drop_prob")


def _is_rate(name: str, value: Any) -> bool:
    return isinstance(value, float) and value > 0.0 and any(word in name for word in _WORDS)


def disable_dropout(model: nn.Module) -> int:
    """Set every dropout of `model` to 0, for good; returns how many were not 0 before.

    Covers nn.Dropout modules (LoRA's too), the rates that transformers' layers keep as numbers and pass on
    (`attention_dropout`, `resid_pdrop`, `layerdrop`, router jitter, ...), and the rates in the configuration, which
    some models read on every call. A policy with dropout is not the policy whose log-probs the reference was
    compared with: at step zero the two would differ by the noise.
    """
    count = 0
    configs: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            count += module.p > 0.0
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if _is_rate(name, value):
                setattr(module, name, 0.0)
                count += 1
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "to_dict"):
            configs[id(config)] = config
    for config in configs.values():
        for name, value in list(vars(config).items()):
            if _is_rate(name, value):
                setattr(config, name, 0.0)
    return count


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module's training flag is what it was."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
