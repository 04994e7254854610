from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairScores, objective
from boresight.objectives._check import not_negative


@objective(
    "bt-reward",
    lr=9e-6,
    lr_source="Ouyang et al. 2022, app. C.2, a reward model of 6 billion parameters",
    sources={"centring": "0 is plain Bradley-Terry; Eisenstein et al. 2023 add it, and TRL recommends 0.01"},
    paper="Bradley and Terry 1952; Ouyang et al. 2022, eq. 1; centring: Eisenstein et al. 2023",
    at_zero=lambda: log(2),  # with centring, where both scores are 0
)
def bt_reward(pairs: PairScores, *, centring: float = 0.0) -> Tensor:
    """Bradley-Terry reward model: the score of the chosen should be above that of the rejected.

    -log sigmoid(chosen - rejected) + centring * (chosen + rejected)^2, scores without unit. The first term leaves
    the scores free up to a constant for each prompt; the second, if wanted, holds them around 0.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if centring < 0.
    """
    not_negative(centring=centring)
    return -logsigmoid(pairs.margin()) + centring * (pairs.chosen + pairs.rejected) ** 2
