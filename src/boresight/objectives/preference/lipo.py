from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu, softplus

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive
from boresight.objectives._ranking import dcg_weights


@objective(
    "lipo",
    needs=("reference", "grades"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains T5 with Adafactor at 2e-5",
    sources={
        "beta": "Liu et al. 2025 (LiPO), sec. 5",
        "weighting": "dcg is LiPO-lambda, eq. 8; constant is DPO over all pairs of the list, eq. 5",
        "pair": "logistic is LiPO-lambda, eq. 8; hinge is SLiC over all pairs of the list, eq. 6",
    },
    paper="Liu et al. 2025 (LiPO), eq. 8",
)
def lipo(lists: ListLogProbs, *, beta: float = 0.05, weighting: str = "dcg", pair: str = "logistic") -> Tensor:
    """Listwise preference optimisation: every pair of a graded list, weighed by what its exchange does to DCG.

    Sum over pairs with grade i > grade j of delta_ij * log(1 + exp(-(s_i - s_j))), where s = beta * (log policy -
    log reference) in nats, summed over response tokens, and delta_ij = |G_i - G_j| * |1/D(t_i) - 1/D(t_j)| with
    G = 2^grade - 1, D(t) = log(1 + t), t the place of the response when the list is sorted by falling s (equal scores
    in the order given). No gradient flows through delta. The paper's grades are win rates in [0, 1].

    weighting: "dcg", or "constant" for delta = 1. pair: "logistic", or "hinge" for max(0, 1 - (s_i - s_j)). A list of
    two is DPO (logistic) or hinge-norm SLiC (hinge, `rso-hinge`), times delta.

    Returns the loss of each list, shape (lists,); 0 where all grades are equal. Raises ValueError if beta <= 0 or
    weighting or pair is another word.
    """
    positive(beta=beta)
    if weighting not in ("dcg", "constant"):
        raise ValueError(f'weighting must be "dcg" or "constant", not {weighting!r}')
    if pair not in ("logistic", "hinge"):
        raise ValueError(f'pair must be "logistic" or "hinge", not {pair!r}')
    scores = beta * lists.gains()
    better, worse = lists.better()
    apart = scores[better] - scores[worse]
    losses = softplus(-apart) if pair == "logistic" else relu(1 - apart)
    if weighting == "dcg":
        losses = losses * dcg_weights(lists, scores)
    return losses.new_zeros(len(lists)).index_add(0, lists.list_of[better], losses)
