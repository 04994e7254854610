from __future__ import annotations

from torch import Tensor

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "ipo-mean",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={"beta": "TRL's default for loss_type='ipo'"},
    paper="Azar et al. 2023, eq. 17, with log-probs averaged over tokens as TRL's loss_type='ipo' does",
    at_zero=lambda beta: (1 / (2 * beta)) ** 2,
)
def ipo_mean(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """Identity preference optimisation, log-probs averaged over tokens, as TRL has it.

    (h - 1 / (2 * beta))^2, where h = policy margin - reference margin in nats per token: each response's log-prob
    is divided by its own number of tokens. The target is 1 / (2 * beta) nats *per token*. The paper's form, summed
    over tokens, is `ipo`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    h = pairs.policy.mean_margin() - pairs.reference.mean_margin()
    return (h - 1 / (2 * beta)) ** 2
