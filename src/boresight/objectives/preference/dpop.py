from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "dpop",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains adapters, at another rate",
    sources={
        "beta": "Pal et al. 2024, as recalled and as public re-implementations have it",
        "lam": "Pal et al. 2024, as recalled and as public re-implementations have it",
    },
    paper="Pal et al. 2024 (Smaug, 2402.13228), eq. 3",
    at_zero=lambda: log(2),
)
def dpop(pairs: PairLogProbs, *, beta: float = 0.3, lam: float = 50.0) -> Tensor:
    """DPO-Positive: DPO with a penalty where the chosen response falls below the reference.

    -log sigmoid(beta * (h - lam * max(0, log reference - log policy of the chosen response))), where h = policy
    margin - reference margin; in nats, summed over response tokens. The penalty is inside the sigmoid, as in the
    paper: it is felt also where the pair itself is settled. lam = 0 is DPO.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or lam < 0.
    """
    positive(beta=beta)
    not_negative(lam=lam)
    won, lost = pairs.gains()
    return -logsigmoid(beta * (won - lost - lam * relu(-won)))
