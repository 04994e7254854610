from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "cal-dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="the authors' configuration (tengxiao1/Cal-DPO, zephyr-selm/dpo_config_full.yaml)",
    sources={"beta": "the authors' configuration (tengxiao1/Cal-DPO, zephyr-selm/dpo_config_full.yaml)"},
    paper="Xiao et al. 2024 (Cal-DPO, 2412.14516), algorithm 1",
    at_zero=lambda beta: log(2) + 0.5 / beta**2,
)
def cal_dpo(pairs: PairLogProbs, *, beta: float = 0.002) -> Tensor:
    """Calibrated DPO: implicit rewards are also fitted to an absolute scale.

    -log sigmoid(g_w - g_l) + (g_w - 1 / (2 * beta))^2 + (g_l + 1 / (2 * beta))^2, where g = log policy - log reference
    of the chosen (w) and the rejected (l) response in nats, summed over response tokens. There is no beta in the
    sigmoid, as in the paper's algorithm: it is in the targets, which keep the chosen response above the reference.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    won, lost = pairs.gains()
    return -logsigmoid(won - lost) + (won - 0.5 / beta) ** 2 + (lost + 0.5 / beta) ** 2
