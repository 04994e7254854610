from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import ResponseLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "d2o",
    needs=("reference", "negatives", "samples"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper's own was not found",
    sources={
        "beta": "Duan et al. 2024, sec. 4.2 (0.1 for all methods)",
        "alpha": "Duan et al. 2024, sec. 4.2",
    },
    paper="Duan et al. 2024, eq. 3",
    at_zero=lambda: log(2),
)
def d2o(responses: ResponseLogProbs, *, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """Distributional dispreference optimisation: undesirable responses against samples of the model's own.

    -log sigmoid(beta * mean of r over the prompt's samples - alpha * r of the undesirable response), where r = log
    policy - log reference in nats, summed over response tokens. No desirable response is needed: the samples stand
    for what the model would say otherwise, and keep it from being unlearnt. The paper takes 11 samples for each
    prompt, and one model for both of its references (a harmful one under the samples, a harmless one under the
    response), as here; whether it draws the samples anew during training could not be checked, here they are drawn
    once, before it.

    Returns the loss of each response, shape (responses,). Raises ValueError if beta <= 0 or alpha <= 0.
    """
    positive(beta=beta, alpha=alpha)
    own = responses.samples.mean(responses.samples.gains())
    return softplus(alpha * (responses.policy.sum() - responses.reference.sum()) - beta * own)
