from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive
from boresight.objectives._scored import score_gap

DISTANCES = ("sq", "bwd-kl", "fwd-kl")


@objective(
    "rpo-reward-aware",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "NeMo-Aligner's default (ref_policy_kl_penalty)",
        "eta": "NeMo-Aligner's default (gt_reward_scale)",
        "distance": "one of NeMo-Aligner's rpo_sq, rpo_bwd_kl, rpo_fwd_kl; with an infinite gap this one is DPO",
    },
    paper="Sun et al. 2025, 'Reward-aware Preference Optimization' (arXiv 2502.00203); distances as in NeMo-Aligner",
)
def rpo_reward_aware(pairs: PairLogProbs, *, beta: float = 0.2, eta: float = 1.0, distance: str = "bwd-kl") -> Tensor:
    """Reward-aware preference optimisation: the policy's implicit reward gap is matched to an explicit one.

    h = beta * (policy margin - reference margin), in nats, summed over response tokens, is matched to
    g = eta * (score of the chosen - score of the rejected); scores are those named "score". By `distance`:
    "sq": (h - g)^2. "bwd-kl": KL(Bernoulli(sigmoid(g)) || Bernoulli(sigmoid(h))), cross-entropy on a soft label less
    that label's entropy; as g grows it becomes DPO. "fwd-kl": the same with h and g exchanged, whose slope vanishes far
    from the target on either side. Each is 0 at h = g and at no other place. With a constant gap g = 1/2, "sq" is
    beta^2 times IPO. The form for more than two responses of a prompt is not built here.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, eta <= 0, distance is none of these,
    or a score is missing.
    """
    positive(beta=beta, eta=eta)
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, not {distance!r}")
    h = beta * pairs.margin()
    g = eta * score_gap(pairs).to(h.dtype)
    if distance == "sq":
        return (h - g) ** 2
    return _bernoulli_kl(g, h) if distance == "bwd-kl" else _bernoulli_kl(h, g)


def _bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(Bernoulli(sigmoid(p)) || Bernoulli(sigmoid(q)))."""
    first, second = logsigmoid(p), logsigmoid(-p)
    return first.exp() * (first - logsigmoid(q)) + second.exp() * (second - logsigmoid(-q))
