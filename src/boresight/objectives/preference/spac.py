from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "spac",
    needs=("reference", "samples"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1), which this is at pessimism = 0; the paper's was not found",
    sources={
        "eta": "1/eta = 0.1, as beta of dpo; the paper's own was not found",
        "lam": "both terms alike; the paper's own was not found",
        "pessimism": "1 is the paper's loss",
        "bound": "a choice of this project: rewards of up to 10/eta, as the paper's class of rewards is bounded",
    },
    paper="Ji et al. 2024 (SPAC), one round of critic and actor in one step",
)
def spac(
    pairs: PairLogProbs, *, eta: float = 10.0, lam: float = 1.0, pessimism: float = 1.0, bound: float = 10.0
) -> Tensor:
    """Self-play with an adversarial critic, one round: DPO, and a reward that is low where the data says nothing.

    -lam * log sigmoid(h / eta) + (pessimism / eta) * (mean of c(g) over samples of the reference - mean of c(g) over
    the pair's two responses), where g = log policy - log reference in nats, summed over response tokens, h = g of
    chosen - g of rejected, and c cuts g to [-bound, bound].

    The method plays rounds: a critic r minimises E[r] under the current policy - E[r] under the initial one + lam *
    the Bradley-Terry loss, then the policy is tilted by exp(eta * r). With r = log(next / current) / eta that is one
    loss (stated from the catalogue; the paper's own equation was not found). In the first round current and initial
    policy are one, the two expectations cancel, and what remains is lam times `dpo` with beta = 1/eta: pessimism = 0.
    Here the second expectation is taken over the responses of the data instead, which is relative pessimism towards
    the data: what the reference says and the data does not loses probability to what the data covers. The difference
    has no lower bound of its own, so it stops at bound. Later rounds: train again with the last policy as reference.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if eta <= 0, bound <= 0, lam < 0 or pessimism < 0.
    """
    positive(eta=eta, bound=bound)
    not_negative(lam=lam, pessimism=pessimism)
    chosen, rejected = pairs.gains()
    said = pairs.samples.mean(pairs.samples.gains().clamp(-bound, bound))
    covered = (chosen.clamp(-bound, bound) + rejected.clamp(-bound, bound)) / 2
    return lam * softplus((rejected - chosen) / eta) + pessimism / eta * (said - covered)
