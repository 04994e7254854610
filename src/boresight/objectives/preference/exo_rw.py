from __future__ import annotations

from torch import Tensor

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "exo-rw",
    needs=("reference", "grades"),
    lr=1e-6,
    lr_source="Ji et al. 2024, the authors' scripts (haozheji/exact-optimization, exp/tldr_exp/train_exo.sh)",
    sources={
        "beta_policy": "beta_pi of the authors' script for TL;DR; 0.1 in that for IMDb",
        "beta_reward": "beta_r of the authors' script for TL;DR; 0.1 in that for IMDb",
    },
    paper="Ji et al. 2024, EXO-rw, as in the authors' code (exact_loss)",
)
def exo_rw(lists: ListLogProbs, *, beta_policy: float = 0.5, beta_reward: float = 0.5) -> Tensor:
    """Efficient exact optimisation on lists of responses with rewards: reverse KL from the policy to the optimum.

    KL(f || p) over the responses of a prompt, where f is the softmax of beta_policy * (log policy - log reference),
    summed over tokens, and p the softmax of grade / beta_reward. The grades are rewards: a list that has ranks instead
    is taken at its word. The minimum, 0, is at f = p, where the log-ratios differ by
    (difference of rewards) / (beta_policy * beta_reward) nats. A list of one response has loss 0.

    Returns the loss of each list, shape (lists,). Raises ValueError if beta_policy <= 0 or beta_reward <= 0.
    """
    positive(beta_policy=beta_policy, beta_reward=beta_reward)
    policy = lists.log_softmax(beta_policy * lists.gains())
    target = lists.log_softmax(lists.grades / beta_reward)
    return lists.sum(policy.exp() * (policy - target))
