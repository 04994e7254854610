"""The reference of a run: found, its log-probs computed once by all processes together, and kept in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from boresight.data.cache import root as cache_root
from boresight.data.rows import Rows
from boresight.data.tokens import Tokens
from boresight.engine.dropout import disable_dropout
from boresight.engine.module import log_probs_module
from boresight.engine.padded import token_values
from boresight.engine.proof import Witness, witness
from boresight.engine.reference import Reference, resolve_reference
from boresight.engine.store import ReferenceStore
from boresight.errors import RunError
from boresight.training.distributed import exchange, split, spread
from boresight.training.load import Loaded, load
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter

VERIFIED = 16
"""Rows whose stored reference log-probs are computed again whenever the store is opened."""


def find(
    recipe: Recipe,
    loaded: Loaded,
    device: torch.device,
    *,
    bf16: bool,
    resumed: bool,
    fingerprint: str | None,
    choice: str | None = None,
) -> Reference:
    """The reference that the recipe names, taken from where the run took it at its start.

    device: where other models are put; for a run that splits its models, the CPU. fingerprint: of the reference of the
    run that is resumed. choice: another one than the recipe's `reference`. Raises RunError if it is another one now.
    """
    policy, choice = loaded.model, choice or recipe.reference
    if resumed and choice in (None, "start", "base"):
        # The weights have moved since the start: take the reference from where the run took it.
        before = load(recipe.model, dtype=next(policy.parameters()).dtype)
        policy, choice = before.model.to(device), choice if before.adapter else "start"
        disable_dropout(policy)
    reference = resolve_reference(
        choice,
        policy,
        load_model=lambda name: load(name).model.to(device),
        pad_id=loaded.pad_id,
        budget=recipe.micro_tokens,
        autocast_dtype=torch.bfloat16 if bf16 else None,
        tokenizer=loaded.tokenizer,
    )
    if fingerprint is not None and reference.fingerprint != fingerprint:
        raise RunError(
            f"the reference of {recipe.model} is not the one this run started with",
            mend="the model was changed since: start a new run, or put the old weights back",
        )
    return reference


def of_split(
    reference: Reference, policy: Any, module: nn.Module, accelerator: Any, pad_id: int, budget: int
) -> Callable[[list[Tokens]], list[Any]]:
    """How a reference computes once the policy is split: through the policy's split module, or split itself."""
    through = module if reference.model is policy else split(log_probs_module(reference.model), accelerator.device)

    def compute(sequences: list[Tokens]) -> list[Any]:
        with reference.switch(), accelerator.autocast():
            return token_values(through, sequences, pad_id, budget)

    return compute


def fill(
    recipe: Recipe,
    reference: Reference,
    tables: list[Rows],
    accelerator: Any,
    reporter: Reporter,
    compute: Callable[[list[Tokens]], list[Any]] | None = None,
) -> tuple[ReferenceStore, Witness | None]:
    """The store of the reference's log-probs, complete for these rows; and what the reference says of some of them.

    compute: instead of the reference's own. The step-zero proof compares the two; with proof=off it is done here, and
    RunError raised if stored values are not the reference's.
    """
    compute = spread(accelerator, compute or reference.compute)
    folder = recipe.store or cache_root() / "reference"
    store = ReferenceStore(folder, reference.fingerprint)
    if accelerator.num_processes > 1:
        # All compute together, so all must lack the same; where machines keep stores of their own they may not.
        lacking = exchange(accelerator, len(store.missing(t for rows in tables for row in rows for t in row.sequences)))
        if len(set(lacking)) > 1:
            raise RunError(
                f"the processes' reference stores differ: they lack {', '.join(map(str, lacking))} sequences",
                mend="give a folder that all machines share: store=FOLDER",
            )
    count = sum(len(rows) for rows in tables)
    with reporter.bar("reference log-probs", count * len(tables[0][0].sequences)) as advance:
        store.fill((t for rows in tables for row in rows for t in row.sequences), compute, progress=advance)
    exchange(accelerator, None)
    store = ReferenceStore(folder, reference.fingerprint)  # read as a resumed run, and every process, reads it
    drawn = np.random.default_rng(recipe.seed).choice(len(tables[0]), min(VERIFIED, len(tables[0])), replace=False)
    sample = [t for i in drawn.tolist() for t in tables[0][i].sequences]
    if recipe.proof == "on":
        reporter.note(f"reference: {reference.description}", style="dim")
        return store, witness(reference, sample, compute)
    residual = store.verify(sample, compute, sample=len(sample), tolerance=reference.tolerance)
    reporter.note(f"reference: {reference.description}; stored values agree within {residual:.1e} nats", style="dim")
    return store, None
