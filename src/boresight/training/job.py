"""A job: everything a run needs, loaded and checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.data.cache import root as cache_root
from boresight.data.render import Renderer
from boresight.data.rows import Rows, make_rows
from boresight.data.table import Examples
from boresight.data.tokens import Row, Tokens
from boresight.engine.batch import pad
from boresight.engine.dropout import disable_dropout
from boresight.engine.padded import TokenLogProbs
from boresight.engine.reference import Reference, resolve_reference
from boresight.engine.scores import ResponseScores
from boresight.engine.store import ReferenceStore
from boresight.errors import InputError, RunError
from boresight.objectives import LogProbs, Objective, PairScores
from boresight.training.batches import Batch, assemble, mismatched, row_options, sequences
from boresight.training.load import Kind, Loaded, add_lora, load, turn_ends
from boresight.training.order import Order
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter

VERIFIED = 16
"""Rows whose stored reference log-probs are computed again whenever the store is opened."""


@dataclass
class Job:
    """A run, ready to start. `module` is what forward passes go through, wrapped by accelerate; `model` is inside."""

    recipe: Recipe
    objective: Objective
    hyperparameters: dict[str, Any]
    accelerator: Any
    module: Any
    model: Any
    tokenizer: Any
    pad_id: int
    renderer: Renderer
    examples: Examples
    rows: Rows
    eval_examples: Examples | None
    eval_rows: Rows | None
    order: Order
    optimizer: Any
    names: dict[int, str]
    store: ReferenceStore | None
    reference: str | None
    ends: list[int]
    reporter: Reporter

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.accelerator.device
        return device

    def forward(self, tokens: Sequence[Tokens]) -> LogProbs | Tensor:
        """Log-probs of the sequences' responses under the policy, or scores (sequences,) from a reward model."""
        batch = pad(tokens, self.pad_id).to(self.device)
        if self.objective.takes is PairScores:
            scores: Tensor = self.module(batch.input_ids, batch.attention_mask)
            return scores
        values = self.module(batch.input_ids, batch.attention_mask, batch.predictor, batch.targets)
        return LogProbs(values, batch.owner, batch.count)

    def losses(self, rows: Sequence[Row], mismatched_kl: Tensor | None = None) -> tuple[Tensor, Batch]:
        """One loss a row, shape (rows,), before weights; and the batch that the objective was given."""
        tokens = sequences(self.objective, rows)
        reference = self.store.get(tokens).to(self.device) if self.store is not None else None
        batch = assemble(self.objective, rows, self.forward(tokens), reference, mismatched_kl)
        return self.objective.function(batch, **self.hyperparameters), batch

    @torch.no_grad()
    def mismatched_kl(self, micro_batches: Sequence[Sequence[tuple[Row, bool]]]) -> Tensor | None:
        """Mean over the global batch of log policy - log reference on mismatched responses, where it is needed."""
        if "mismatched_kl" not in self.objective.needs or self.store is None:
            return None
        total = torch.zeros(2, dtype=torch.float64)
        for micro in micro_batches:
            tokens = mismatched([row for row, _ in micro])
            policy = self.forward(tokens)
            assert isinstance(policy, LogProbs)
            ratio = policy.sum().double().cpu() - self.store.get(tokens).sum().double().cpu()
            counts = torch.tensor([live for _, live in micro])
            total += torch.stack([ratio[counts].sum(), counts.sum().double()])
        total = self.accelerator.reduce(total.to(self.device, torch.float32 if self.device.type == "mps" else None))
        return (total[0] / total[1]).float().to(self.device)


