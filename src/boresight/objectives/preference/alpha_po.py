from __future__ import annotations

from math import exp, log1p

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

LARGEST = 80.0
"""The exponent is cut here: e^80 is finite in fp32, and nothing is learnt beyond."""


@objective(
    "alpha-po",
    lr=7e-7,
    lr_source="Gupta et al. 2025, table 3, Mistral-Instruct, as TRL's index of papers gives it",
    sources={
        "beta": "Gupta et al. 2025, table 3, Mistral-Instruct, as TRL's index of papers gives it",
        "alpha": "the same row",
        "gamma": "the same row",
    },
    paper="Gupta et al. 2025 (AlphaPO, 2501.03884), the loss with length-normalised probabilities",
    at_zero=lambda gamma: gamma + log1p(exp(-gamma)),
)
def alpha_po(pairs: PairLogProbs, *, beta: float = 2.5, alpha: float = 0.25, gamma: float = 0.1) -> Tensor:
    """AlphaPO: SimPO with another shape of reward.

    -log sigmoid(beta * (r_w - r_l) - gamma), where r = (1 - p^-alpha) / alpha and p = exp(mean log-prob per token) of
    the chosen (w) and the rejected (l) response under the policy. alpha = 0 is the limit r = mean log-prob, which is
    SimPO; the larger alpha, the more an unlikely response counts. Values below 0, which the paper finds worse, are
    not offered. The exponent -alpha * mean log-prob is cut at 80.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, alpha < 0 or gamma < 0.
    """
    positive(beta=beta)
    not_negative(alpha=alpha, gamma=gamma)
    won, lost = pairs.policy.chosen.mean(), pairs.policy.rejected.mean()
    if alpha > 0:
        won, lost = (-torch.expm1((-alpha * side).clamp(max=LARGEST)) / alpha for side in (won, lost))
    return -logsigmoid(beta * (won - lost) - gamma)
