"""One step: the global batch dealt out, losses divided by global counts, gradients added up, one update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from boresight.data.tokens import Row
from boresight.errors import RunError
from boresight.training.alarms import write_offending_rows
from boresight.training.batches import normaliser, sequences
from boresight.training.distributed import add_gradients, add_up, agree, elsewhere, whole
from boresight.training.job import Job
from boresight.training.memory import exhausted, out_of_memory
from boresight.training.metrics import Counted, Meter, measure
from boresight.training.order import share

T = TypeVar("T")
Micro = list[tuple[Row, bool]]
"""Rows that go through the model at once, and whether each counts or only fills up."""


def train_step(job: Job, step: int, lr: float, meter: Meter, folder: Path) -> float:
    """One optimizer step on one global batch; returns the gradient's norm before clipping.

    Raises RunError if the loss or the gradient is not finite, before the weights are touched.
    """
    for group in job.optimizer.param_groups:
        group["lr"] = lr
    reseed(job, step)
    rows = {i: job.rows[i] for i in job.order.step(step)}
    divisor = normaliser(job.objective, list(rows.values()))
    kl = mismatched_kl(job, rows)
    meter.merge(attempt(job, lambda: accumulate(job, rows, kl, divisor, step, folder)))
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    if not job.split:
        add_gradients(job.accelerator, trained)
    norm = float(whole(torch.nn.utils.clip_grad_norm_(trained, job.recipe.clip or float("inf"))))
    if norm != norm or norm == float("inf"):
        raise stopped(job, list(rows.values()), None, step, folder)
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    return norm


def accumulate(job: Job, rows: dict[int, Row], kl: Tensor | None, divisor: float, step: int, folder: Path) -> Meter:
    """Leave the gradient of this process's part of the batch on the parameters; returns the part's metrics."""
    job.optimizer.zero_grad(set_to_none=True)
    meter = Meter()
    # Split models average their gradients over the processes as they go, so there each part is scaled up.
    scale = (job.accelerator.num_processes if job.split else 1) / divisor
    for micro in dealt(job, rows):
        loss, values, live = weighted_loss(job, micro, kl)
        if not bool(torch.isfinite(loss)):
            raise stopped(job, [row for row, _ in micro], values["loss"][0], step, folder)
        (loss * scale).backward()
        meter.add(values, live)
    return meter


def dealt(job: Job, rows: dict[int, Row]) -> list[Micro]:
    """This process's micro-batches of a global batch, rows by their number."""
    accelerator = job.accelerator
    parts = share(list(rows), accelerator.process_index, accelerator.num_processes, job.micro_batch)
    return [[(rows[i], live) for i, live in part] for part in parts]


@torch.no_grad()
def mismatched_kl(job: Job, rows: dict[int, Row]) -> Tensor | None:
    """Mean over the global batch of log policy - log reference on mismatched responses, where it is needed; 0-d."""
    if "mismatched_kl" not in job.objective.needs or job.store is None:
        return None
    part = attempt(job, lambda: sum((job.mismatched_ratio(m) for m in dealt(job, rows)), torch.zeros(2).double()))
    total, count = add_up(job.accelerator, part)
    return (total / count).float().to(job.device)


def weighted_loss(job: Job, micro: Micro, kl: Tensor | None) -> tuple[Tensor, dict[str, Counted], Tensor]:
    """Sum of weight * loss over a micro-batch, its metrics, and which rows count, shape (rows,)."""
    rows = [row for row, _ in micro]
    live = torch.tensor([counts for _, counts in micro])
    losses, batch = job.losses(rows, kl)
    weights = torch.tensor([row.weight if counts else 0.0 for row, counts in micro], device=losses.device)
    weighted = losses * weights
    tokens = torch.tensor([t.response_length for t in sequences(job.objective, rows)], dtype=torch.float32)
    per = tokens.to(losses.device) if job.objective.per == "token" else torch.ones_like(losses)
    return weighted.sum(), {"loss": (weighted, per)} | measure(batch), live


@torch.no_grad()
def evaluate_rows(job: Job) -> dict[str, float]:
    """The metrics of training on the held-out rows, in batches of the run's own size; exact over all processes."""
    assert job.eval_rows is not None
    held_out, batch, meter = job.eval_rows, job.recipe.batch, Meter()

    def one(rows: dict[int, Row], kl: Tensor | None) -> Meter:
        part = Meter()
        for micro in dealt(job, rows):
            _, values, live = weighted_loss(job, micro, kl)
            part.add(values, live)
        return part

    job.module.eval()
    with job.reporter.bar("held out", len(held_out)) as advance:
        for first in range(0, len(held_out), batch):
            rows = {i: held_out[i] for i in range(first, min(first + batch, len(held_out)))}
            kl = mismatched_kl(job, rows)
            meter.merge(attempt(job, lambda rows=rows, kl=kl: one(rows, kl)))  # type: ignore[misc]
            advance(len(rows))
    job.module.train()
    return meter.reduce(job.accelerator)


def attempt(job: Job, work: Callable[[], T]) -> T:
    """Do `work`, which uses `job.micro_batch`; where memory runs out on any process, all halve it and do it again.

    `work` has to begin afresh each time, and must not wait for other processes: an error on one is then known to all.
    Raises RunError with advice at a micro-batch of one row, and for a model that is split, whose processes wait for
    each other inside.
    """
    while True:
        short, failed = False, None
        try:
            result = work()
        except Exception as error:
            if not out_of_memory(error):
                if job.split:
                    raise
                failed = error
            short = failed is None
        if short and job.split:
            raise exhausted(f"at micro_batch={job.micro_batch}, in a model that is split over processes")
        code = 0 if job.split else agree(job.accelerator, 2 if failed is not None else int(short))
        if failed is not None:
            raise failed
        if code == 2:
            raise elsewhere()
        if code == 0:
            return result
        job.optimizer.zero_grad(set_to_none=True)
        if job.micro_batch == 1:
            raise exhausted("at micro_batch=1")
        job.micro_batch //= 2
        if job.device.type == "cuda":
            torch.cuda.empty_cache()
        job.reporter.note(
            f"out of memory: micro_batch={job.micro_batch} from here on; batch, and so the result, stay as they were",
            style="yellow",
        )


def reseed(job: Job, step: int) -> None:
    """Make whatever an objective draws a function of seed, step and process alone: a resumed run draws it again."""
    from accelerate.utils import set_seed

    stream = np.random.SeedSequence([job.recipe.seed, step, job.accelerator.process_index])
    set_seed(int(stream.generate_state(1, np.uint32)[0]))


def stopped(job: Job, rows: list[Row], losses: Tensor | None, step: int, folder: Path) -> RunError:
    """The error of a run that met a number that is not finite, with the rows written out."""
    process: Any = job.accelerator.process_index
    path = folder / f"offending-rows-step-{step}{f'-process-{process}' if process else ''}.jsonl"
    values = [float("nan")] * len(rows) if losses is None else [float(x) for x in losses.detach().cpu()]
    write_offending_rows(path, rows, job.tokenizer, values)
    what = "the gradient is" if losses is None else "the loss is"
    where = rows[0].source or f"row {rows[0].index}"
    return RunError(
        f"step {step}: {what} not finite; the {len(rows)} rows in question (first: {where}) are in {path}",
        mend="look at these rows; lower lr, or use dtype=fp32; nothing was changed by this step",
    )
