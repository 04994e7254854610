from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from boresight.objectives import ResponseLogProbs, objective
from boresight.objectives._check import positive

WEIGHTS = ("similarity", "uniform")


@objective(
    "rpo-relative-unpaired",
    needs=("reference", "labels", "embedding"),
    lr=5e-7,
    lr_source="the authors' configuration (yinyueqin/relative-preference-optimization, config/config.yaml)",
    sources={
        "beta": "the authors' configuration (config/loss/rpo-unpaired.yaml)",
        "tau": "the authors' configuration (config/loss/rpo-unpaired.yaml, distance_temperature there)",
        "weights": "the paper's method; the other is its ablation",
    },
    paper="Yin et al. 2024 (RPO, 2402.10958); yinyueqin/relative-preference-optimization, UnpairdRPOTrainer",
    over="batch",
)
def rpo_relative_unpaired(
    responses: ResponseLogProbs, *, beta: float = 0.1, tau: float = 0.5, weights: str = "similarity"
) -> Tensor:
    """Relative preference optimisation without pairs: every desirable response against every undesirable one.

    The loss of a desirable response i is responses / desirable ones, times the mean over the undesirable responses j
    of the batch of -log sigmoid(beta * W_ij * (g_i - g_j)), g = log policy - log reference in nats, summed over
    response tokens; an undesirable response has 0 of its own and is trained through the others, so that the mean over
    the batch is the paper's mean over i and j. weights="similarity": W_ij = softmax over j of
    (cos(e_i, e_j) - 1) / tau, e the frozen embedding of the prompt, so each row of W sums to 1. weights="uniform": all
    equal to 1 / undesirable ones, the limit of a large tau. A batch with one label only teaches nothing: all 0.

    Returns the loss of each response, shape (responses,). Raises ValueError if beta or tau is not positive, or weights
    is unknown.
    """
    positive(beta=beta, tau=tau)
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    gain = responses.policy.sum() - responses.reference.sum()
    up = responses.desirable
    both = up[:, None] & ~up[None, :]
    ups, downs = up.sum(), (~up).sum().clamp(min=1)
    if weights == "similarity":
        unit = normalize(responses.embedding.detach(), dim=1)
        alike = ((unit @ unit.T - 1) / tau).masked_fill(~both, -torch.inf)
        # A row without a partner would be a softmax over nothing.
        share = torch.softmax(alike.masked_fill(~both.any(1, keepdim=True), 0.0), 1).to(gain.dtype)
    else:
        share = both.to(gain.dtype) / downs
    losses = -logsigmoid(beta * share * (gain[:, None] - gain[None, :]))
    mean = torch.where(both, losses, torch.zeros_like(losses)).sum(1) / downs
    return mean * len(responses) / ups.clamp(min=1)
