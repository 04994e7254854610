"""What it takes to turn one policy into another, as a distribution over responses; and pairs that teach just that."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor


def information(before: Tensor, after: Tensor) -> Tensor:
    """Log-probs of the differential information distribution: after / before, normalised, over the last dimension.

    before, after: (..., responses), log-probs (or logits: levels do not matter) of one list of responses under two
    policies. It is the law by which responses carry the evidence that updates the one to the other. fp64.

    Raises ValueError if the shapes disagree, or a response has probability 0 under one of them.
    Source: Won et al. 2025, Theorem 3.2.
    """
    _checked(before, after)
    return (after.double() - before.double()).log_softmax(-1)


def information_entropy(before: Tensor, after: Tensor) -> Tensor:
    """Entropy of `information` in nats, (...): from 0, one response carries it all, to log(responses), all alike.

    Learning low-entropy information sharpens the policy; learning high-entropy information smooths it, and the
    log-probs of what was chosen fall. Source: Won et al. 2025.
    """
    known = information(before, after)
    return -(known.exp() * known).sum(-1)


def rejected_law(reference: Tensor, target: Tensor, beta: float) -> Tensor:
    """Log-probs of the law that the rejected are to be drawn from, reference * (reference / target)^beta, normalised.

    With the chosen drawn from the reference, and the rejected from this law, DPO with the same beta has its optimum at
    the target. reference, target: (..., responses), log-probs or logits. fp64. Raises ValueError as `information` does,
    or if beta is not positive and finite. Source: Won et al. 2025, Theorem 3.3.
    """
    _checked(reference, target)
    if not 0 < beta < inf:
        raise ValueError(f"beta must be positive and finite, not {beta}")
    known, wanted = reference.double().log_softmax(-1), target.double().log_softmax(-1)
    return (known + beta * (known - wanted)).log_softmax(-1)


def _checked(one: Tensor, other: Tensor) -> None:
    if one.ndim < 1 or one.shape != other.shape:
        raise ValueError(f"both must have one shape (..., responses), not {tuple(one.shape)} and {tuple(other.shape)}")
    if not bool(torch.isfinite(one).all() and torch.isfinite(other).all()):
        raise ValueError("every response must have a finite log-prob under both")
