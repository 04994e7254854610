from __future__ import annotations

from collections.abc import Mapping
from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


def _moments(pairs: PairLogProbs, momentum: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gaps of this batch, (pairs,), and the running mean and spread with it, 0-d; all fp64, no gradient."""
    gap = pairs.margin().detach().double()
    mean, std = pairs.state("mean"), pairs.state("std")
    if len(gap) == 0:
        return gap, mean, std
    spread = gap.std() if len(gap) > 1 else torch.zeros_like(std)
    return gap, momentum * mean + (1 - momentum) * gap.mean(), momentum * std + (1 - momentum) * spread


def _update(
    pairs: PairLogProbs, *, beta: float = 0.1, a: float = 0.6, rho: float = 0.8, momentum: float = 0.9
) -> Mapping[str, Tensor]:
    _, mean, std = _moments(pairs, momentum)
    return {"mean": mean, "std": std}


def _first(pairs: PairLogProbs) -> Tensor:
    """The uniform number of each pair's first chosen token, (pairs,) fp64; 1/2 where there is no token."""
    side = pairs.policy.chosen
    first = (side.positions() == 0).double()
    drawn = first.new_zeros(side.count).index_add(0, side.owner, first * side.token("noise").double())
    return torch.where(side.lengths() > 0, drawn, torch.full_like(drawn, 0.5))


@objective(
    "beta-dpo",
    needs=("reference", "noise"),
    lr=5e-7,
    lr_source="the authors' configuration (junkangwu/beta-DPO, config/config.yaml)",
    sources={
        "beta": "the authors' example (junkangwu/beta-DPO, README)",
        "a": "the authors' example (junkangwu/beta-DPO, README)",
        "rho": "the authors' example filters out 0.2 (junkangwu/beta-DPO, README)",
        "momentum": "the authors' code (junkangwu/beta-DPO, trainers.py, gamma there)",
    },
    paper="Wu et al. 2024 (beta-DPO, 2407.08639); junkangwu/beta-DPO, trainers.py",
    over="batch",
    state={"mean": 0.0, "std": 0.0},
    update=_update,
    at_zero=lambda: log(2),
)
def beta_dpo(
    pairs: PairLogProbs, *, beta: float = 0.1, a: float = 0.6, rho: float = 0.8, momentum: float = 0.9
) -> Tensor:
    """DPO with a beta for each batch, and with outlying pairs left out.

    The gap of a pair is h = policy margin - reference margin in nats, summed over response tokens. M and S are running
    mean and standard deviation of the gaps: new = momentum * old + (1 - momentum) * this batch's, this batch counted
    before they are used, and 0 at the start, as in the authors' code. Of each batch floor(rho * pairs) pairs, at
    least one, are kept, drawn without replacement with weights exp(-((h - M) / S)^2 / 2); all weights are equal while
    S is 0. The loss of a kept pair is -log sigmoid(b * h), b = max(beta * (1 + a * (mean kept gap - M)), 1e-3),
    times pairs / kept, so that the batch's mean is the mean over the kept ones; the others have 0. No gradient flows
    through M, S, b, or the choice.

    Which pairs are drawn is settled by the first chosen token's noise u: those with the largest
    log weight - log(-log u) are kept (Efraimidis and Spirakis 2006), so the same batch at the same step is the same.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, a < 0, rho is not in (0, 1], or
    momentum is not in [0, 1).
    """
    positive(beta=beta, rho=rho)
    not_negative(a=a, momentum=momentum)
    if rho > 1:
        raise ValueError(f"rho must be in (0, 1], not {rho}")
    if momentum >= 1:
        raise ValueError(f"momentum must be in [0, 1), not {momentum}")
    h = pairs.margin()
    count = len(pairs)
    if count == 0:
        return h
    gap, mean, std = _moments(pairs, momentum)
    away = torch.where(std > 0, (gap - mean) / std.clamp(min=1e-300), torch.zeros_like(gap))
    key = -0.5 * away**2 - (-_first(pairs).clamp(1e-12, 1 - 1e-12).log()).log()
    number = max(1, int(rho * count + 1e-9))
    kept = torch.zeros_like(gap).index_fill(0, key.topk(number).indices, 1.0)
    dynamic = (beta * (1 + a * ((kept * gap).sum() / number - mean))).clamp(min=1e-3)
    return (kept * count / number).to(h.dtype) * -logsigmoid(dynamic.to(h.dtype) * h)
