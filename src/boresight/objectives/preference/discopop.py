from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "discopop",
    needs=("reference",),
    lr=5e-7,
    lr_source="Lu et al. 2024, app. B.1, as TRL's index of papers gives it",
    sources={
        "beta": "Lu et al. 2024, app. B.1, as TRL's index of papers gives it",
        "tau": "Lu et al. 2024, app. E, as TRL's index of papers gives it",
    },
    paper="Lu et al. 2024 (DiscoPOP, 2406.08414), eq. 5",
    at_zero=lambda: (1 + log(2)) / 2,
)
def discopop(pairs: PairLogProbs, *, beta: float = 0.05, tau: float = 0.05) -> Tensor:
    """Log-ratio modulated loss: logistic where the margin is negative, exponential where it is positive.

    (1 - s) * -log sigmoid(x) + s * exp(-x), where x = beta * (policy margin - reference margin), in nats, summed over
    response tokens, and s = sigmoid(x / tau). Found by a language model that was asked for losses. It is not convex:
    it has a dip at a small negative x, where a pair may stay stuck. With tau > 1 it would grow exponentially.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or tau is not in (0, 1].
    """
    positive(beta=beta, tau=tau)
    if tau > 1:
        raise ValueError(f"tau must be in (0, 1], not {tau}")
    x = beta * pairs.margin()
    # exp(-x) alone overflows where s is 0; 1 - sigmoid(y) = sigmoid(-y) keeps its digits
    return torch.sigmoid(-x / tau) * -logsigmoid(x) + torch.exp(logsigmoid(x / tau) - x)
