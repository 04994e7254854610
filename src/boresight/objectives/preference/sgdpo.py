from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "sgdpo",
    needs=("reference", "noise"),
    lr=5e-7,
    lr_source="the authors' configuration (WNQzhu/SGDPO, training_configs/llama-3-8b-base-pdpo-v7.yaml)",
    sources={
        "beta": "the authors' configuration (WNQzhu/SGDPO)",
        "chosen_ratio": "the authors' configuration (r1 = 0.7); 0.6 in their class",
        "rejected_ratio": "the authors' class (r2 in scripts/pdpo_config.py)",
    },
    paper="Zhu et al. 2025 (SGDPO); read in the authors' code, scripts/pdpo_trainer_v4.py",
    at_zero=lambda: log(2),
)
def sgdpo(pairs: PairLogProbs, *, beta: float = 0.1, chosen_ratio: float = 0.7, rejected_ratio: float = 0.9) -> Tensor:
    """Self-guided DPO: each response is set against randomly picked tokens of the other, its pilot.

    -0.5 * log sigmoid(beta * (R_chosen - P_rejected)) - 0.5 * log sigmoid(beta * (P_chosen - R_rejected)), where R is
    the sum over all tokens of log policy - log reference in nats, and P, the pilot, the same over n tokens of the
    response, without gradient. n = max(1, floor(ratio * length of the shorter response)), with chosen_ratio (r1 of
    the paper) and rejected_ratio (r2). The pilots only set how steep each half is: a smaller chosen_ratio keeps the
    pull on the rejected up for longer, a smaller rejected_ratio that on the chosen.

    Which tokens are picked is told by `noise`: those with the smallest, of equal ones the first.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or a ratio is outside (0, 1].
    """
    positive(beta=beta)
    for name, ratio in (("chosen_ratio", chosen_ratio), ("rejected_ratio", rejected_ratio)):
        if not 0 < ratio <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, not {ratio}")
    chosen, rejected = pairs.gains()
    shorter = torch.minimum(pairs.policy.chosen.lengths(), pairs.policy.rejected.lengths())
    pilot_chosen = _pilot(pairs.policy.chosen, pairs.reference.chosen, _count(shorter, chosen_ratio))
    pilot_rejected = _pilot(pairs.policy.rejected, pairs.reference.rejected, _count(shorter, rejected_ratio))
    return -0.5 * (logsigmoid(beta * (chosen - pilot_rejected)) + logsigmoid(beta * (pilot_chosen - rejected)))


def _count(shorter: Tensor, ratio: float) -> Tensor:
    return (shorter.double() * ratio).floor().clamp(min=1)


def _pilot(policy: LogProbs, reference: LogProbs, count: Tensor) -> Tensor:
    """Sum of the log-ratio over each response's `count` tokens of smallest noise, (responses,), detached."""
    by_noise = torch.argsort(policy.token("noise"), stable=True)
    order = by_noise[torch.argsort(policy.owner[by_noise], stable=True)]
    lengths = policy.lengths()
    starts = lengths.cumsum(0) - lengths
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[policy.owner[order]]
    picked = rank < count[policy.owner]
    return (policy.weighted_sum(picked) - reference.weighted_sum(picked)).detach()
