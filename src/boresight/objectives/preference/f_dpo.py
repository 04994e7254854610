from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive

DIVERGENCES = ("reverse-kl", "forward-kl", "js", "alpha")
LARGEST = 80.0
"""Exponents are cut here: e^80 is finite in fp32, and nothing is learnt beyond."""


@objective(
    "f-dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "divergence": "Wang et al. 2023 find Jensen-Shannon the best trade of reward for diversity",
        "alpha": "the middle of the range that the paper looks at",
    },
    paper="Wang et al. 2023 (Beyond reverse KL, 2309.16240), eq. 10 and table 1",
    at_zero=lambda: log(2),
)
def f_dpo(pairs: PairLogProbs, *, beta: float = 0.1, divergence: str = "js", alpha: float = 0.5) -> Tensor:
    """DPO under another divergence than reverse KL.

    -log sigmoid(beta * (f'(u_w) - f'(u_l))), where u = policy / reference of the chosen (w) and the rejected (l)
    response, whole responses, and f' the derivative of the divergence's generator, constants left out:

    - divergence="reverse-kl": f' = log u, which is DPO.
    - divergence="forward-kl": f' = -1/u.
    - divergence="js": f' = log(u / (1 + u)).
    - divergence="alpha": f' = (1 - u^-alpha) / alpha, alpha in (0, 1]: between reverse KL (alpha to 0) and forward KL
      (alpha = 1). TRL counts its coefficient as 1 - alpha.

    -1/u and u^-alpha grow exponentially with the response's length; their exponents are cut at 80, and beyond that
    nothing is learnt from a response.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, divergence is unknown, or alpha is
    not in (0, 1].
    """
    positive(beta=beta, alpha=alpha)
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, not {divergence!r}")
    if alpha > 1:
        raise ValueError(f"alpha must be in (0, 1], not {alpha}")
    slopes = []
    for gain in pairs.gains():
        if divergence == "reverse-kl":
            slopes.append(gain)
        elif divergence == "forward-kl":
            slopes.append(-torch.exp((-gain).clamp(max=LARGEST)))
        elif divergence == "js":
            slopes.append(logsigmoid(gain))
        else:
            slopes.append(-torch.expm1((-alpha * gain).clamp(max=LARGEST)) / alpha)
    return -logsigmoid(beta * (slopes[0] - slopes[1]))
