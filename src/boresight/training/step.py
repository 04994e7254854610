"""One step: the global batch dealt out, losses divided by global counts, gradients added up, one update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from boresight.errors import RunError
from boresight.training.alarms import write_offending_rows
from boresight.training.distributed import add_gradients, add_up, agree, elsewhere, whole
from boresight.training.guard import Arriving, Flags, Losses, flags_of
from boresight.training.job import Job
from boresight.training.memory import exhausted, out_of_memory
from boresight.training.metrics import Counted, Meter, measure
from boresight.training.microbatch import Key, Micro

T = TypeVar("T")


def train_step(job: Job, step: int, lr: float, meter: Meter, folder: Path) -> Tensor:
    """One optimizer step on one global batch; returns the gradient's norm before clipping, 0-d.

    Raises RunError if the loss or the gradient is not finite; the weights are then what they were before that step.
    Where `job.lazy`, that is the step before this one, or this one in `settle`.
    """
    for group in job.optimizer.param_groups:
        group["lr"] = lr
    reseed(job, step)
    numbers = job.order.step(step)
    divisor = job.sizes.normaliser(numbers, job.objective.per)
    then = job.order.step(step + 1) if step + 1 < job.order.steps else []
    kl = mismatched_kl(job, numbers)
    part, losses = attempt(job, lambda: accumulate(job, numbers, kl, divisor, step, folder, then))
    meter.merge(part)
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    if not job.split:
        add_gradients(job.accelerator, trained)
    norm = whole(torch.nn.utils.clip_grad_norm_(trained, job.recipe.clip or float("inf")))
    if job.lazy:
        update_lazily(job, step, numbers, norm, losses, folder)
    elif not bool(torch.isfinite(norm)):
        raise stopped(job, numbers, None, step, folder)
    else:
        job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    return norm


def update_lazily(job: Job, step: int, numbers: Sequence[int], norm: Tensor, losses: Losses, folder: Path) -> None:
    """One update that the optimizer leaves out by itself if anything was not finite; that is said one step later."""
    found, flags = flags_of(norm, losses, job.accelerator.num_processes)
    settle(job)
    optimizer: Any = job.optimizer
    optimizer.found_inf = found
    try:
        with _replicated() if job.split else nullcontext():
            optimizer.step()
    finally:
        del optimizer.found_inf

    def stop(some: Sequence[int] | None, values: Tensor | None) -> RunError:
        return stopped(job, numbers if some is None else some, values, step, folder)

    job.pending = Flags(Arriving(flags), losses, stop, elsewhere)


def settle(job: Job) -> None:
    """Raise RunError if the last step was not finite, where that is not known yet. All processes call it."""
    pending, job.pending = job.pending, None
    if pending is not None:
        pending.settle()


def _replicated() -> Any:
    from torch.distributed.tensor.experimental import implicit_replication

    return implicit_replication()


def accumulate(
    job: Job,
    numbers: Sequence[int],
    kl: Tensor | None,
    divisor: float,
    step: int,
    folder: Path,
    then: Sequence[int] = (),
) -> tuple[Meter, Losses]:
    """Leave the gradient of this process's part of the batch on the parameters; returns the part's metrics and losses.

    then: the batch of the next step, of which the first rows are read meanwhile.
    """
    job.optimizer.zero_grad(set_to_none=True)
    meter, kept = Meter(), Losses()
    # Split models average their gradients over the processes as they go, so there each part is scaled up.
    scale = (job.accelerator.num_processes if job.split else 1) / divisor
    for key, micro in dealt(job, numbers, then=then):
        loss, values, live = weighted_loss(job, micro, kl)
        if job.lazy:
            kept.add(key.numbers, values["loss"][0])
        elif not bool(torch.isfinite(loss)):
            raise stopped(job, key.numbers, values["loss"][0], step, folder)
        (loss * scale).backward()
        meter.add(values, live)
    return meter, kept


def dealt(
    job: Job, numbers: Sequence[int], *, held_out: bool = False, then: Sequence[int] = ()
) -> Iterator[tuple[Key, Micro]]:
    """This process's micro-batches of a global batch, each made ready while the one before it is worked on.

    then: the global batch that comes after it.
    """
    following = job.parts(then, held_out=held_out)[:1] if then else []
    keys = job.parts(numbers, held_out=held_out)
    for k, key in enumerate(keys):
        yield key, job.ahead.get(key, [*keys[k + 1 :], *following])


@torch.no_grad()
def mismatched_kl(job: Job, numbers: Sequence[int], *, held_out: bool = False) -> Tensor | None:
    """Mean over the global batch of log policy - log reference on mismatched responses, where it is needed; 0-d."""
    if "mismatched_kl" not in job.objective.needs or job.store is None:
        return None

    def work() -> Tensor:
        parts = dealt(job, numbers, held_out=held_out, then=numbers)
        return torch.stack([job.mismatched_ratio(micro) for _, micro in parts]).sum(0)

    total, count = add_up(job.accelerator, attempt(job, work))
    return (total / count).float().to(job.device)


def weighted_loss(job: Job, micro: Micro, kl: Tensor | None) -> tuple[Tensor, dict[str, Counted], Tensor]:
    """Sum of weight * loss over a micro-batch, its metrics, and which rows count, shape (rows,)."""
    total, losses, batch = job.total_loss(micro, kl)
    weighted = losses * micro.weights.to(losses.device, non_blocking=True)
    tokens = micro.lengths.to(losses.device, non_blocking=True)
    per = tokens if job.objective.per == "token" else torch.ones_like(losses)
    return total, {"loss": (weighted, per)} | measure(batch), micro.live


@torch.no_grad()
def evaluate_rows(job: Job) -> dict[str, float]:
    """The metrics of training on the held-out rows, in batches of the run's own size; exact over all processes."""
    assert job.eval_rows is not None
    count, batch, meter = len(job.eval_rows), job.recipe.batch, Meter()

    def one(numbers: Sequence[int], kl: Tensor | None) -> Meter:
        part, after = Meter(), range(numbers[-1] + 1, min(numbers[-1] + 1 + batch, count))
        for _, micro in dealt(job, numbers, held_out=True, then=after):
            _, values, live = weighted_loss(job, micro, kl)
            part.add(values, live)
        return part

    job.module.eval()
    with job.reporter.bar("held out", count) as advance:
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            kl = mismatched_kl(job, numbers, held_out=True)
            meter.merge(attempt(job, partial(one, numbers, kl)))
            advance(len(numbers))
    job.module.train()
    return meter.reduce(job.accelerator)


