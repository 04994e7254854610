"""Where probability goes: onto chosen, rejected, and unseen responses; and how a margin loss pulls at each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Masses:
    """Probability of chosen, of rejected, and of all other responses to each prompt, (...,) each; they sum to 1."""

    chosen: Tensor
    rejected: Tensor
    unseen: Tensor


def masses(chosen: Tensor, rejected: Tensor) -> Masses:
    """The probability of the responses that were seen in training, and of those that were not.

    chosen, rejected: (..., n) and (..., m), log-probs in nats, summed over tokens, of the different responses to each
    prompt that were chosen and rejected; -inf fills up ragged rows. A response that was both belongs to one side only,
    or it is counted twice. What is left of 1 is the unseen mass, cut to [0, 1] against rounding.

    Raises ValueError if the shapes disagree, or the responses' probabilities add up to more than 1 beyond rounding.
    Source: Yan et al. 2024 (3D-Properties), drop of the rejected, degradation into unlearning, dispersion.
    """
    if chosen.ndim < 1 or chosen.shape[:-1] != rejected.shape[:-1]:
        raise ValueError(
            f"chosen and rejected must have shapes (..., n) and (..., m), not {tuple(chosen.shape)} and "
            f"{tuple(rejected.shape)}"
        )
    won, lost = chosen.double().exp().sum(-1), rejected.double().exp().sum(-1)
    left = 1 - won - lost
    if bool((left < -1e-3).any()):
        raise ValueError(
            f"the responses' probabilities add up to {float((won + lost).max()):.4g}: give each response once, and "
            "log-probs summed over its tokens"
        )
    return Masses(won, lost, left.clamp(0, 1))


def gradient_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """How much steeper DPO's loss is in the rejected probability than in the chosen, as a log: 0 is alike.

    log(|dL/dp_rejected| / |dL/dp_chosen|) = log p_chosen - log p_rejected: as the rejected response loses its
    probability the pull on it grows without bound beside that on the chosen. chosen, rejected: log-probs in nats,
    summed over tokens, of one shape, which the result has; times beta_rejected / beta_chosen where the two sides have
    each their own beta. Raises ValueError if the shapes disagree. Source: Yan et al. 2024 (3D-Properties).
    """
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen and rejected must have one shape, not {tuple(chosen.shape)}, {tuple(rejected.shape)}")
    return (chosen - rejected).to(torch.float64)
