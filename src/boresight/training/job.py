"""A job: everything a run needs, loaded and checked before the first step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.data.render import Renderer
from boresight.data.rows import Rows, make_rows
from boresight.data.table import Examples
from boresight.data.tokens import Row, Tokens
from boresight.engine.batch import pad
from boresight.engine.dropout import disable_dropout
from boresight.engine.padded import TokenLogProbs
from boresight.engine.proof import Witness
from boresight.engine.scores import ResponseScores
from boresight.engine.store import ReferenceStore
from boresight.errors import InputError
from boresight.objectives import LogProbs, Objective, PairScores, ResponseLogProbs
from boresight.training.batches import Batch, assemble, mismatched, row_options, sequences
from boresight.training.distributed import equalise, launched_split, split, together
from boresight.training.load import Kind, Loaded, add_lora, load, turn_ends
from boresight.training.memory import Estimate, before_loading, estimate, show
from boresight.training.order import Order
from boresight.training.recipe import Recipe
from boresight.training.references import fill, find, of_split
from boresight.training.reporter import Reporter


@dataclass
class Job:
    """A run, ready to start.

    module: what forward passes go through; `model` is inside. split: the model lies in parts over the processes.
    micro_batch: rows at once, halved when memory runs out.
    """

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
    optimizer: torch.optim.Optimizer
    split: bool
    micro_batch: int
    memory: Estimate
    store: ReferenceStore | None
    witness: Witness | None
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
        with self.accelerator.autocast():
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

    def mismatched_ratio(self, micro: Sequence[tuple[Row, bool]]) -> Tensor:
        """Sum of log policy - log reference on mismatched responses, and their number: (2,) fp64, on CPU."""
        assert self.store is not None
        tokens = mismatched([row for row, _ in micro])
        policy = self.forward(tokens)
        assert isinstance(policy, LogProbs)
        ratio = policy.sum().double().cpu() - self.store.get(tokens).sum().double().cpu()
        live = torch.tensor([counts for _, counts in micro])
        return torch.stack([ratio[live].sum(), live.sum().double()])


def prepare(
    recipe: Recipe,
    reporter: Reporter,
    accelerator: Any,
    *,
    checkpoint: Path | None = None,
    reference: str | None = None,
    micro_batch: int | None = None,
) -> Job:
    """Load model and data, make rows, fill the reference store, and build the optimizer.

    checkpoint: take the policy's weights from here (a resumed run). reference: fingerprint of the reference of the
    run that is resumed. micro_batch: what it had come down to. Raises InputError for anything that cannot be used.
    """
    from accelerate.utils import set_seed

    set_seed(recipe.seed)
    objective, device = recipe.objective, accelerator.device
    bf16 = accelerator.mixed_precision == "bf16"
    divided = recipe.shard or launched_split()
    parts = accelerator.num_processes if divided else 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    kind: Kind = "score" if objective.takes is PairScores else "causal"
    if recipe.adapter == "qlora" and checkpoint is None:
        reporter.note("adapter=qlora: the base is held in 4 bits")

    def read_all() -> tuple[Examples, Examples | None]:
        examples = _read(recipe.data, recipe, recipe.limit, reporter)
        return examples, _read(recipe.eval_data, recipe, recipe.eval_limit, reporter) if recipe.eval_data else None

    examples, eval_examples = together(accelerator, read_all)
    before_loading(recipe, kind, device, parts, local, half=_half(recipe, bf16))
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

    def make_all() -> tuple[Rows, Rows | None]:
        rows = _rows(examples, recipe, renderer, reporter)
        return rows, _rows(eval_examples, recipe, renderer, reporter) if eval_examples is not None else None

    rows, eval_rows = together(accelerator, make_all)
    order = Order(len(rows), batch=recipe.batch, epochs=recipe.epochs, max_steps=recipe.max_steps, seed=recipe.seed)

    if not divided:
        model.to(device)
    model.train()
    module: Any = ResponseScores(model) if kind == "score" else TokenLogProbs(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("no parameter of the model is trainable", mend="check adapter= and the model's requires_grad")
    rows_at_once = min(
        micro_batch or recipe.micro_batch, recipe.micro_batch, -(-recipe.batch // accelerator.num_processes)
    )
    memory = estimate(
        module,
        scores=kind == "score",
        sequences=rows_at_once * (1 if objective.takes is ResponseLogProbs else 2),
        longest=int(rows.report.lengths.get("sequence", {}).get("max", 0)) or 1,
        parts=parts,
        checkpointing=recipe.gradient_checkpointing,
        device=device,
        cast=accelerator.autocast,
        local_processes=local,
    )
    show(memory, reporter)
    against = None
    if "reference" in objective.needs:
        against = find(
            recipe,
            loaded,
            torch.device("cpu") if divided else device,
            bf16=bf16,
            resumed=checkpoint is not None,
            fingerprint=reference,
        )
    if divided:
        module = split(module, device)
    else:
        equalise(accelerator, [p for p in model.parameters() if p.requires_grad])
    store, seen = None, None
    if against is not None:
        compute = of_split(against, model, module, accelerator, loaded.pad_id, rows_at_once) if divided else None
        store, seen = fill(
            recipe, against, [t for t in (rows, eval_rows) if t is not None], accelerator, reporter, compute
        )
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if recipe.adapter != "none":
            model.enable_input_require_grads()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
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
        split=divided,
        micro_batch=rows_at_once,
        memory=memory,
        store=store,
        witness=seen,
        reference=against.fingerprint if against is not None else None,
        ends=turn_ends(loaded, renderer),
        reporter=reporter,
    )


def precision(recipe: Recipe) -> bool:
    """Whether the run computes in bf16. Raises InputError where it is asked for and the GPU has none."""
    if recipe.dtype == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise InputError("dtype=bf16: this GPU has none", mend="use dtype=fp32")
    return recipe.dtype == "bf16" or (
        recipe.dtype == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )


def _half(recipe: Recipe, bf16: bool) -> bool:
    """Whether weights are kept in bf16: frozen ones need no fp32 master copy."""
    return bf16 and recipe.adapter != "none"


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
    dtype = torch.bfloat16 if _half(recipe, bf16) else torch.float32
    four_bit = recipe.adapter == "qlora"
    source = str(checkpoint or recipe.model)
    loaded = load(source, kind=kind, dtype=dtype, four_bit=four_bit, train=True)
    loaded.tokenizer.name_or_path = recipe.model  # not the checkpoint's: records of a resumed run stay what they were
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
