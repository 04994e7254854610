"""What the reference gives before training beyond log-probs: samples of its responses, embeddings of the prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from boresight.data.cache import address, aside, root
from boresight.data.rowfile import Rows, cache_folder, write_rows
from boresight.data.tokens import Row, Tokens
from boresight.engine.dropout import evaluating
from boresight.engine.headform import bare
from boresight.engine.reference import Reference
from boresight.errors import InputError
from boresight.training.reporter import Reached, Reporter
from boresight.training.sample import sample

EMBEDDED = 16
"""Prompts whose hidden states are computed at once."""


def with_samples(
    rows: Rows,
    reference: Reference,
    tokenizer: Any,
    *,
    count: int,
    tokens: int,
    seed: int,
    ends: Sequence[int],
    reporter: Reporter,
    half: bool = False,
) -> Rows:
    """The rows with `count` responses of the reference behind each, of at most `tokens` tokens; found again if made.

    Rows with the same prompt get the same responses. They are drawn at temperature 1, so that means over them estimate
    expectations under the reference. Raises InputError where a prompt leaves no room for a response.
    """
    key = address([rows.fingerprint, reference.fingerprint, count, tokens, seed, sorted(ends)])
    path = cache_folder() / f"{key}.arrow"
    if path.exists() and path.with_suffix(".json").exists():
        return Rows(path)
    prompts: dict[bytes, NDArray[np.int32]] = {}
    for row in rows:
        ids = prompt_of(row)
        prompts.setdefault(ids.tobytes(), ids)
    cast = torch.autocast(reference.model.device.type, torch.bfloat16) if half else nullcontext()
    with reporter.bar("samples of the reference", len(prompts) * count) as advance, reference.switch(), cast:
        drawn = sample(
            reference.model,
            tokenizer,
            [ids for ids in prompts.values() for _ in range(count)],
            max_new_tokens=tokens,
            seed=seed,
            eos_ids=ends,
            progress=Reached(advance),
        )
    behind = {
        known: [_joined(ids, one.ids, one.ends) for one in drawn[i * count : (i + 1) * count]]
        for i, (known, ids) in enumerate(prompts.items())
    }

    def longer() -> Iterator[Row]:
        for row in rows:
            more = behind[prompt_of(row).tobytes()]
            yield replace(row, sequences=(*row.sequences, *more), sampled=count)

    write_rows(longer(), path, fingerprint=key, report=rows.report)
    return Rows(path)


def prompt_of(row: Row) -> NDArray[np.int32]:
    """The tokens before the first response token of a row's first sequence."""
    first = row.sequences[0]
    return first.ids[: int(first.mask.argmax())]


def _joined(prompt: NDArray[np.int32], ids: NDArray[np.int32], ends: bool) -> Tokens:
    whole = np.concatenate([prompt, ids]).astype(np.int32)
    return Tokens(whole, np.arange(len(whole)) >= len(prompt), ends)


@torch.no_grad()
def embeddings(reference: Reference, tables: Sequence[Rows], reporter: Reporter) -> Callable[[Row], Tensor]:
    """For each row of the tables the mean of the reference's last hidden states over its prompt, (width,) fp32.

    Kept in the cache folder by reference and rows. Raises InputError for a model that has no such states.
    """
    key = address([reference.fingerprint, *(rows.fingerprint for rows in tables)])
    path = root() / "embeddings" / f"{key}.safetensors"
    prompts: dict[bytes, int] = {}
    order: list[NDArray[np.int32]] = []
    for rows in tables:
        for row in rows:
            ids = prompt_of(row)
            if prompts.setdefault(ids.tobytes(), len(order)) == len(order):
                order.append(ids)
    if path.exists():
        found = load_file(path)["embedding"]
    else:
        found = _embedded(reference, order, reporter)
        with aside(path.parent) as written:
            save_file({"embedding": np.ascontiguousarray(found)}, written)
            written.replace(path)
    return lambda row: torch.from_numpy(np.array(found[prompts[prompt_of(row).tobytes()]], np.float32))


def _embedded(reference: Reference, prompts: Sequence[NDArray[np.int32]], reporter: Reporter) -> NDArray[np.float32]:
    model = bare(reference.model)
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError("embeddings of prompts are made by decoder models", mend="use a method that needs none")
    device = next(model.parameters()).device
    found: dict[int, NDArray[np.float32]] = {}
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with reporter.bar("embeddings of prompts", len(prompts)) as advance, reference.switch(), evaluating(model):
        for start in range(0, len(by_length), EMBEDDED):
            some = by_length[start : start + EMBEDDED]
            width = max(1, max(len(prompts[i]) for i in some))
            ids = np.zeros((len(some), width), np.int64)
            real = np.zeros((len(some), width), np.int64)
            for k, i in enumerate(some):
                ids[k, : len(prompts[i])] = prompts[i]
                real[k, : len(prompts[i])] = 1
            mask = torch.from_numpy(real).to(device)
            hidden = model.base_model(input_ids=torch.from_numpy(ids).to(device), attention_mask=mask, use_cache=False)[
                0
            ].float()
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            means = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
            found |= dict(zip(some, means.cpu().numpy(), strict=True))
            advance(len(some))
    return np.stack([found[i] for i in range(len(prompts))])
