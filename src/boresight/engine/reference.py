"""The reference: which model the policy is compared with. Always named, never guessed, always the same code path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boresight.data.tokens import Tokens
from boresight.engine.adapters import active_adapters, adapter_names, adapter_on, adapters_off, is_fresh
from boresight.engine.fingerprint import ENGINE_VERSION, adapter_tensors, base_tensors, combine, weights_fingerprint
from boresight.engine.module import log_probs_module
from boresight.engine.padded import BUDGET, token_values
from boresight.errors import InputError, RunError, nearest


@dataclass(frozen=True)
class Reference:
    """A reference model, ready to give log-probs.

    description: in words, for people. fingerprint: of weights, adapter, compute dtype and engine version; the name of
    its folder in a store. compute: sequences -> per-token log-probs of each response, (response length,) float32.
    tolerance: nats by which one token's log-prob may move with the batch it is computed in; for `verify`.
    model, switch: the model that computes and the context in which it is the reference, for who has to wrap it anew.
    based: within `switch` the model stays the reference while the policy is trained: its base, or another adapter.
    """

    description: str
    fingerprint: str
    compute: Callable[[list[Tokens]], list[NDArray[np.float32]]]
    tolerance: float
    model: Any = None
    switch: Callable[[], AbstractContextManager[None]] = nullcontext
    based: bool = False


def resolve_reference(
    choice: str | None,
    policy_model: Any,
    *,
    load_model: Callable[[str], Any],
    pad_id: int,
    budget: int = BUDGET,
    autocast_dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    module: nn.Module | None = None,
) -> Reference:
    """The reference that `choice` names.

    "start": the policy as it is now; its log-probs must be computed before the first step (checked).
    "base": the model under the policy's adapters. "adapter:NAME": an adapter already loaded beside the policy's;
    "adapter:DIR": one loaded from a directory, frozen. Anything else: a model directory or hub name for `load_model`.
    None: "start" for a policy without adapters, "base" under a fresh LoRA (every B zero, checked). With an adapter
    that was trained before, None is refused: both its base and its present state are plausible.

    policy_model: the transformers or peft model. module: what computes the policy's log-probs, if it was wrapped
    (a `TokenLogProbs` behind accelerate, say). budget: tokens at once. autocast_dtype: as in training. tokenizer: the
    policy's, to be compared with that of a loaded model. Values are computed without gradients in evaluation mode;
    adapter, training flags and requires_grad of the policy are afterwards what they were.
    Raises InputError for choices that do not fit the policy, and for another vocabulary or tokenizer.
    """
    if choice is None:
        choice = _default(policy_model)
    module = module or log_probs_module(policy_model)
    build = partial(_build, pad_id=pad_id, budget=budget, autocast_dtype=autocast_dtype)
    if choice == "start":
        active = active_adapters(policy_model)
        return build(policy_model, module, "the policy as it is before the first step", active)
    if choice == "base":
        if not adapter_names(policy_model):
            raise InputError(
                "reference=base needs a policy with adapters, and this one has none", mend="use reference=start"
            )
        words = "the base model, adapters switched off"
        return build(policy_model, module, words, [], lambda: adapters_off(policy_model), based=True)
    if choice.startswith("adapter:"):
        name = _named_adapter(policy_model, choice.removeprefix("adapter:"))
        words = f"the base model with adapter {choice.removeprefix('adapter:')}"
        return build(policy_model, module, words, [name], lambda: adapter_on(policy_model, name), based=True)
    if (Path(choice) / "adapter_config.json").is_file():
        raise InputError(f"reference={choice} is an adapter, not a model", mend=f"write reference=adapter:{choice}")
    model = load_model(choice).requires_grad_(False).eval()
    _same_vocabulary(policy_model, model, choice, tokenizer)
    device = next(policy_model.parameters()).device
    if next(model.parameters()).device != device:
        model.to(device)
    return build(model, log_probs_module(model), f"the model {choice}", active_adapters(model))


def _default(model: Any) -> str:
    if not adapter_names(model):
        return "start"
    active = active_adapters(model)
    if all(is_fresh(model, name) for name in active):
        return "base"
    others = [f"adapter:{name}" for name in adapter_names(model) if name not in active]
    raise InputError(
        f"adapter {', '.join(active)} was trained before (or cannot be told to be fresh), so the reference is not "
        "obvious",
        mend="choose reference=start (the policy as it is now, adapter included), reference=base (the model under "
        f"the adapter), {'reference=' + ', reference='.join(others) + ', ' if others else ''}"
        "reference=adapter:DIRECTORY or reference=MODEL",
    )


def _build(
    model: Any,
    module: nn.Module,
    description: str,
    adapters: list[str],
    switch: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    based: bool = False,
    pad_id: int,
    budget: int,
    autocast_dtype: torch.dtype | None,
) -> Reference:
    def weights() -> str:
        parts = [weights_fingerprint(model, adapters=name) for name in adapters]
        return combine(*parts) if parts else weights_fingerprint(model, adapters=None)

    def glance() -> list[Any]:
        """Cheap signs of change: in-place edits counted by torch, and a few values (fused optimizers go uncounted)."""
        watched = [base_tensors(model), *(adapter_tensors(model, name) for name in adapters)]
        tensors = [tensor for part in watched for tensor in part.values() if tensor.numel()]
        few = [t.detach().reshape(-1)[:: max(1, t.numel() // 8)][:9].float().cpu() for t in tensors]
        return [[t._version for t in tensors], torch.cat(few).tolist() if few else []]

    at_start, seen = weights(), glance()

    def compute(sequences: list[Tokens]) -> list[NDArray[np.float32]]:
        nonlocal seen
        if (now := glance()) != seen:  # a step was taken, or weights were loaded: are they still the same?
            if weights() != at_start:
                raise RunError(
                    f"the reference is {description}, and its weights have changed since",
                    mend="compute all reference log-probs before the first step, or name a saved model as reference",
                )
            seen = now
        device = next(module.parameters()).device
        cast = torch.autocast(device.type, autocast_dtype) if autocast_dtype is not None else nullcontext()
        with switch(), cast:
            return token_values(module, sequences, pad_id, budget)

    stored = next(p.dtype for p in model.parameters() if p.is_floating_point())
    lowest = autocast_dtype or stored
    fingerprint = combine(at_start, f"autocast {autocast_dtype}", f"engine {ENGINE_VERSION}")
    return Reference(description, fingerprint, compute, 0.25 if lowest.itemsize < 4 else 1e-3, model, switch, based)


def _named_adapter(model: Any, what: str) -> str:
    """The name of an adapter that is loaded, or is loaded now from a directory."""
    names = adapter_names(model)
    if what in names:
        return what
    if not names:
        raise InputError(
            f"reference=adapter:{what} needs a policy with adapters, and this one has none",
            mend="name the whole model as reference (merge the adapter into it first)",
        )
    if not (Path(what) / "adapter_config.json").is_file():
        raise InputError(
            f"reference=adapter:{what}: no adapter of that name is loaded, and no directory of that name holds an "
            "adapter_config.json",
            mend=nearest(what, names),
        )
    name = "reference-" + combine(str(Path(what).resolve()))[:8]
    if name in names:
        return name
    trainable = [(p, p.requires_grad) for p in model.parameters()]
    try:
        loaded = model.load_adapter(what, adapter_name=name, is_trainable=False)
    except (RuntimeError, ValueError, OSError) as error:
        if name in adapter_names(model):
            model.delete_adapter(name)
        lines = str(error).splitlines() or [""]  # the first names the class, the second what is wrong
        raise InputError(
            f"the adapter in {what} does not fit the policy's base model: {lines[min(1, len(lines) - 1)].strip()}",
            mend="use an adapter that was trained on the same base model",
        ) from error
    finally:
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
    if loaded.missing_keys or loaded.unexpected_keys or not adapter_tensors(model, name):
        model.delete_adapter(name)
        odd = [*loaded.missing_keys, *loaded.unexpected_keys]
        raise InputError(
            f"the adapter in {what} does not fit the policy's base model: {len(odd)} of its weights have no counterpart"
            + (f", the first is {odd[0]}" if odd else ""),
            mend="use an adapter that was trained on the same base model",
        )
    return name


def _same_vocabulary(policy: Any, model: Any, choice: str, tokenizer: Any) -> None:
    ours = policy.get_input_embeddings().weight.shape[0]
    theirs = model.get_input_embeddings().weight.shape[0]
    if ours != theirs:
        raise InputError(
            f"reference={choice} has a vocabulary of {theirs} tokens, the policy one of {ours}",
            mend="use a reference with the policy's tokenizer; if a token was added to one, resize the other as well",
        )
    if tokenizer is None:
        return
    from transformers import AutoTokenizer

    try:
        other = AutoTokenizer.from_pretrained(choice, trust_remote_code=False)
    except (OSError, ValueError):
        return  # a model saved without its tokenizer: the size is all there is to compare
    mine, other_words = tokenizer.get_vocab(), other.get_vocab()
    if mine != other_words:
        word = min(w for w in mine.keys() | other_words.keys() if mine.get(w) != other_words.get(w))
        raise InputError(
            f"reference={choice} has another tokenizer: token {word!r} is {other_words.get(word)} there and "
            f"{mine.get(word)} in the policy's",
            mend="use a reference with the policy's tokenizer",
        )
