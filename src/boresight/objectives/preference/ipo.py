from __future__ import annotations

from torch import Tensor

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "ipo",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains no language model",
    sources={"beta": "tau of the paper; 0.1 as in the KTO authors' configuration of IPO (HALOs, config/loss/ipo.yaml)"},
    paper="Azar et al. 2023, eq. 17",
    at_zero=lambda beta: (1 / (2 * beta)) ** 2,
)
def ipo(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """Identity preference optimisation, log-probs summed over tokens, as in the paper.

    (h - 1 / (2 * beta))^2, where h = policy margin - reference margin in nats, summed over response tokens. The
    loss pulls h to a target of 1 / (2 * beta) nats and rises again beyond it. The form that averages over tokens is
    `ipo-mean`; the same beta means something else there.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    return (pairs.margin() - 1 / (2 * beta)) ** 2
