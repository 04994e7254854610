from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "3d-properties",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta_chosen": "beta of dpo (Rafailov et al. 2023, app. B)",
        "beta_rejected": "half of beta_chosen: the paper wants it smaller; its own values were not found",
        "lam": "0 is Flex-DPO alone; the paper's second remedy has it above 0",
    },
    paper="Yan et al. 2024, '3D-Properties' (arXiv 2406.07327): Flex-DPO, and the SFT term; stated from the catalogue",
    # The likelihood term is a sum, which depends on the length.
    at_zero=lambda lam: None if lam else log(2),
)
def flex_dpo(pairs: PairLogProbs, *, beta_chosen: float = 0.1, beta_rejected: float = 0.05, lam: float = 0.0) -> Tensor:
    """Flex-DPO: one beta for the chosen and a smaller one for the rejected response, and a likelihood term if wanted.

    -log sigmoid(beta_chosen * a - beta_rejected * b) - lam * log p(chosen), where a and b are log policy - log
    reference of the chosen and of the rejected response, and all log-probs are in nats, summed over response tokens.
    In DPO the slope on the rejected probability exceeds that on the chosen by the ratio of the two probabilities,
    which grows as the rejected falls; a smaller beta_rejected divides it. Equal betas and lam = 0 are DPO, and
    beta_rejected = f * beta_chosen is `dpo-shift` with a fixed f.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta_chosen <= 0, beta_rejected < 0 or lam < 0.
    """
    positive(beta_chosen=beta_chosen)
    not_negative(beta_rejected=beta_rejected, lam=lam)
    chosen, rejected = pairs.gains()
    return -logsigmoid(beta_chosen * chosen - beta_rejected * rejected) - lam * pairs.policy.chosen.sum()
