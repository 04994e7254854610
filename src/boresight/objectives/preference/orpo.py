from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative
from boresight.objectives._odds import log_both


@objective(
    "orpo",
    lr=5e-6,
    lr_source="Hong et al. 2024, the authors' script for Mistral-ORPO (scripts/run_mistral_orpo_beta.sh)",
    sources={"lam": "Hong et al. 2024, the authors' script for Mistral-ORPO (alpha there, beta in TRL)"},
    paper="Hong et al. 2024, eq. 6 and 7",
    at_zero=lambda nll, lam: nll + lam * log(2),
)
def orpo(pairs: PairLogProbs, *, lam: float = 0.1) -> Tensor:
    """Odds ratio preference optimisation: likelihood of the chosen plus a small odds-ratio term, in one stage.

    -m_c - lam * log sigmoid(o(m_c) - o(m_r)), where m is the mean log-prob per token in nats of chosen and rejected,
    and o(m) = m - log(1 - exp(m)) the log-odds. The first term is each pair's own mean over the chosen response's
    tokens; the authors' code averages it over all tokens of the batch.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if lam < 0.
    """
    not_negative(lam=lam)
    chosen, rejected = pairs.policy.chosen.mean(), pairs.policy.rejected.mean()
    return -chosen - lam * logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(mean: Tensor) -> Tensor:
    yes, no = log_both(mean)
    return yes - no
