from __future__ import annotations

from torch import Tensor

from boresight.objectives import ResponseLogProbs, objective


@objective(
    "sft",
    per="token",
    lr=2e-5,
    lr_source="Tunstall et al. 2023 (Zephyr), sec. 4.1; Meng et al. 2024, the authors' configuration for Llama-3-8B",
    paper="Ouyang et al. 2022, sec. 3.5: supervised fine-tuning on demonstrations",
    at_zero=lambda nll: nll,
)
def sft(responses: ResponseLogProbs) -> Tensor:
    """Supervised fine-tuning: the negative log-likelihood of the response tokens.

    -log p(response), in nats, summed over response tokens; prompt tokens have no part in it. The loop divides by the
    number of response tokens in the global batch, so every token counts alike however the batch is cut up.

    Returns the loss of each response, shape (responses,).
    """
    return -responses.policy.sum()
