from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive
from boresight.objectives._ranking import dcg_weights


@objective(
    "rankdpo",
    needs=("reference", "grades"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper trains diffusion models",
    sources={"beta": "that of dpo (Rafailov et al. 2023, app. B); the paper's is for denoising errors"},
    paper="Karthik et al. 2024 (RankDPO), ranking loss with DCG weights",
)
def rankdpo(lists: ListLogProbs, *, beta: float = 0.1) -> Tensor:
    """Ranked preference optimisation: every pair of a graded list, weighed by gains and discounts of the grades.

    Sum over pairs with grade i > grade j of delta_ij * log(1 + exp(-beta * (g_i - g_j))), where g = log policy - log
    reference in nats, summed over response tokens, and delta_ij = |G_i - G_j| * |1/D(t_i) - 1/D(t_j)| with
    G = 2^grade - 1, D(t) = log(1 + t) and t the place by falling grade (equal grades in the order given). Where
    `lipo` sorts by the policy's own scores, the order here is the annotator's and never changes.

    The paper is on diffusion models: there, minus the squared denoising error stands for the log-prob, of policy and
    reference at the same time and noise (`LogProbs.from_sums` takes it). Its grades are rewards of several models,
    averaged. (Stated from the catalogue; the paper's own equation was not found.)

    Returns the loss of each list, shape (lists,); 0 where all grades are equal. Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    scores = beta * lists.gains()
    better, worse = lists.better()
    losses = dcg_weights(lists, lists.grades) * softplus(scores[worse] - scores[better])
    return losses.new_zeros(len(lists)).index_add(0, lists.list_of[better], losses)
