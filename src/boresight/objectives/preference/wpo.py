from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "wpo",
    needs=("reference",),
    lr=5e-7,
    lr_source="the authors' configuration (wzhouad/WPO, training_configs/mistral-base.yaml)",
    sources={"beta": "the authors' configuration (wzhouad/WPO, training_configs/mistral-base.yaml)"},
    paper="Zhou et al. 2024 (WPO, 2406.11827), eq. 1, with DPO as the loss and without weight alignment",
)
def wpo(pairs: PairLogProbs, *, beta: float = 0.01) -> Tensor:
    """Weighted preference optimisation: pairs that the policy itself might have written count more.

    -v_w * v_l * log sigmoid(beta * h), where h = policy margin - reference margin in nats, summed over response
    tokens, and v = exp(mean log-prob per token of the policy) of the chosen (w) and the rejected (l) response, without
    gradient: data from elsewhere are weighed as if the policy had sampled them. The paper's default goes further and
    divides each token's probability by the sum of the squared probabilities of all tokens at its place (and the
    authors' scripts/run_wpo.py cuts v_w * v_l at 1), so that what the policy samples has weight about 1; that sum is
    not among what a batch offers, nor can it be had from the entropy, so the weights here are smaller, by a factor that
    differs between pairs. Raise the learning rate where they are very small.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0.
    """
    positive(beta=beta)
    weight = (pairs.policy.chosen.mean() + pairs.policy.rejected.mean()).detach().exp()
    return -weight * logsigmoid(beta * pairs.margin())
