from __future__ import annotations

from torch import Tensor, where

from boresight.objectives import ResponseLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "kto",
    needs=("reference", "labels", "mismatched_kl"),
    lr=5e-7,
    lr_source="the lower end of 5e-7 to 5e-6, advised in TRL's guide to KTO; the authors' configuration has 5e-6",
    sources={
        "beta": "Ethayarajh et al. 2024, the authors' configuration (HALOs, config/loss/kto.yaml)",
        "desirable_weight": "Ethayarajh et al. 2024, the authors' configuration (HALOs, config/loss/kto.yaml)",
        "undesirable_weight": "Ethayarajh et al. 2024, the authors' configuration (HALOs, config/loss/kto.yaml)",
    },
    paper="Ethayarajh et al. 2024, sec. 4.1",
    # With unequal weights it depends on which labels the batch holds.
    at_zero=lambda desirable_weight, undesirable_weight: (
        desirable_weight / 2 if desirable_weight == undesirable_weight else None
    ),
)
def kto(
    responses: ResponseLogProbs,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: single responses, each labelled desirable or not.

    desirable_weight * (1 - sigmoid(beta * (r - z))) for desirable responses and
    undesirable_weight * (1 - sigmoid(beta * (z - r))) for the others, where r = log policy - log reference in nats,
    summed over response tokens, and z = max(0, mismatched KL), the reference point. z is one number of the *global*
    batch, handed in, and no gradient flows through it: the loss of a response never depends on its neighbours.

    Where one label is rarer, weigh it up: TRL's guide wants desirable_weight * (number of desirable responses) to
    undesirable_weight * (number of undesirable ones) between 1:1 and 4:3.

    Returns the loss of each response, shape (responses,). Raises ValueError if beta <= 0 or a weight < 0.
    """
    positive(beta=beta)
    not_negative(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    reward = responses.policy.sum() - responses.reference.sum()
    gain = beta * (reward - responses.mismatched_kl.detach().clamp(min=0))
    # 1 - sigmoid(x) = sigmoid(-x), which keeps its digits where sigmoid(x) rounds to 1
    return where(responses.desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())
