"""What training on checked data would cost: tokens, arithmetic, time and memory, before anything is trained."""

from __future__ import annotations

from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch

from boresight.data.rowreport import RowsReport
from boresight.errors import InputError
from boresight.objectives import Objective

LIVELY = 0.35
"""Share of the fastest matrix product that training of a transformer usually reaches (Chowdhery et al. 2022, table 3,
counted as model FLOPs utilisation: .21 to .46)."""


def cost(
    method: Objective, model: str, rows: RowsReport, *, epochs: float = 1.0, micro_tokens: int = 8192
) -> dict[str, Any]:
    """Tokens of an epoch, floating-point operations, seconds on this machine, and bytes of memory for full training.

    Operations are 6 a parameter and token for the policy, forward and backward, and 2 for each reference, which is
    computed once (Kaplan et al. 2020, section 2.1; attention left out). Seconds take the speed of this machine's
    matrix products, measured here, at the share of it that training usually reaches. Memory is `memory.estimate`
    where the model fits here, else weights, gradients and optimizer alone.
    Raises InputError if the model's configuration cannot be read.
    """
    from boresight.training.asked import is_reward_model
    from boresight.training.memory import available

    length = rows.lengths.get("sequence", {})
    sequences = sum(rows.bos.values())
    tokens = rows.tokens
    count = _parameters(model)
    references = "reference" in method.needs
    operations = count * tokens * (6 * epochs + 2 * references)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = _speed(device)
    have, where = available(device)
    told: dict[str, Any] = {
        "method": method.id,
        "parameters": count,
        "sequences": sequences,
        "tokens_an_epoch": tokens,
        "epochs": epochs,
        "operations": operations,
        "operations_a_second_here": speed,
        "seconds_here": operations / (speed * LIVELY),
        "bytes_of_weights_gradients_optimizer": 16 * count,
        "bytes_free": have,
        "bytes_free_of": where,
    }
    if 32 * count < have and not is_reward_model(model):
        at_once = max(int(length["max"]), min(micro_tokens, tokens))
        told["bytes_at_the_peak"] = _peak(model, at_once, int(length["max"]), device)
    return told


def lines(told: dict[str, Any]) -> list[str]:
    """In words."""
    from boresight.training.memory import size

    peak = told.get("bytes_at_the_peak")
    need = peak or told["bytes_of_weights_gradients_optimizer"]
    what = "at the peak" if peak else "for weights, gradients and optimizer alone"
    return [
        f"{told['method']}, {told['epochs']:g} epoch: {told['tokens_an_epoch']:,} tokens, "
        f"{told['operations']:.2g} operations, about {_time(told['seconds_here'])} on this machine",
        f"memory of full training: about {size(need)} {what}; {size(told['bytes_free'])} {told['bytes_free_of']} free"
        + ("" if need < told["bytes_free"] else " - it does not fit: use a LoRA adapter, or a smaller model"),
    ]


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def _parameters(name: str) -> int:
    """Parameters of a model, from its configuration alone."""
    from boresight.training.memory import parameters

    try:
        return parameters(name, "causal")
    except Exception as error:  # any configuration may be wrong in any way
        raise InputError(
            f"{name}: its configuration cannot be read: {error}", mend="give the model, not only its tokenizer"
        ) from None


def _speed(device: torch.device) -> float:
    """Operations a second of a matrix product in the precision of training; the best of a few."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = 4096 if device.type == "cuda" else 768
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = 1e-9
    for _ in range(5):
        start = perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (perf_counter() - start))
    return best


def _peak(model: str, tokens: int, longest: int, device: torch.device) -> int:
    from boresight.engine.module import log_probs_module
    from boresight.training.load import load
    from boresight.training.memory import estimate

    module = log_probs_module(load(model, train=True).model.to(device)).train()
    options: dict[str, Any] = {"scores": False, "parts": 1, "checkpointing": False, "cast": nullcontext}
    return estimate(module, tokens=tokens, longest=longest, device=device, **options).total
