"""The training loop, in sight. One global batch a step; losses divided by global counts; nothing averaged twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from boresight.data.example import Message
from boresight.data.tokens import Row
from boresight.errors import RunError
from boresight.training.alarms import Alarms, write_offending_rows
from boresight.training.batches import normaliser, sequences
from boresight.training.checkpoint import Progress, prune, save
from boresight.training.job import Job
from boresight.training.metrics import Counted, Meter, measure, words
from boresight.training.order import lr_at, share
from boresight.training.sample import sample, text_statistics

SHOWN = ("loss", "accuracy", "margin", "chosen_gain", "rejected_gain", "gain", "logp_token", "grad_norm")
"""The metrics of the line beside the progress bar."""


@dataclass
class Outcome:
    """How a run ended: steps done, the last evaluation (or the last metrics), and the alarms raised."""

    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    alarms: list[Any] = field(default_factory=list)


def fit(job: Job, folder: Path, trackers: Sequence[Any], progress: Progress, card: str) -> Outcome:
    """Train from `progress.step` to the end; checkpoints, metrics and samples go below `folder`."""
    recipe, steps = job.recipe, job.order.steps
    alarms = Alarms(job.objective, job.hyperparameters)
    alarms.load_state_dict(dict(progress.alarms or {}))
    outcome = Outcome(progress.step)
    meter = Meter(progress.meter if job.accelerator.is_main_process else None)

    def log(step: int, metrics: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log(step, metrics)
        for alarm in alarms.look(step, metrics):
            outcome.alarms.append(alarm)
            job.reporter.note(f"alarm at {alarm}", style="yellow")
        outcome.metrics |= metrics

    def look(step: int) -> None:
        """Evaluate and sample where the recipe asks for it; always at the start and the end."""
        ends = step in (0, steps)
        if job.eval_rows is not None and (ends or (recipe.eval_every and step % recipe.eval_every == 0)):
            metrics = evaluate_rows(job)
            log(step, {f"eval_{k}": v for k, v in metrics.items()})
            job.reporter.note(f"step {step}: held out: {words(metrics, SHOWN)}")
        if recipe.samples and (ends or (recipe.sample_every and step % recipe.sample_every == 0)):
            log(step, write_samples(job, step, trackers))

    if progress.step == 0:
        look(0)
    with job.reporter.bar(f"{job.objective.id}", steps) as advance:
        advance(progress.step)
        for step in range(progress.step, steps):
            lr = lr_at(step, steps, peak=recipe.peak_lr, warmup=recipe.warmup, schedule=recipe.schedule)
            grad_norm = train_step(job, step, lr, meter, folder)
            done = step + 1
            outcome.steps = done
            if done % recipe.log_every == 0 or done == steps:
                metrics = meter.reduce(job.accelerator)
                log(done, metrics | {"grad_norm": grad_norm, "lr": lr, "epoch": job.order.epoch_at(done)})
                advance(0, words(metrics, SHOWN[:3]))
            advance()
            look(done)
            if recipe.save_every and done % recipe.save_every == 0 and done < steps:
                checkpoint(
                    job, folder / "checkpoints", Progress(done, alarms.state_dict(), meter.sums(job.accelerator)), card
                )
    if outcome.steps:
        checkpoint(job, folder / "checkpoints", Progress(steps, alarms.state_dict()), card)
    return outcome


def train_step(job: Job, step: int, lr: float, meter: Meter, folder: Path) -> float:
    """One optimizer step on one global batch; returns the gradient's norm before clipping.

    Raises RunError if the loss or the gradient is not finite, before the weights are touched.
    """
    accelerator, recipe = job.accelerator, job.recipe
    for group in job.optimizer.param_groups:
        group["lr"] = lr
    indices = job.order.step(step)
    rows = {i: job.rows[i] for i in indices}
    whole = normaliser(job.objective, [rows[i] for i in indices])
    shares = share(indices, accelerator.process_index, accelerator.num_processes, recipe.micro_batch)
    micro_batches = [[(rows[i], live) for i, live in part] for part in shares]
    kl = job.mismatched_kl(micro_batches)
    for k, micro in enumerate(micro_batches):
        last = k == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(job.module):
            loss, values, live = weighted_loss(job, micro, kl)
            if not bool(torch.isfinite(loss)):
                raise stopped(job, [row for row, _ in micro], values["loss"][0], step, folder)
            # Wrapped modules average gradients over processes, so each part is scaled up by their number.
            accelerator.backward(loss * (accelerator.num_processes / whole))
        meter.add(values, live)
    grad_norm = float(accelerator.clip_grad_norm_(job.optimizer.param_groups[0]["params"], recipe.clip or float("inf")))
    if grad_norm != grad_norm or grad_norm == float("inf"):
        raise stopped(job, [rows[i] for i in indices], None, step, folder)
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    return grad_norm


def weighted_loss(
    job: Job, micro: Sequence[tuple[Row, bool]], kl: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, Counted], torch.Tensor]:
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
    """The same metrics on the held-out rows, in batches of the run's own size; exact over all processes."""
    assert job.eval_rows is not None
    job.module.eval()
    meter, accelerator, batch = Meter(), job.accelerator, job.recipe.batch
    with job.reporter.bar("held out", len(job.eval_rows)) as advance:
        for first in range(0, len(job.eval_rows), batch):
            indices = list(range(first, min(first + batch, len(job.eval_rows))))
            shares = share(indices, accelerator.process_index, accelerator.num_processes, job.recipe.micro_batch)
            micro_batches = [[(job.eval_rows[i], live) for i, live in part] for part in shares]
            kl = job.mismatched_kl(micro_batches)
            for micro in micro_batches:
                _, values, live = weighted_loss(job, micro, kl)
                meter.add(values, live)
            advance(len(indices))
    job.module.train()
    return meter.reduce(accelerator)


