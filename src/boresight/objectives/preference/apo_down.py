from __future__ import annotations

from torch import Tensor

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "apo-down",
    needs=("reference",),
    lr=2e-7,
    lr_source="D'Oosterlinck et al. 2024, sec. 5.2 of the published version, as TRL's index of papers gives it",
    sources={"beta": "D'Oosterlinck et al. 2024, sec. 5.2 of the published version, as TRL's index of papers gives it"},
    paper="D'Oosterlinck et al. 2024 (APO, 2408.06266), eq. 8",
    at_zero=lambda: 1.0,
)
def apo_down(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """Anchored preference optimisation, down: chosen down, rejected further down.

    sigmoid(beta * g_w) + sigmoid(-beta * (g_w - g_l)), where g = log policy - log reference of the chosen (w) and the
    rejected (l) response in nats, summed over response tokens. For data whose chosen responses are worse than what
    the model itself would write; where they are better, `apo-zero`. The loss is bounded, and raising the chosen
    response is not always good for it.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    won, lost = pairs.gains()
    return (beta * won).sigmoid() + (-beta * (won - lost)).sigmoid()
