"""The proof's lines about the loss: its closed form, rows that do not meddle with each other, loss and gradients.

The objective's batch is put together here a second time, row by row, from the oracle's values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.data.tokens import Row, Tokens
from boresight.engine.headform import bare
from boresight.engine.proof import Bench, Line, absent, alone, batches, judged
from boresight.engine.proof_model import gradient, gradient_lines
from boresight.objectives import LogProbs, PairLogProbs, PairScores, PairSide, ResponseLogProbs
from boresight.training.batches import Batch, assemble, sequences
from boresight.training.job import Job
from boresight.training.microbatch import ready


def loss_lines(job: Job, bench: Bench, rows: list[Row], kl: Tensor | None, at_once: int) -> Iterator[Line]:
    """The lines about the objective's loss on `rows`, `at_once` in the model; kl: the mismatched-pair KL, if needed."""
    yield _closed_form_line(job, bench, rows, at_once)
    yield _coupling_line(job, bench, rows, kl)
    yield _known_line(bench)
    ours, theirs, saturated = _gradients(job, bench, rows, kl, at_once)
    yield _loss_line(bench, ours[1], theirs[1])
    yield from gradient_lines(bench, ours[0], theirs[0], saturated)


def _closed_form_line(job: Job, bench: Bench, rows: list[Row], at_once: int) -> Line:
    """The loss at zero margin: policy laid beside itself, through the run's own assembly and objective."""
    name, objective = "loss at zero margin", job.objective
    if objective.closed_form(**job.hyperparameters, nll=1.0) is None:
        return absent(name, f"{objective.id} has no closed form")
    both = objective.takes is not ResponseLogProbs
    worst, shown = 0.0, 0.0
    with torch.no_grad():
        for part in _parts(rows, at_once):
            if both and "reference" not in objective.needs:
                part = [replace(row, sequences=(row.sequences[0],) * 2) for row in part]
            tokens = sequences(objective, part)
            policy = job.forward(tokens)
            reference = policy if isinstance(policy, LogProbs) and "reference" in objective.needs else None
            if isinstance(policy, Tensor):
                policy = policy - policy
            zero = torch.zeros((), device=job.device) if "mismatched_kl" in objective.needs else None
            losses = objective.function(assemble(objective, part, policy, reference, zero), **job.hyperparameters)
            for i, loss in enumerate(losses.double().tolist()):
                nll = -float(policy.mean()[i]) if isinstance(policy, LogProbs) else 0.0
                expected = objective.closed_form(**job.hyperparameters, nll=nll)
                assert expected is not None
                shown = loss / tokens[i].response_length if objective.per == "token" else loss
                apart = abs(shown - expected) / max(1.0, abs(expected))
                worst = apart if not apart <= worst else worst
    return judged(
        name,
        worst,
        1e-2 if bench.half else 1e-4,
        f"{objective.id} gives its closed form ({shown:.4g})",
        f"{objective.id} gives {shown:.4g} on a row whose margin is zero, and its closed form says otherwise",
        f"look at {objective.id}'s function and its at_zero: one of them is wrong",
    )


def _coupling_line(job: Job, bench: Bench, rows: list[Row], kl: Tensor | None) -> Line:
    """The objective's losses and their gradients are the same for rows together and for each alone."""
    losses, slopes = _by_hand(job, bench, rows, kl, [rows])
    single, own = _by_hand(job, bench, rows, kl, [[row] for row in rows])
    residual = max(_relative(losses, single), _relative(slopes, own), key=lambda x: (np.isnan(x), x))
    broken = next((i for i, loss in enumerate(single) if not np.isfinite(loss)), None)
    if broken is not None:
        words = f"the loss is not finite: {single[broken]:g} on {rows[broken].source or f'row {rows[broken].index}'}"
        mend = f"look at {job.objective.id} and at its hyperparameters"
        return judged("rows by themselves", float("nan"), 1e-5, "", words, mend)
    return judged(
        "rows by themselves",
        residual,
        1e-5,
        "no row changes another's loss or gradient",
        f"{job.objective.id} couples rows: a row's loss or gradient depends on the micro-batch it is in",
        "return each row's own loss; take statistics of the batch over the global batch, as kto takes mismatched_kl",
    )


