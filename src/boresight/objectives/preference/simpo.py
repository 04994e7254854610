from __future__ import annotations

from math import exp, log1p

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "simpo",
    lr=6e-7,
    lr_source="Meng et al. 2024, the authors' table of released models, row Llama3-Base",
    sources={
        "beta": "Meng et al. 2024, the authors' table of released models, row Llama3-Base",
        "gamma_beta_ratio": "the same row, and the authors' advice where to start",
    },
    paper="Meng et al. 2024, eq. 6",
    at_zero=lambda beta, gamma_beta_ratio: beta * gamma_beta_ratio + log1p(exp(-beta * gamma_beta_ratio)),
)
def simpo(pairs: PairLogProbs, *, beta: float = 2.0, gamma_beta_ratio: float = 0.5) -> Tensor:
    """Simple preference optimisation: mean log-probs, a target margin, no reference and no likelihood term.

    -log sigmoid(beta * (m - gamma_beta_ratio)), where m = mean log-prob per token of chosen - the same of rejected,
    in nats per token. The paper's gamma is beta * gamma_beta_ratio, as in the authors' code; TRL and LLaMA-Factory
    take gamma itself.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or gamma_beta_ratio < 0.
    """
    positive(beta=beta)
    not_negative(gamma_beta_ratio=gamma_beta_ratio)
    return -logsigmoid(beta * (pairs.policy.mean_margin() - gamma_beta_ratio))
