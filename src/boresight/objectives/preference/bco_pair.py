from __future__ import annotations

from collections.abc import Mapping
from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


def _sums(pairs: PairLogProbs, beta: float, decay: float) -> dict[str, Tensor]:
    """Sum and number of the rewards of both sides, earlier batches included, each 0-d fp64."""
    both = beta * torch.cat(pairs.gains()).detach().double()
    return {
        "sum": decay * pairs.state("sum") + both.sum(),
        "count": decay * pairs.state("count") + both.numel(),
    }


def _update(pairs: PairLogProbs, *, beta: float = 0.01, decay: float = 1.0, shift: bool = True) -> Mapping[str, Tensor]:
    return _sums(pairs, beta, decay)


@objective(
    "bco-pair",
    needs=("reference",),
    lr=5e-7,
    lr_source="Jung et al. 2024, app. C, as TRL's index of papers gives it",
    sources={
        "beta": "Jung et al. 2024, app. C, as TRL's index of papers gives it",
        "decay": "1 averages over all that was seen, as TRL's earlier DPOTrainer did",
        "shift": "the paper's method; TRL's present loss_type=bco_pair leaves it out",
    },
    paper="Jung et al. 2024 (2404.04656), sec. 3 and 4, on pairs",
    over="batch",
    state={"sum": 0.0, "count": 0.0},
    update=_update,
    at_zero=lambda: 2 * log(2),
)
def bco_pair(pairs: PairLogProbs, *, beta: float = 0.01, decay: float = 1.0, shift: bool = True) -> Tensor:
    """Binary classifier optimisation on pairs: chosen against rejected, each by itself.

    -log sigmoid(r_w - delta) - log sigmoid(delta - r_l), where r = beta * (log policy - log reference) of the chosen
    (w) and the rejected (l) in nats, summed over response tokens, and delta is the running mean of all rewards,
    without gradient: with pairs both of the shifts that `bco` offers are this one. The mean counts this batch and all
    earlier ones, decayed as in `bco`. It lies above DPO's loss at the same beta, whatever delta. shift=False leaves
    delta out.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or decay is outside [0, 1].
    """
    positive(beta=beta)
    not_negative(decay=decay)
    if decay > 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    won, lost = (beta * gain for gain in pairs.gains())
    if shift:
        seen = _sums(pairs, beta, decay)
        delta = (seen["sum"] / seen["count"].clamp(min=1e-12)).to(won.dtype)
        won, lost = won - delta, lost - delta
    return -logsigmoid(won) - logsigmoid(-lost)
