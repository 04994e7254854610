"""What objectives on scored pairs share: the difference of two scores, checked."""

from __future__ import annotations

from torch import Tensor

from boresight.objectives._pairs import PairLogProbs


def score_gap(pairs: PairLogProbs, name: str = "score") -> Tensor:
    """Score of the chosen minus score of the rejected, (pairs,). Raises ValueError where a response has no score."""
    chosen, rejected = pairs.scores(name)
    gap = chosen - rejected
    if not bool(gap.isfinite().all()):
        raise ValueError(f"{name} must be a finite number for both responses of every pair")
    return gap
