from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "slic-hinge",
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains T5 with another optimiser",
    sources={
        "delta": "the KTO authors' configuration of SLiC (HALOs, config/loss/slic.yaml, beta there)",
        "lam": "the KTO authors' configuration of SLiC (HALOs, config/loss/slic.yaml, lambda_coef there)",
    },
    paper="Zhao et al. 2023 (SLiC-HF), calibration loss with cross-entropy regularisation, eq. 4",
)
def slic_hinge(pairs: PairLogProbs, *, delta: float = 1.0, lam: float = 0.1) -> Tensor:
    """Sequence likelihood calibration with human feedback: a hinge on the policy's own margin, without a reference.

    max(0, delta - policy margin) - lam * log p(chosen), log-probs in nats, summed over response tokens. The second
    term keeps the policy near its demonstrations; the paper takes them from the fine-tuning set or, as here, from
    the preferred responses. What TRL calls "hinge" is another loss, on the margin against a reference: `rso-hinge`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if delta <= 0 or lam < 0.
    """
    positive(delta=delta)
    not_negative(lam=lam)
    return relu(delta - pairs.policy.margin()) - lam * pairs.policy.chosen.sum()
