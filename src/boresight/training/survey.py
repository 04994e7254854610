"""What is learnt of a whole global batch before its first micro-batch: for objectives that need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boresight.objectives import LogProbs
from boresight.training.batches import Context
from boresight.training.distributed import add_gradients, add_up, whole
from boresight.training.work import attempt, dealt

if TYPE_CHECKING:
    from boresight.training.job import Job


def survey(job: Job, numbers: Sequence[int], step: int, *, held_out: bool = False) -> Context:
    """What the objective needs to know of the whole global batch before the first micro-batch."""
    statistics: dict[str, Tensor] = {}
    kl = mismatched_kl(job, numbers, held_out=held_out)
    if kl is not None:
        statistics["mismatched_kl"] = kl
    if "gradient_norms" in job.objective.needs:
        # Held-out rows get those of the newest step: what they mean is how much the steps weigh the two sides.
        statistics |= job.statistics if held_out and job.statistics else gradient_norms(job, numbers, held_out=held_out)
    job.statistics = statistics
    return job.context(step, statistics)


def gradient_norms(job: Job, numbers: Sequence[int], *, held_out: bool = False) -> dict[str, Tensor]:
    """Norms of the gradients of the mean log-prob of the chosen, and of the rejected, over a global batch of pairs."""
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    scale = (job.accelerator.num_processes if job.split else 1) / len(numbers)

    def one(side: int) -> Tensor:
        def work() -> None:
            job.optimizer.zero_grad(set_to_none=True)
            for _, micro in dealt(job, numbers, held_out=held_out, then=numbers):
                count = len(micro.rows)
                weigh = torch.where(micro.live, 1.0, 0.0).to(job.device, non_blocking=True)
                with torch.enable_grad():
                    policy = job.forward(micro.tokens[side * count : (side + 1) * count])
                    assert isinstance(policy, LogProbs)
                    ((policy.sum() * weigh).sum() * scale).backward()

        attempt(job, work)
        if not job.split:
            add_gradients(job.accelerator, trained)
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None]))
        job.optimizer.zero_grad(set_to_none=True)
        return norm.detach()

    return {"chosen_gradient_norm": one(0), "rejected_gradient_norm": one(1)}


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
