from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import flip_rate, positive


@objective(
    "rdpo-robust",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper's 1e-3 (app. B) is for small models",
    sources={
        "beta": "Ray Chowdhury et al. 2024, table 4",
        "eps": "Ray Chowdhury et al. 2024, sec. 6, on human preferences; set it to your own share of flipped labels",
    },
    paper="Ray Chowdhury et al. 2024, sec. 3.1",
    at_zero=lambda: log(2),
)
def rdpo_robust(pairs: PairLogProbs, *, beta: float = 0.1, eps: float = 0.1) -> Tensor:
    """Provably robust DPO: unbiased when a known share of the labels is flipped at random.

    (-(1 - eps) * log sigmoid(beta * h) + eps * log sigmoid(-beta * h)) / (1 - 2 * eps), where
    h = policy margin - reference margin in nats, summed over response tokens. Its mean over random flips of rate eps
    is DPO's loss on the clean label; with eps = 0 it is DPO. A single value may be negative, and falls without bound
    as h grows. Label smoothing (cDPO, an option of `dpo`) adds where this subtracts.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or eps is outside [0, 0.5).
    """
    positive(beta=beta)
    flip_rate(eps=eps)
    h = beta * pairs.margin()
    return (-(1 - eps) * logsigmoid(h) + eps * logsigmoid(-h)) / (1 - 2 * eps)
