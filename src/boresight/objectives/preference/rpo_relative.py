from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive

WEIGHTS = ("similarity", "uniform", "diagonal")


@objective(
    "rpo-relative",
    needs=("reference", "embedding"),
    lr=5e-7,
    lr_source="the authors' configuration (yinyueqin/relative-preference-optimization, config/config.yaml)",
    sources={
        "beta": "the authors' configuration (config/loss/rpo-unpaired.yaml)",
        "tau": "the authors' configuration (config/loss/rpo-unpaired.yaml, distance_temperature there)",
        "weights": "the paper's method; the others are its ablations",
        "diagonal": "the authors' configuration (config/loss/rpo-diagonal.yaml)",
    },
    paper="Yin et al. 2024 (RPO, 2402.10958); yinyueqin/relative-preference-optimization, RPOTrainer",
    over="batch",
    at_zero=lambda: log(2),
)
def rpo_relative(
    pairs: PairLogProbs,
    *,
    beta: float = 0.1,
    tau: float = 0.5,
    weights: str = "similarity",
    diagonal: float = 0.8,
) -> Tensor:
    """Relative preference optimisation: every chosen response of the batch against every rejected one.

    The loss of pair i is the mean over j of -log sigmoid(beta * W_ij * (g_i - g_j)), where g_i is log policy - log
    reference of the chosen response of pair i and g_j that of the rejected one of pair j, in nats, summed over
    response tokens, so that the mean over the batch is the paper's mean over i and j. weights="similarity":
    W_ij = softmax over j of (cos(e_i, e_j) - 1) / tau, e the frozen embedding of the prompt; each row of W sums to 1,
    and the more pairs a batch has the smaller is each weight. weights="uniform": all W_ij = 1 / pairs, the limit of
    a large tau (the authors' code has 1 there, which is this with beta times the number of pairs).
    weights="diagonal", which needs no similarity: all W_ij = 1, and instead of the plain mean over j the pair itself
    counts `diagonal` and the mean over the others 1 - diagonal.

    Responses that are not paired: `rpo-relative-unpaired`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta or tau is not positive, weights is unknown,
    or diagonal is not in (0, 1].
    """
    positive(beta=beta, tau=tau, diagonal=diagonal)
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if diagonal > 1:
        raise ValueError(f"diagonal must be in (0, 1], not {diagonal}")
    won, lost = pairs.gains()
    count = len(pairs)
    if count == 0:
        return won
    apart = won[:, None] - lost[None, :]
    if weights == "diagonal":
        losses = -logsigmoid(beta * apart)
        own = losses.diagonal()
        if count == 1:
            return own
        return diagonal * own + (1 - diagonal) * (losses.sum(1) - own) / (count - 1)
    if weights == "uniform":
        return -logsigmoid(beta / count * apart).mean(1)
    unit = normalize(pairs.embedding.detach(), dim=1)
    share = torch.softmax((unit @ unit.T - 1) / tau, 1).to(won.dtype)
    return -logsigmoid(beta * share * apart).mean(1)
