from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "ln-dpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="Lambert et al. 2024 (Tulu 3), table 20: its length-normalised DPO of 8 billion parameters",
    sources={"beta": "Lambert et al. 2024 (Tulu 3), table 20, and the authors' command (open-instruct, dpo_norm)"},
    paper="Ahrabian et al. 2024, 'The Hitchhiker's Guide to Human Alignment with *PO': LN-DPO",
    at_zero=lambda: log(2),
)
def ln_dpo(pairs: PairLogProbs, *, beta: float = 5.0) -> Tensor:
    """Length-normalised DPO: the log-ratio of each response is divided by its number of tokens.

    -log sigmoid(beta * h), where h = policy margin - reference margin in nats per token: each response's log-ratio is
    averaged over its own tokens. beta is therefore larger than in DPO; the values tried are of order 1 to 10.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    return -logsigmoid(beta * (pairs.policy.mean_margin() - pairs.reference.mean_margin()))
