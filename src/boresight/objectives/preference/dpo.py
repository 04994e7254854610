from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective


@objective(
    "dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="Tunstall et al. 2023 (Zephyr), sec. 4.1; Rafailov et al. 2023 use 1e-6 with RMSprop",
    sources={
        "beta": "Rafailov et al. 2023, app. B",
        "label_smoothing": "0 is plain DPO; Mitchell 2023 (cDPO) puts the flip rate here",
    },
    paper="Rafailov et al. 2023, eq. 7; label smoothing: Mitchell 2023, 'A note on DPO with noisy preferences', eq. 3",
    at_zero=lambda: log(2),
)
def dpo(pairs: PairLogProbs, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation.

    -(1 - label_smoothing) * log sigmoid(beta * h) - label_smoothing * log sigmoid(-beta * h), where
    h = policy margin - reference margin in nats, summed over response tokens.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or label_smoothing is outside
    [0, 0.5).
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, not {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), not {label_smoothing}")
    h = beta * pairs.margin()
    if label_smoothing == 0:
        return -logsigmoid(h)
    return -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)
