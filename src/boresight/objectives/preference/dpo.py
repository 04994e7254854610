from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import flip_rate, positive


@objective(
    "dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="Tunstall et al. 2023 (Zephyr), sec. 4.1, and the DPO authors' config; Rafailov et al., app. B: 1e-6",
    sources={
        "beta": "Rafailov et al. 2023, app. B",
        "label_smoothing": "0 is plain DPO; Mitchell 2023 (cDPO) puts the share of flipped labels here",
    },
    paper="Rafailov et al. 2023, eq. 7; label smoothing: Mitchell 2023, 'A note on DPO with noisy preferences', eq. 3",
    at_zero=lambda: log(2),
)
def dpo(pairs: PairLogProbs, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation.

    -(1 - label_smoothing) * log sigmoid(beta * h) - label_smoothing * log sigmoid(-beta * h), where
    h = policy margin - reference margin in nats, summed over response tokens.

    With label_smoothing > 0 (cDPO) the loss is least at beta * h = log((1 - label_smoothing) / label_smoothing).

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or label_smoothing is outside
    [0, 0.5).
    """
    positive(beta=beta)
    flip_rate(label_smoothing=label_smoothing)
    h = beta * pairs.margin()
    return -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)
