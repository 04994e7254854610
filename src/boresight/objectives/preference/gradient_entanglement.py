from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive

SMALLEST_NORM = 1e-8
"""A gradient norm below this counts as this."""


@objective(
    "gradient-entanglement",
    needs=("reference", "gradient_norms"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1): the two rescalings multiply to 1",
    sources={"beta": "that of dpo (Rafailov et al. 2023, app. B)"},
    paper="Yuan et al. 2024, 'A Common Pitfall of Margin-based Language Model Alignment', normalised pairwise gradient",
    at_zero=lambda: log(2),
)
def gradient_entanglement(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """DPO whose step goes along the normalised gradients, so that it cannot move both log-probs alike.

    -log sigmoid(beta * (k * r_chosen - r_rejected / k)), r = log policy - log reference in nats, summed over tokens,
    and k = sqrt(n_rejected / n_chosen), where n is the norm of the gradient of the chosen and of the rejected log-prob
    (statistics "chosen_gradient_norm" and "rejected_gradient_norm" of the global batch, constants here). The gradient
    is then along g_chosen / n_chosen - g_rejected / n_rejected, times sqrt(n_chosen * n_rejected): along that direction
    the chosen log-prob never falls and the rejected never rises, to first order, whatever the angle between the two.
    DPO's step, g_chosen - g_rejected, lowers the chosen where <g_chosen, g_rejected> > |g_chosen|^2.

    The paper normalises each step; putting the ratio into the margin (so that log 2 at the start and DPO's lr stay) is
    ours, and at equal norms it is DPO. `boresight.diagnostics.entanglement` tells whether a model needs it.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0 or the batch has no gradient norms.
    """
    positive(beta=beta)
    chosen, rejected = pairs.gains()
    won = pairs.statistic("chosen_gradient_norm").detach().clamp(min=SMALLEST_NORM)
    lost = pairs.statistic("rejected_gradient_norm").detach().clamp(min=SMALLEST_NORM)
    ratio = (lost / won).sqrt().to(chosen.dtype)
    return -logsigmoid(beta * (ratio * chosen - rejected / ratio))
