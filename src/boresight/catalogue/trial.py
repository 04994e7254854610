"""Does an objective run? A tiny batch of each kind, with everything that an objective may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boresight.objectives import Objective


def tiny_batch(takes: type) -> Any:
    """Two examples of the kind of batch that an objective takes. Raises LookupError for a kind not known here."""
    import torch

    from boresight.objectives import LogProbs, PairLogProbs, PairScores, PairSide, ResponseLogProbs

    def responses(first: list[float], second: list[float]) -> LogProbs:
        return LogProbs.from_sequences([torch.tensor(first), torch.tensor(second)])

    a, b = responses([-1.0, -0.5], [-2.0]), responses([-1.2], [-0.7, -1.1, -0.6])
    if takes is PairLogProbs:
        return PairLogProbs(PairSide(a, b), PairSide(b, a))
    if takes is ResponseLogProbs:
        reference, labels = responses([-1.2, -0.9], [-1.7]), torch.tensor([True, False])
        return ResponseLogProbs(a, reference, desirable=labels, mismatched_kl=torch.tensor(0.1))
    if takes is PairScores:
        return PairScores(torch.tensor([0.5, -0.2]), torch.tensor([0.1, 0.3]))
    raise LookupError(f"no tiny batch of {takes.__name__}")


def runs(objective: Objective) -> bool:
    """Whether the objective, with its defaults, gives one finite loss for each of two examples."""
    try:
        loss = objective.function(tiny_batch(objective.takes))
        return tuple(loss.shape) == (2,) and bool(loss.isfinite().all())
    except Exception:
        # Whatever a method raises here, it does not run, and the catalogue must not say that it does.
        return False