def _by_hand(
    job: Job, bench: Bench, rows: list[Row], kl: Tensor | None, parts: list[list[Row]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of the rows and their slopes in the oracle's values, fp64, the rows cut into `parts`."""
    sides = len(rows[0].sequences)
    place = {id(row): i * sides for i, row in enumerate(rows)}
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in bench.truth]
    losses = []
    for part in parts:
        values = [[leaves[place[id(row)] + k] for k in range(sides)] for row in part]
        losses.append(_objective(job, part, values, None if kl is None else kl.cpu()).reshape(-1))
    whole = torch.cat(losses)
    slopes = (
        torch.autograd.grad(whole.sum(), leaves, allow_unused=True) if whole.requires_grad else [None] * len(leaves)
    )
    flat = [(torch.zeros_like(x) if g is None else g).reshape(-1) for x, g in zip(leaves, slopes, strict=True)]
    return whole.detach().numpy(), torch.cat(flat).numpy()


def _objective(job: Job, rows: Sequence[Row], values: Sequence[Sequence[Tensor]], kl: Tensor | None) -> Tensor:
    """The objective on a batch put together here, from each row's values; shares nothing with `assemble`."""
    takes, needs = job.objective.takes, job.objective.needs
    device = values[0][0].device

    def side(k: int) -> LogProbs:
        return LogProbs.from_sequences([v[k] for v in values])

    def kept(k: int) -> LogProbs:
        assert job.store is not None
        return job.store.get([row.sequences[k] for row in rows]).to(device)

    batch: Batch
    if takes is PairScores:
        batch = PairScores(torch.cat([v[0] for v in values]), torch.cat([v[1] for v in values]))
    elif takes is PairLogProbs:
        reference = PairSide(kept(0), kept(1)) if "reference" in needs else None
        batch = PairLogProbs(PairSide(side(0), side(1)), reference)
    else:
        labels = torch.tensor([bool(row.desirable) for row in rows], device=device) if "labels" in needs else None
        held = kept(0) if "reference" in needs else None
        batch = ResponseLogProbs(side(0), held, desirable=labels, mismatched_kl=kl)
    return job.objective.function(batch, **job.hyperparameters)


def _relative(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max() / max(1e-12, float(np.abs(b).max()))) if a.size else 0.0


def _known_line(bench: Bench) -> Line:
    """How well the model knows these texts already; a wrong tokenizer shows here, and so does an untrained model."""
    if bench.scores:
        return absent("texts are known", "a reward model")
    nll = -float(np.concatenate(bench.truth).mean())
    guess = float(np.log(int(bare(bench.model).config.get_text_config().vocab_size)))
    known = nll < guess + 0.5
    words = f"{nll:.2f} nats a token, {guess:.2f} by guessing"
    more = "" if known else ": the model is untrained, or this is another model's tokenizer"
    return Line("texts are known", "holds" if known else "not applicable", words + more, nll)


Half = tuple[Any, NDArray[np.float64]]
"""Gradients, and the loss of each row."""


def _gradients(job: Job, bench: Bench, rows: list[Row], kl: Tensor | None, at_once: int) -> tuple[Half, Half, bool]:
    """Gradients and losses of the run's own path in its micro-batches, and of the oracle row by row."""
    found: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours() -> None:
        for part in _parts(rows, at_once):
            micro = ready(job.objective, job.store, part)
            total, losses, _ = job.total_loss(replace(micro, weights=torch.ones(len(part))), kl)
            found["ours"] += losses.detach().double().cpu().tolist()
            _backward(total)

    def theirs() -> None:
        sides = 1 if job.objective.takes is ResponseLogProbs else 2
        for row in rows:
            tokens: list[Tokens] = list(row.sequences[:sides])
            loss = _objective(job, [row], [alone(job.module, tokens, bench.autocast)], kl)
            found["theirs"] += loss.detach().double().reshape(-1).cpu().tolist()
            _backward(loss)

    mine, true = gradient(bench, ours), gradient(bench, theirs)
    _, slopes = _by_hand(job, bench, rows, kl, [rows])
    return (mine, np.array(found["ours"])), (true, np.array(found["theirs"])), not slopes.any()


def _parts(rows: Sequence[Row], at_once: int) -> Iterator[list[Row]]:
    """Micro-batches of the run's own size."""
    lengths = [max(len(t) for t in row.sequences) for row in rows]
    return (list(part) for part in batches(rows, lengths, at_once))


def _backward(losses: Tensor) -> None:
    if losses.requires_grad:  # not where everything on the way is frozen, which a line says
        losses.sum().backward()


def _loss_line(bench: Bench, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Line:
    apart = np.array([np.inf])
    if ours.shape == theirs.shape:
        with np.errstate(invalid="ignore"):
            apart = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
    return judged(
        "loss",
        float(apart.max()),
        0.25 if bench.half else 1e-3,
        f"{ours.mean():.4g}, as from the model's own logits",
        "the run's loss is not that of the model's own logits: its batch is put together wrongly",
        "report it; proof=off trains in spite of it",
    )
