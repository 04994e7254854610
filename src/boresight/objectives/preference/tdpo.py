from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("tdpo1", "tdpo2")


def _divergence(side: LogProbs) -> Tensor:
    """Sum over each response's tokens of KL(reference || policy), (responses,)."""
    each = side.token("reference_kl")
    return each.new_zeros(side.count).index_add(0, side.owner, each)


@objective(
    "tdpo",
    needs=("reference", "reference_kl"),
    lr=5e-6,
    lr_source="the authors' configuration (Vance0124/Token-level-Direct-Preference-Optimization, config/config.yaml)",
    sources={
        "beta": "the authors' configuration (config/loss/tdpo.yaml)",
        "alpha": "the authors' configuration (config/loss/tdpo.yaml)",
        "form": "the authors' configuration (config/loss/tdpo.yaml, if_tdpo2)",
    },
    paper="Zeng et al. 2024 (TDPO, 2404.11999), eq. 16 and 18; their trainers.py",
    at_zero=lambda: log(2),
)
def tdpo(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5, form: str = "tdpo2") -> Tensor:
    """Token-level DPO: the margin is corrected by how far the policy has moved at each token.

    D = sum over the response's tokens of KL(reference || policy) of the next token's distribution; h = policy margin -
    reference margin; all in nats. form="tdpo1": -log sigmoid(beta * (h + D_w - D_l)), gradients through both D.
    form="tdpo2": -log sigmoid(beta * (h + alpha * (D_w - D_l))), no gradient through D_w, so that the divergence of the
    rejected response is held down and that of the chosen one is left alone. alpha is read by form="tdpo2" only.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, alpha < 0, or form is unknown.
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    won, lost = _divergence(pairs.policy.chosen), _divergence(pairs.policy.rejected)
    moved = won - lost if form == "tdpo1" else alpha * (won.detach() - lost)
    return -logsigmoid(beta * (pairs.margin() + moved))