def prepare(recipe: Recipe, reporter: Reporter, *, checkpoint: Path | None = None, reference: str | None = None) -> Job:
    """Load model and data, make rows, fill the reference store, and build the optimizer.

    checkpoint: take the policy's weights from here (a resumed run). reference: fingerprint of the reference of the
    run that is resumed. Raises InputError for anything that cannot be used.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import set_seed

    set_seed(recipe.seed)
    objective = recipe.objective
    if recipe.dtype == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise InputError("dtype=bf16: this GPU has none", mend="use dtype=fp32")
    bf16 = recipe.dtype == "bf16" or (
        recipe.dtype == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    # accelerate keeps the precision of a process's first run for ever; a later run here may have another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
    kind: Kind = "score" if objective.takes is PairScores else "causal"
    if recipe.adapter == "qlora" and checkpoint is None:
        reporter.note("adapter=qlora: the base is held in 4 bits")

    with accelerator.main_process_first():
        examples = _read(recipe.data, recipe, recipe.limit, reporter)
        eval_examples = _read(recipe.eval_data, recipe, recipe.eval_limit, reporter) if recipe.eval_data else None
    loaded = _policy(recipe, kind, bf16, checkpoint)
    model = loaded.model
    disable_dropout(model)
    renderer = Renderer(
        loaded.tokenizer,
        template=recipe.template,
        spans=recipe.spans,
        max_length=recipe.max_length or _longest(loaded),
        truncation=recipe.truncation,
    )
    with accelerator.main_process_first():
        rows = _rows(examples, recipe, renderer, reporter)
        eval_rows = _rows(eval_examples, recipe, renderer, reporter) if eval_examples is not None else None
    order = Order(len(rows), batch=recipe.batch, epochs=recipe.epochs, max_steps=recipe.max_steps, seed=recipe.seed)

    model.to(accelerator.device)
    store, described = None, None
    if "reference" in objective.needs:
        store, described = _reference(
            recipe, loaded, rows, eval_rows, accelerator, bf16, reporter, checkpoint is not None, reference
        )
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if recipe.adapter != "none":
            model.enable_input_require_grads()
    model.train()

    module = ResponseScores(model) if kind == "score" else TokenLogProbs(model)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise InputError("no parameter of the model is trainable", mend="check adapter= and the model's requires_grad")
    optimizer = torch.optim.AdamW(
        [p for _, p in trained], lr=recipe.peak_lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.999), eps=1e-8
    )
    module, optimizer = accelerator.prepare(module, optimizer)
    names = {id(p): n for n, p in trained}
    return Job(
        recipe=recipe,
        objective=objective,
        hyperparameters=recipe.hyperparameters(),
        accelerator=accelerator,
        module=module,
        model=model,
        tokenizer=loaded.tokenizer,
        pad_id=loaded.pad_id,
        renderer=renderer,
        examples=examples,
        rows=rows,
        eval_examples=eval_examples,
        eval_rows=eval_rows,
        order=order,
        optimizer=optimizer,
        names=names,
        store=store,
        reference=described,
        ends=turn_ends(loaded, renderer),
        reporter=reporter,
    )


def _read(data: str, recipe: Recipe, limit: int | None, reporter: Reporter) -> Examples:
    from boresight.data.read import read

    examples = read(data, format=recipe.format, strict=recipe.strict, limit=limit)
    for line in examples.report.lines():
        reporter.note(line, style="dim")
    return examples


def _rows(examples: Examples, recipe: Recipe, renderer: Renderer, reporter: Reporter) -> Rows:
    rows = make_rows(examples, renderer, ranked=recipe.ranked, seed=recipe.seed, **row_options(recipe.objective))
    for line in rows.report.lines():
        reporter.note(line, style="dim")
    return rows


def _policy(recipe: Recipe, kind: Kind, bf16: bool, checkpoint: Path | None) -> Loaded:
    adapted = recipe.adapter != "none"
    dtype = torch.bfloat16 if bf16 and adapted else torch.float32  # frozen weights need no fp32 master copy
    four_bit = recipe.adapter == "qlora"
    source = str(checkpoint or recipe.model)
    loaded = load(source, kind=kind, dtype=dtype, four_bit=four_bit, train=True)
    if loaded.adapter is not None and not adapted:
        raise InputError(
            f"{recipe.model} is an adapter on {loaded.base}",
            mend="say adapter=lora to go on training it, or merge it first to train all weights",
        )
    if loaded.adapter is None and adapted:
        model = add_lora(
            loaded.model,
            rank=recipe.lora_rank,
            alpha=recipe.lora_alpha,
            targets=recipe.lora_targets,
            kind=kind,
            four_bit=four_bit,
        )
        loaded = Loaded(model, loaded.tokenizer, loaded.base, None, loaded.pad_id)
    return loaded


def _longest(loaded: Loaded) -> int | None:
    limits = [getattr(loaded.model.config, "max_position_embeddings", None), loaded.tokenizer.model_max_length]
    return min((int(x) for x in limits if x and x < 10**9), default=None)


def _reference(
    recipe: Recipe,
    loaded: Loaded,
    rows: Rows,
    eval_rows: Rows | None,
    accelerator: Any,
    bf16: bool,
    reporter: Reporter,
    resumed: bool,
    fingerprint: str | None,
) -> tuple[ReferenceStore, str]:
    """The store of reference log-probs, complete for these rows, and the reference in words."""
    policy, choice = loaded.model, recipe.reference
    if resumed and choice in (None, "start", "base"):
        # The weights have moved since the start: take the reference from where the run took it.
        before = load(recipe.model, dtype=next(policy.parameters()).dtype)
        policy, choice = before.model.to(accelerator.device), choice if before.adapter else "start"
        disable_dropout(policy)
    reference: Reference = resolve_reference(
        choice,
        policy,
        load_model=lambda name: load(name).model.to(accelerator.device),
        pad_id=loaded.pad_id,
        batch_size=recipe.micro_batch,
        autocast_dtype=torch.bfloat16 if bf16 else None,
        tokenizer=loaded.tokenizer,
    )
    if fingerprint is not None and reference.fingerprint != fingerprint:
        raise RunError(
            f"the reference of {recipe.model} is not the one this run started with",
            mend="the model was changed since: start a new run, or put the old weights back",
        )
    store = ReferenceStore(recipe.store or cache_root() / "reference", reference.fingerprint)
    tables = [table for table in (rows, eval_rows) if table is not None]
    count = sum(len(table) for table in tables)
    if accelerator.is_main_process:
        with reporter.bar("reference log-probs", count * len(rows[0].sequences)) as advance:
            store.fill(
                (t for table in tables for row in table for t in row.sequences), reference.compute, progress=advance
            )
    accelerator.wait_for_everyone()
    store.refresh()
    drawn = np.random.default_rng(recipe.seed).choice(len(rows), min(VERIFIED, len(rows)), replace=False)
    sample = [t for i in drawn.tolist() for t in rows[i].sequences]
    residual = store.verify(sample, reference.compute, tolerance=reference.tolerance)
    reporter.note(f"reference: {reference.description}; stored values agree within {residual:.1e} nats", style="dim")
    return store, reference.fingerprint
