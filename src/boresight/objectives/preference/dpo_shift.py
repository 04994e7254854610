from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive

SCHEDULES = ("fixed", "increase", "decrease")


@objective(
    "dpo-shift",
    needs=("reference", "progress"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1), whose recipe the authors' trainer follows",
    sources={
        "beta": "the authors' trainer (Meaquadddd/DPO-Shift, DPOShiftConfig)",
        "f": "the middle of the fixed values whose results the authors publish, 0.5 to 1; in their trainer 1",
        "f_schedule": "the authors' trainer (dpo_lambda_strategy)",
    },
    paper="'DPO-Shift: Shifting the Distribution of Direct Preference Optimization', as in the authors' trainer",
    at_zero=lambda: log(2),
)
def dpo_shift(pairs: PairLogProbs, *, beta: float = 0.1, f: float = 0.75, f_schedule: str = "fixed") -> Tensor:
    """DPO whose rejected reward counts for less, so that the chosen response keeps its probability.

    -log sigmoid(beta * (a - c * b)), where a and b are log policy - log reference of the chosen and of the rejected
    response in nats, summed over tokens, and c in (0, 1] is by `f_schedule`: "fixed" is f throughout; "increase" goes
    from f to 1 with the share of the training that is done, "decrease" from 1 to f. c = 1 is DPO. The smaller c, the
    higher the chosen log-prob ends, and the smaller the margin.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, f is outside (0, 1], or f_schedule is
    none of these.
    """
    positive(beta=beta)
    if not 0 < f <= 1:
        raise ValueError(f"f must be in (0, 1], not {f}")
    if f_schedule not in SCHEDULES:
        raise ValueError(f"f_schedule must be one of {', '.join(SCHEDULES)}, not {f_schedule!r}")
    c = f
    if f_schedule != "fixed":
        done = pairs.progress
        c = f + (1 - f) * (done if f_schedule == "increase" else 1 - done)
    chosen, rejected = pairs.gains()
    return -logsigmoid(beta * (chosen - c * rejected))
