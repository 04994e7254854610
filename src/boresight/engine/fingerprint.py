"""Fingerprints: what a model computes, named by its weights. The first half of a stored log-prob's address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from boresight.engine.headform import bare
from boresight.errors import InputError, nearest

ENGINE_VERSION = 1
"""Raised whenever the engine's values change by more than rounding; part of every stored log-prob's address."""

_WRAPPING = {"base_layer", "original_module", "token_adapter"}
"""Parts that peft adds to the names of weights which are not its own."""

_SILENT = (
    *("_", "output_", "return_", "use_cache", "architectures", "dtype", "torch_dtype", "transformers_version"),
    *("id2label", "label2id", "num_labels", "problem_type", "auto_map", "initializer", "init_std", "name_or_path"),
    *("tokenizer_class", "chunk_size_feed_forward", "gradient_checkpointing", "is_encoder_decoder", "task_specific"),
)
"""Configuration keys that do not change log-probs, or that saving and loading changes."""


def weights_fingerprint(model: nn.Module, *, adapters: str | None = "all") -> str:
    """32 hexadecimal digits that name what `model` computes.

    Taken over name, dtype, shape and bytes of every parameter and persistent buffer (tied weights once), and over the
    configuration's numbers that matter (rotary base, soft-caps, ...). peft's wrapping leaves no trace: the base under
    an adapter has the fingerprint of the bare base. adapters: None for the base alone, "all", or the name of one.
    Raises InputError for a name that is not there. About a second for each GB.
    """
    base, own = _split(model)
    parts = [_digest(base.items()), _configuration(bare(model).config)]
    if adapters == "all":
        parts += sorted(adapter_fingerprint(model, name) for name in own)
    elif adapters is not None:
        parts.append(adapter_fingerprint(model, adapters))
    return combine(*parts)


def adapter_fingerprint(model: nn.Module, name: str) -> str:
    """The same for one adapter alone: its tensors and its scaling, whatever its name. Raises InputError without it."""
    _, own = _split(model)
    if name not in own:
        raise InputError(
            f"the model has no adapter {name!r}", mend=nearest(name, own) if own else "it has no adapters at all"
        )
    scaling = {
        _canonical(path): float(module.scaling[name])
        for path, module in bare(model).named_modules()
        if isinstance(getattr(module, "scaling", None), Mapping) and name in module.scaling
    }
    return combine(_digest(own[name].items()), json.dumps(scaling, sort_keys=True))


def adapter_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of one adapter by canonical name, without the adapter's own name in it; empty if it has none."""
    return _split(model)[1].get(name, {})


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of the model under its adapters, by the names they have without peft."""
    return _split(model)[0]


def combine(*parts: str) -> str:
    """One fingerprint of several strings, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part};".encode())
    return digest.hexdigest()


def _split(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """(the base's tensors, each adapter's tensors), by canonical name."""
    own: dict[str, dict[str, Tensor]] = {name: {} for name in getattr(model, "peft_config", {})}
    base: dict[str, Tensor] = {}
    containers: set[str] = set()
    if own:
        for module in model.modules():
            containers.update(getattr(module, "adapter_layer_names", ()))
            containers.update(getattr(module, "other_param_names", ()))
    for key, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            continue
        parts = key.split(".")
        if own and parts[:2] == ["base_model", "model"]:
            parts = parts[2:]
        place = next((i for i, part in enumerate(parts[:-1]) if part in containers and parts[i + 1] in own), None)
        if place is not None:
            rest = [*parts[: place + 1], *parts[place + 2 :]]
            own[parts[place + 1]][_canonical(".".join(rest))] = tensor
        else:
            base[_canonical(".".join(parts))] = tensor
    return base, own


def _canonical(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPING)


def _digest(named: Iterable[tuple[str, Tensor]]) -> str:
    """Of tensors by sorted name; those that share one storage count once, under the first of their names."""
    seen: set[tuple[Any, ...]] = set()
    once = []
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        where = (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and where in seen:
            continue
        seen.add(where)
        once.append((name, tensor))
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing leaves the interpreter free
        hashes = pool.map(_hash, (tensor for _, tensor in once))
        lines = [f"{name} {t.dtype} {tuple(t.shape)} {h}" for (name, t), h in zip(once, hashes, strict=True)]
    return combine(*lines)


def _hash(tensor: Tensor) -> str:
    tensor = tensor.detach()
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # a DTensor's shards together
    flat = whole.cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).hexdigest()


def _configuration(config: Any) -> str:
    return json.dumps(dict(_plain(config.to_dict())), sort_keys=True, default=str)


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        silent = name.startswith(_SILENT) or name.endswith("_token_id") or "drop" in name or "jitter" in name
        if not silent:
            yield name, dict(_plain(value)) if isinstance(value, Mapping) else value
