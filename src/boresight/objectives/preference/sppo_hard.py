from __future__ import annotations

from torch import Tensor

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "sppo-hard",
    needs=("reference",),
    lr=5e-7,
    lr_source="Wu et al. 2024 (SPPO), app. C, as TRL's index of papers gives it",
    sources={"beta": "Wu et al. 2024 (SPPO): eta = 1000, and beta is 1 / eta"},
    paper="Wu et al. 2024 (SPPO, 2405.00675), eq. 4.7 with probabilities 1 and 0; TRL's loss_type=sppo_hard",
    at_zero=lambda beta: 0.5 / beta**2,
)
def sppo_hard(pairs: PairLogProbs, *, beta: float = 0.001) -> Tensor:
    """Self-play preference optimisation with hard labels: each log-ratio is fitted to a target of its own.

    (g_w - 1 / (2 * beta))^2 + (g_l + 1 / (2 * beta))^2, where g = log policy - log reference of the chosen (w) and the
    rejected (l) response in nats, summed over response tokens. The paper draws the responses anew from the policy in
    each round and takes probabilities of winning from a judge; here the chosen wins for certain, and one round is
    one training run.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    won, lost = pairs.gains()
    return (won - 0.5 / beta) ** 2 + (lost + 0.5 / beta) ** 2
