from __future__ import annotations

from math import exp, log, log1p

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "mdpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train adapters at 1e-5",
    sources={
        "beta": "the authors' configuration (luka-group/mDPO, bunny/config.yaml)",
        "anchor": "half in each of two rows makes the authors' equal weights (luka-group/mDPO, mdpo_trainer.py)",
        "offset": "luka-group/mDPO, mdpo_trainer.py",
    },
    paper="Wang et al. 2024 (mDPO, 2406.11839): preference, conditional preference and anchor; luka-group/mDPO",
    at_zero=lambda anchor, offset: log(2) + anchor * (offset + log1p(exp(-offset))),
)
def mdpo(pairs: PairLogProbs, *, beta: float = 0.1, anchor: float = 0.5, offset: float = 0.0) -> Tensor:
    """Conditional preference optimisation: the answer must depend on its condition, and must not become unlikely.

    -log sigmoid(beta * h) - anchor * log sigmoid(beta * g_w - offset), where h = policy margin - reference margin and
    g_w = log policy - log reference of the chosen response, in nats, summed over response tokens.

    The paper's loss has three terms of weight 1: ordinary preference, conditional preference, and the anchor. The
    first two have one form, so they are two rows of the data: (condition, better answer, worse answer), and
    (condition, an answer, the same answer behind a corrupted condition), whose rejected response brings a prompt of
    its own. The corrupted image of the paper becomes whatever the condition is: a passage cut down, a document
    exchanged. With one row of each kind for each example, and anchor = 0.5, the two rows together are the paper's
    loss. anchor = 0 on ordinary rows is DPO; without the conditional rows it is DPO with an anchor.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, anchor < 0 or offset < 0.
    """
    positive(beta=beta)
    not_negative(anchor=anchor, offset=offset)
    won, lost = pairs.gains()
    return -logsigmoid(beta * (won - lost)) - anchor * logsigmoid(beta * won - offset)
