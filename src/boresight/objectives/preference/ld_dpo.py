from __future__ import annotations

from math import log

from torch import Tensor, minimum, where
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, PairSide, objective
from boresight.objectives._check import positive


@objective(
    "ld-dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "alpha": "TRL's advice for ld_alpha; the paper chooses it by the model",
    },
    paper="Liu et al. 2024, 'Length Desensitization in Direct Preference Optimization' (arXiv 2409.06411)",
    at_zero=lambda: log(2),
)
def ld_dpo(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5) -> Tensor:
    """Length-desensitised DPO: tokens beyond the length of the pair's shorter response count for less.

    -log sigmoid(beta * h), where h is DPO's margin, policy - reference, of sums in nats in which the first
    min(length of chosen, length of rejected) tokens of each response count fully and those after them alpha times.
    alpha = 1 is DPO, alpha = 0 does not see the tail. Responses must come token by token: a batch made from sums
    spreads each evenly over its tokens.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or alpha is outside [0, 1].
    """
    positive(beta=beta)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    return -logsigmoid(beta * (_margin(pairs.policy, alpha) - _margin(pairs.reference, alpha)))


def _margin(side: PairSide, alpha: float) -> Tensor:
    shared = minimum(side.chosen.lengths(), side.rejected.lengths())

    def shortened(response: LogProbs) -> Tensor:
        values = response.values
        within = response.positions() < shared[response.owner]
        return response.weighted_sum(where(within, values.new_tensor(1.0), values.new_tensor(alpha)))

    return shortened(side.chosen) - shortened(side.rejected)
