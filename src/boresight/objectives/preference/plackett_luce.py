from __future__ import annotations

import torch
from torch import Tensor

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "plackett-luce",
    needs=("reference", "grades"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={"beta": "that of dpo (Rafailov et al. 2023, app. B)"},
    paper="Rafailov et al. 2023 (DPO, 2305.18290), app. A.3, eq. 20; ties after Breslow 1974",
)
def plackett_luce(lists: ListLogProbs, *, beta: float = 0.1) -> Tensor:
    """DPO on rankings: the Plackett-Luce likelihood of the whole order of a list.

    The sum over responses k of -log( exp(s_k) / sum over j graded no higher than k of exp(s_j) ), where
    s = beta * (log policy - log reference) in nats, summed over response tokens: the best is picked among all, the
    next among the rest, and so on. Responses of equal grade are each picked with the others still there. For two
    responses with different grades it is DPO.

    Returns the loss of each list, shape (lists,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    score = beta * lists.gains()
    first, second = lists.couples()
    below = lists.grades[second] <= lists.grades[first]
    first, second = first[below], second[below]
    # log(1 + sum of exp(s_j - s_k)), its largest term taken out; the 1 is k itself
    apart = score[second] - score[first]
    top = torch.zeros_like(score).scatter_reduce(0, first, apart.detach(), "amax")
    rest = (-top).exp().index_add(0, first, (apart - top[first]).exp())
    return lists.sum(rest.log() + top)
