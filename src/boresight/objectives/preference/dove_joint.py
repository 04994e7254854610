from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "dove-joint",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train LoRA at 5e-5 (dove/train.py)",
    sources={"beta": "the authors' dove/train.py"},
    paper="Bansal et al. 2024 (2404.00530); the loss as in Hritikbansal/dove, dove/custom_dove_trainer.py",
    at_zero=lambda: log(2),
)
def dove_joint(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
    """Joint preference optimisation: the chosen prompt with its response against the rejected one with its own.

    -log sigmoid(beta * ((log p(y_w | x_w) - log ref(y_w | x_w)) - (log p(y_l | x_l) - log ref(y_l | x_l)))), in nats,
    summed over response tokens. It is `dpo`, on pairs whose two responses may answer different prompts (rows of the
    format "joint": prompt_chosen, chosen, prompt_rejected, rejected), beside pairs on one prompt. The paper's loss is
    of the joint probabilities of prompt and response; those of the prompts cancel where policy and reference give
    prompts the same probability, and the authors' code leaves them out, as this does. It has a switch that adds the
    log-probs of the prompt tokens; that is not offered here.

    The loss takes log p - log ref for the true reward of prompt and response; it is that up to a number of each
    prompt (beta log Z), which cancels between responses to one prompt and not between prompts.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    won, lost = pairs.gains()
    return -logsigmoid(beta * (won - lost))
