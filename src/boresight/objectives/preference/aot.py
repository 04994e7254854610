from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import flip_rate, positive

FORMS = ("paired", "unpaired")


@objective(
    "aot",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B): the paper adds none of its own",
        "label_smoothing": "0 is the paper's logistic loss; TRL offers the smoothing",
        "form": "the form for pairs of one prompt each",
    },
    paper="Melnyk et al. 2024 (AOT, 2406.05882), sec. 3; TRL's loss_type=aot (paired) and aot_unpaired",
    over="batch",
    at_zero=lambda: log(2),
)
def aot(pairs: PairLogProbs, *, beta: float = 0.1, label_smoothing: float = 0.0, form: str = "paired") -> Tensor:
    """Alignment by optimal transport: distributions over the batch are ordered, not pairs.

    form="paired": the policy's margins log p(chosen) - log p(rejected) of the batch are sorted, the reference's
    margins are sorted, and d is the difference at the same place. form="unpaired": log policy - log reference of the
    chosen responses and of the rejected ones are sorted each by itself, and d is their difference at the same place;
    which chosen came with which rejected does not matter. Log-probs in nats, summed over response tokens. The loss is
    -(1 - label_smoothing) * log sigmoid(beta * d) - label_smoothing * log sigmoid(-beta * d). Each loss is returned
    at the pair that the policy's margin (form="paired") or the chosen response (form="unpaired") is of; a weight of
    an example therefore weighs its place in the order, not its pair.

    With one pair in the batch it is DPO.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, label_smoothing is outside [0, 0.5),
    or form is unknown.
    """
    positive(beta=beta)
    flip_rate(label_smoothing=label_smoothing)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    upper, lower = (pairs.policy.margin(), pairs.reference.margin()) if form == "paired" else pairs.gains()
    order = torch.argsort(upper, stable=True)
    d = beta * (upper[order] - lower.sort().values)
    losses = -(1 - label_smoothing) * logsigmoid(d) - label_smoothing * logsigmoid(-d)
    return torch.empty_like(losses).index_copy(0, order, losses)
