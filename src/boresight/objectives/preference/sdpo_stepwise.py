from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "sdpo-stepwise",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1), for each step",
    sources={"beta": "that of dpo (Rafailov et al. 2023, app. B)"},
    paper="Kim et al. 2024 (sDPO): DPO's loss (Rafailov et al. 2023, eq. 7), with the step before as the reference",
    at_zero=lambda: log(2),
)
def sdpo_stepwise(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """Stepwise DPO: one step of several, each on its own part of the pairs, from and against the step before.

    -log sigmoid(beta * h), where h = policy margin - reference margin in nats, summed over response tokens: DPO's
    loss. What is stepwise is around it. The pairs are cut into parts, in the paper the easier first (those that the
    first model ranks right more often); step t begins at the model of step t - 1 and has it as its reference, which
    is what a run does that names that model and no other reference. As the reference already prefers most chosen
    responses, the same loss asks for more.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    return -logsigmoid(beta * pairs.margin())
