from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "r-dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "alpha": "the smallest value of the search in Meng et al. 2024 (SimPO), table of baselines",
    },
    paper="Park et al. 2024 (Disentangling length from quality, 2403.19159), eq. 9",
)
def r_dpo(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.05) -> Tensor:
    """Length-regularised DPO: a longer chosen response has to do less, a shorter one more.

    -log sigmoid(beta * h + alpha * (tokens of the chosen - tokens of the rejected)), where h = policy margin -
    reference margin in nats, summed over response tokens. Where the reward is penalised by alpha for each token, the
    best policy is reference * exp((reward - alpha * tokens) / beta), so the reward is beta * log(policy / reference)
    + alpha * tokens and this its Bradley-Terry loss: the sign is plus, though some write a minus. Only the gradient's
    size depends on the lengths, not its direction.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or alpha < 0.
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    margin = pairs.margin()
    longer = pairs.policy.chosen.lengths() - pairs.policy.rejected.lengths()
    return -logsigmoid(beta * margin + alpha * longer.to(margin.dtype))
