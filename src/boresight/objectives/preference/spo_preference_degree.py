from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import cross_entropy, logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


def _heads(width: int, *, levels: int = 5, **_: Any) -> dict[str, Module]:
    return {"degree": Linear(width, max(2, levels))}


@objective(
    "spo-preference-degree",
    needs=("reference", "hidden", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "gamma": "no published value was found; a tenth of the weight of the alignment loss",
        "levels": "no published value was found; as `boresight.curation.degrade` makes them: none removed to all",
    },
    paper="Li et al. 2024 (SPO, preference degree); stated from the catalogue, the paper's own equation was not found",
    at_zero=lambda gamma: log(2) if gamma == 0 else None,
    heads=_heads,
)
def spo_preference_degree(pairs: PairLogProbs, *, beta: float = 0.1, gamma: float = 0.1, levels: int = 5) -> Tensor:
    """DPO, and beside it a small classifier that tells from the policy's hidden states how far a response was degraded.

    -log sigmoid(beta * h) + gamma * (C(chosen) + C(rejected)), where h = policy margin - reference margin in nats, and
    C the cross-entropy, in nats, of a linear classifier of `levels` classes on the mean over the response's tokens of
    the policy's last hidden state; gradients flow into classifier and policy. The right class is the response's score
    "degree", a whole number from 0 (nothing removed) to levels - 1, rounded and cut to that range. A response without
    a degree adds nothing. With gamma = 0 it is DPO.

    `boresight.curation.degrade` makes the degraded copies and their degrees.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, gamma < 0, levels < 2 or not the
    classifier's, or the batch has no scores named "degree".
    """
    positive(beta=beta)
    not_negative(gamma=gamma)
    if not 2 <= levels < 10**6:
        raise ValueError(f"levels must be a whole number of at least 2, not {levels}")
    aligned = -logsigmoid(beta * pairs.margin())
    chosen, rejected = pairs.scores("degree")
    told = _told(pairs, pairs.policy.chosen, chosen, levels) + _told(pairs, pairs.policy.rejected, rejected, levels)
    return aligned + gamma * told


def _told(pairs: PairLogProbs, side: LogProbs, degree: Tensor, levels: int) -> Tensor:
    """Cross-entropy of the classifier on each response, (responses,); 0 where the degree is NaN."""
    hidden = side.token("hidden").to(side.values.dtype)
    total = hidden.new_zeros(side.count, hidden.shape[-1]).index_add(0, side.owner, hidden)
    logits: Tensor = pairs.head("degree")(total / side.lengths().clamp(min=1)[:, None])
    if logits.shape[-1] != levels:
        raise ValueError(f"levels is {levels}, but the classifier tells {logits.shape[-1]} apart")
    known = ~degree.isnan()
    place = torch.where(known, degree, 0.0).round().clamp(0, levels - 1).long()
    return cross_entropy(logits, place, reduction="none") * known
