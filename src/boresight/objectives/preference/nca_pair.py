from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "nca-pair",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train adapters at 5e-6",
    sources={"beta": "the authors' configuration (thu-ml/Noise-Contrastive-Alignment, yamls/preference_qlora.yaml)"},
    paper="Chen et al. 2024 (Noise contrastive alignment, 2402.05369), the loss for pairs; TRL's loss_type=nca_pair",
    at_zero=lambda: 2 * log(2),
)
def nca_pair(pairs: PairLogProbs, *, beta: float = 0.01) -> Tensor:
    """Noise contrastive alignment on pairs: absolute rewards instead of their difference.

    -log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2, where r = beta * (log policy - log reference) of
    the chosen (w) and the rejected (l) response, in nats, summed over response tokens. For the chosen response alone
    it is least at r_w = log 2, so its likelihood rises to a point and is kept there; DPO may let it fall.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    won, lost = (beta * gain for gain in pairs.gains())
    return -logsigmoid(won) - 0.5 * (logsigmoid(-won) + logsigmoid(-lost))