def attempt(job: Job, work: Callable[[], T]) -> T:
    """Do `work`, in micro-batches of the job; where memory runs out on any process, all halve them and do it again.

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
            raise exhausted(f"at {job.limits()}, in a model that is split over processes")
        code = 0 if job.split else agree(job.accelerator, 2 if failed is not None else int(short))
        if failed is not None:
            raise failed
        if code == 2:
            raise elsewhere()
        if code == 0:
            return result
        job.optimizer.zero_grad(set_to_none=True)
        if not job.halve():
            raise exhausted("with one row at once")
        if job.device.type == "cuda":
            torch.cuda.empty_cache()
        job.reporter.note(
            f"out of memory: {job.limits()} from here on; batch, and so the result, stay as they were", style="yellow"
        )


def reseed(job: Job, step: int) -> None:
    """Make whatever an objective draws a function of seed, step and process alone: a resumed run draws it again."""
    from accelerate.utils import set_seed

    stream = np.random.SeedSequence([job.recipe.seed, step, job.accelerator.process_index])
    set_seed(int(stream.generate_state(1, np.uint32)[0]))


def stopped(job: Job, numbers: Sequence[int], losses: Tensor | None, step: int, folder: Path) -> RunError:
    """The error of a run that met a number that is not finite, with the rows written out."""
    rows = [job.rows[i] for i in numbers]
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
