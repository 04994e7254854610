from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "exo",
    needs=("reference",),
    lr=1e-6,
    lr_source="Ji et al. 2024, the authors' scripts (haozheji/exact-optimization, exp/tldr_exp/train_exo.sh)",
    sources={
        "beta": "beta_pi of the authors' script for TL;DR; 0.1 in that for IMDb and as TRL's default",
        "eps": "TRL's value for loss_type='exo_pair' where none is given; the authors' code has log eps = -10",
    },
    paper="Ji et al. 2024, eq. 16 (EXO-pref with two responses)",
    at_zero=lambda eps: -log(2) - (log(1 - eps) + log(eps)) / 2,
)
def exo(pairs: PairLogProbs, *, beta: float = 0.5, eps: float = 1e-3) -> Tensor:
    """Efficient exact optimisation on pairs: the reverse KL from the policy to the preference, not the forward one.

    KL(Bernoulli(sigmoid(beta * h)) || Bernoulli(1 - eps)), where h = policy margin - reference margin in nats, summed
    over response tokens. It is least, 0, at beta * h = log((1 - eps) / eps), and bounded: a pair that is ordered wrong
    beyond doubt has no slope. The authors' code leaves out log(1 - eps), a difference of eps at most. Over more
    responses with rewards: `exo-rw`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or eps is outside (0, 0.5).
    """
    positive(beta=beta)
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be in (0, 0.5), not {eps}")
    h = beta * pairs.margin()
    right, wrong = logsigmoid(h), logsigmoid(-h)
    return right.exp() * (right - log(1 - eps)) + wrong.exp() * (wrong - log(eps))
