from __future__ import annotations

from torch import Tensor

from boresight.objectives import ResponseLogProbs, objective
from boresight.objectives._check import not_negative


@objective(
    "pmpo",
    needs=("labels", "reference_kl"),
    lr=5e-7,
    lr_source="that of kto, likewise on labelled responses; the paper's own for language was not found",
    sources={
        "alpha": "both signals alike; the middle of the paper's range",
        "beta": "a choice of this project, within the paper's range; from rejected responses alone take more",
    },
    paper="Abdolmaleki et al. 2024, the objective of accepted and rejected responses with KL",
)
def pmpo(responses: ResponseLogProbs, *, alpha: float = 0.5, beta: float = 0.5) -> Tensor:
    """Preference optimisation as probabilistic inference: raise what is accepted, lower what is not, near a reference.

    -2 * alpha * log p for desirable responses and +2 * (1 - alpha) * log p for the others, + beta * the sum over the
    response's tokens of KL(reference || policy) of the next token. log p in nats, summed over response tokens. With
    as many desirable as undesirable responses the mean over a batch is the paper's
    -alpha * E[log p of accepted] + (1 - alpha) * E[log p of rejected] + beta * KL; of one kind alone, the likelihood
    counts double against it. The KL is exact for each token, and estimates that of whole responses where the
    responses are the reference's own.

    alpha = 1 is likelihood of the accepted, alpha = 0 learns from the rejected alone. Unless beta outweighs
    1 - alpha the loss has no lower bound: log p of a rejected response falls without end.

    Returns the loss of each response, shape (responses,). Raises ValueError if alpha is outside [0, 1] or beta < 0.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    not_negative(beta=beta)
    policy = responses.policy
    kl = policy.values.new_zeros(len(responses)).index_add(0, policy.owner, policy.token("reference_kl"))
    total = policy.sum()
    return (2 * (1 - alpha) * total).where(~responses.desirable, -2 * alpha * total) + beta * kl
