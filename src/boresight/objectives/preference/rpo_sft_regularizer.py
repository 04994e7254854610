from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("paper", "trl")


@objective(
    "rpo-sft-regularizer",
    needs=("reference",),
    lr=5e-7,
    lr_source="the authors' recipe (YSLIU627/Regularized-Preference-Optimization, zephyr-7b-beta/rpo)",
    sources={
        "beta": "the authors' recipe (zephyr-7b-beta/rpo/config_full.yaml)",
        "eta": "the authors' recipe (zephyr-7b-beta/rpo/config_full.yaml)",
        "form": "the authors' trainer (rpo_trainer.py)",
    },
    paper="Liu et al. 2024, 'Your SFT Loss is Implicitly an Adversarial Regularizer', as in the authors' trainer",
    # Summed log-probs depend on the length; a mean does not.
    at_zero=lambda eta, form, nll: log(2) + eta * nll if form == "trl" or eta == 0 else None,
)
def rpo_sft_regularizer(pairs: PairLogProbs, *, beta: float = 0.01, eta: float = 0.005, form: str = "paper") -> Tensor:
    """Regularised preference optimisation: DPO plus a likelihood term that stands for a pessimistic reward model.

    -log sigmoid(beta * h) + s, where h = policy margin - reference margin in nats, summed over response tokens. With
    form="paper", as in the paper and the authors' trainer, s = -eta * beta * log p(chosen), summed over tokens; with
    form="trl", as in TRL's loss_type=["sigmoid", "sft"], s = -eta * (mean log-prob per token of the chosen), which is
    not scaled by beta. The response that the likelihood term raises is meant to come from a baseline policy; here it is
    the chosen one. eta = 0 is DPO.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, eta < 0, or form is neither word.
    """
    positive(beta=beta)
    not_negative(eta=eta)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    chosen = pairs.policy.chosen
    likelihood = beta * chosen.sum() if form == "paper" else chosen.mean()
    return -logsigmoid(beta * pairs.margin()) - eta * likelihood
