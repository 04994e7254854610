from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "spo-sequential",
    needs=("reference", "references"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "alpha": "none: half the weight of the new dimension (the authors' value was not found)",
    },
    paper="Lou et al. 2024 (SPO, 2405.12739): the constrained objective; the loss is derived from it",
)
def spo_sequential(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5) -> Tensor:
    """Sequential preference optimisation: a further dimension of preference, earlier ones kept as implicit rewards.

    -log sigmoid(beta * h(policy, reference) - alpha * beta * sum over earlier stages i of h(pi_i, pi_{i-1})), where
    h(p, q) = (log p - log q)(chosen) - (log p - log q)(rejected) in nats, summed over response tokens. The pairs are
    labelled by the new dimension alone. With unlimited pairs the policy becomes the reference tilted by
    exp((r_new + alpha * sum of the earlier r_i) / beta), where beta * log(pi_i / pi_{i-1}) stands for r_i: each stage
    was trained with the same beta, on its own dimension, from the stage before.

    references: two for each earlier stage, the stage and what it was trained against, one stage after the other:
    references=pi_1,pi_0 in the second stage, references=pi_1,pi_0,pi_2,pi_1 in the third. reference: the paper bounds
    the KL to the stage before (reference=pi_{k-1}), which already carries the earlier rewards once; with the first
    model as the reference (reference=pi_0) alpha is all that keeps them. alpha = 0 is plain sequential DPO. The paper's
    own form of the loss was not found; this is what its objective, reward under a bound on KL and on earlier rewards,
    comes to.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, alpha < 0, or the number of further
    references is odd.
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    others = pairs.others
    if len(others) % 2:
        raise ValueError(f"references: {len(others)} of them; give two for each earlier stage, pi_i and pi_(i-1)")
    margin = pairs.margin()
    for stage, before in zip(others[::2], others[1::2], strict=True):
        margin = margin - alpha * (stage.margin() - before.margin())
    return -logsigmoid(beta * margin)
