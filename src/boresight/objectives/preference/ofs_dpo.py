from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "ofs-dpo",
    needs=("reference", "twin"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); adapters take more",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "alpha": "none: the chase at a tenth of the preference (the authors' value was not found)",
        "slow": "none: a tenth of the fast adapter's rate (the authors' value was not found)",
    },
    paper="Qi et al. 2024 (OFS-DPO, 2406.05534), eq. 3 to 6, as a third-party re-implementation for images has them",
    at_zero=lambda: 2 * log(2),
)
def ofs_dpo(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.1, slow: float = 0.1) -> Tensor:
    """Fast-slow chasing: two adapters learn the same preferences at two rates, the fast one kept ahead of the slow.

    L_F + L_S with L_F = l(F, ref) + alpha * l(F, stop S) and L_S = l(S, ref) - alpha * l(stop F, S), where
    l(a, b) = -log sigmoid(beta * (margin of a - margin of b)), margins in nats, summed over response tokens; F is the
    policy, S its twin, and `stop` takes no gradient. So F is pushed ahead of S, and S pulled after F; the two terms of
    alpha cancel in value, and only in value. alpha = 0 is DPO, twice.

    slow: the twin's learning rate as a share of the policy's; the trainer uses it, the loss does not. Training needs
    adapter=lora: the twin is a second adapter, a copy of the policy's at the start, saved in the folder `slow`.

    The paper exchanges the two roles every few steps where the slow one has the lower loss; that is left out, and the
    policy stays the fast one. Its cross-domain form, COFS-DPO, trains a fast adapter for each domain and adds them up
    with coefficients: that is done with adapters of several runs, and not by the loss.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, alpha < 0 or slow <= 0.
    """
    positive(beta=beta, slow=slow)
    not_negative(alpha=alpha)
    fast, chaser, reference = pairs.policy.margin(), pairs.twin.margin(), pairs.reference.margin()
    ahead = -logsigmoid(beta * (fast - chaser.detach()))
    behind = -logsigmoid(beta * (fast.detach() - chaser))
    losses = -logsigmoid(beta * (fast - reference)) - logsigmoid(beta * (chaser - reference))
    return losses + alpha * (ahead - behind)