def write_samples(job: Job, step: int, trackers: Sequence[Any]) -> dict[str, float]:
    """Sample from the policy on a few prompts, write the texts down, and measure them."""
    if job.objective.takes.__name__ == "PairScores" or not job.accelerator.is_main_process:
        return {}
    rows, examples = (job.eval_rows, job.eval_examples) if job.eval_rows is not None else (job.rows, job.examples)
    assert rows is not None
    assert examples is not None
    room = job.renderer.max_length or float("inf")
    prompts: dict[int, tuple[str, Any]] = {}
    for i in range(len(rows)):
        if len(prompts) == job.recipe.samples:
            break
        prompt = examples[rows[i].index].prompt
        ids = job.renderer.prompt_ids(prompt)
        if rows[i].index not in prompts and len(ids) + job.recipe.sample_tokens <= room:
            prompts[rows[i].index] = (prompt if isinstance(prompt, str) else transcript(prompt), ids)
    with job.accelerator.autocast():
        samples = sample(
            job.model,
            job.tokenizer,
            [ids for _, ids in prompts.values()],
            max_new_tokens=job.recipe.sample_tokens,
            seed=job.recipe.seed,
            eos_ids=job.ends,
        )
    for k, ((shown, _), one) in enumerate(zip(prompts.values(), samples, strict=True)):
        for tracker in trackers:
            tracker.text(step, f"sample/{k}", f"{shown}\n\n---\n\n{one.text}")
    return text_statistics(samples)


def transcript(messages: Sequence[Message]) -> str:
    """A conversation for people to read."""
    return "\n".join(f"{m.role}: {m.content}" for m in messages)


def stopped(job: Job, rows: list[Row], losses: torch.Tensor | None, step: int, folder: Path) -> RunError:
    """The error of a run that met a number that is not finite, with the rows written out."""
    path = folder / f"offending-rows-step-{step}.jsonl"
    values = [float("nan")] * len(rows) if losses is None else [float(x) for x in losses.detach().cpu()]
    write_offending_rows(path, rows, job.tokenizer, values)
    what = "the gradient is" if losses is None else "the loss is"
    where = rows[0].source or f"row {rows[0].index}"
    return RunError(
        f"step {step}: {what} not finite; the {len(rows)} rows in question (first: {where}) are in {path}",
        mend="look at these rows; lower lr, or use dtype=fp32; nothing was changed by this step",
    )


def checkpoint(job: Job, folder: Path, progress: Progress, card: str) -> None:
    """Write a checkpoint from the main process, then drop the oldest."""
    if job.accelerator.is_main_process:
        save(
            folder / f"step-{progress.step:08d}",
            model=job.model,
            tokenizer=job.tokenizer,
            optimizer=getattr(job.optimizer, "optimizer", job.optimizer),
            names=job.names,
            progress=progress,
            card=card,
        )
        prune(folder, job.recipe.keep)
    job.accelerator.wait_for_everyone()
