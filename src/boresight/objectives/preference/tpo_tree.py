from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive
from boresight.objectives._ranking import dcg_weights


@objective(
    "tpo-tree",
    needs=("reference", "grades"),
    lr=5e-7,
    lr_source="the authors' configs/config_full.yaml (MrBlankness/TPO)",
    sources={
        "beta": "the authors' run.sh (MrBlankness/TPO); their config_full.yaml has 0.05",
        "form": "the paper's LambdaRank weights",
    },
    paper="Liao et al. 2024 (TPO, tree preference optimization), preference list ranking",
)
def tpo_tree(lists: ListLogProbs, *, beta: float = 0.4, form: str = "paper") -> Tensor:
    """Tree preference optimisation: ranks all graded leaves of a tree of reasoning, without its step weights.

    form "paper": sum over pairs with grade i > grade j of lambda_ij * log(1 + exp(-(s_i - s_j))), s = beta * (log
    policy - log reference) in nats, summed over response tokens, lambda_ij = |2^grade_i - 2^grade_j| *
    |1/log(1 + t_i) - 1/log(1 + t_j)| with t the place by falling s, without gradient: then it is `lipo`, with another
    beta. (The weight is stated from the catalogue; the paper's own equation was not found.)
    form "code": s is beta times the mean log-ratio per token, all pairs weigh alike, and the sum is divided by half
    the number of ordered pairs of the list, as in the authors' code; its outer log-sigmoid, which turns the sign of
    the loss, is left out, and its beta there stands before s.

    The paper further weighs each reasoning step of a response by how alike its hidden state is to the same step of
    the best response. That needs hidden states and marked steps for every batch, and is not part of this objective.

    Returns the loss of each list, shape (lists,); 0 where all grades are equal. Raises ValueError if beta <= 0 or
    form is another word.
    """
    positive(beta=beta)
    if form not in ("paper", "code"):
        raise ValueError(f'form must be "paper" or "code", not {form!r}')
    better, worse = lists.better()
    owner = lists.list_of[better]
    scores = beta * (lists.gains() if form == "paper" else lists.policy.mean() - lists.reference.mean())
    losses = softplus(scores[worse] - scores[better])
    if form == "paper":
        weight = dcg_weights(lists, scores)
    else:
        sizes = lists.sizes().to(losses.dtype)
        weight = (2 / (sizes * (sizes - 1)).clamp(min=1))[owner]
    return losses.new_zeros(len(lists)).index_add(0, owner, weight * losses)
