from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "rso-hinge",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains T5 with another optimiser",
    sources={"beta": "gamma = 0.05 in the experiments of Liu et al. 2024"},
    paper="Liu et al. 2024 (RSO), hinge-norm loss; TRL's loss_type='hinge'",
    at_zero=lambda: 1.0,
)
def rso_hinge(pairs: PairLogProbs, *, beta: float = 0.05) -> Tensor:
    """The hinge-norm loss of statistical rejection sampling optimisation: the support-vector counterpart of DPO.

    max(0, 1 - beta * h), where h = policy margin - reference margin in nats, summed over response tokens. This is
    the loss alone, on the pairs as given; the paper draws them by rejection sampling. The older hinge without a
    reference is `slic-hinge`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    return relu(1 - beta * pairs.margin())
