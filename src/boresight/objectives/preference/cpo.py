from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("code", "paper")


@objective(
    "cpo",
    lr=1e-6,
    lr_source="a cautious value for full training; the authors train adapters, at 1e-4",
    sources={
        "beta": "Xu et al. 2024, and TRL's default",
        "lam": "Xu et al. 2024 add the two terms as they are; TRL's default (cpo_alpha)",
        "form": "what the authors' trainer and TRL run",
    },
    paper="Xu et al. 2024, 'Contrastive Preference Optimization' (arXiv 2401.08417), the loss as prefer plus NLL",
    at_zero=lambda lam, form, nll: log(2) + lam * nll if form == "code" or lam == 0 else None,
)
def cpo(pairs: PairLogProbs, *, beta: float = 0.1, lam: float = 1.0, form: str = "code") -> Tensor:
    """Contrastive preference optimisation: DPO without a reference, plus the likelihood of the chosen response.

    -log sigmoid(beta * m) - lam * l, where m is the policy's own margin in nats, summed over response tokens, and l the
    log-prob of the chosen response: its mean per token with form="code" (the authors' trainer and TRL; these average
    over all tokens of the batch, this over each pair's own), its sum with form="paper", as the equation reads.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, lam < 0, or form is neither word.
    """
    positive(beta=beta)
    not_negative(lam=lam)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    chosen = pairs.policy.chosen
    return -logsigmoid(beta * pairs.policy.margin()) - lam * (chosen.mean() if form == "code" else chosen.sum())
