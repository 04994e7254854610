"""The work of a global batch: micro-batches one after the other, memory that runs out, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from boresight.errors import RunError
from boresight.training.alarms import write_offending_rows
from boresight.training.distributed import agree, elsewhere
from boresight.training.memory import exhausted, out_of_memory
from boresight.training.microbatch import Key, Micro

if TYPE_CHECKING:
    from boresight.training.job import Job

T = TypeVar("T")


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
