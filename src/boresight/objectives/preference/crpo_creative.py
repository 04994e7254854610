from __future__ import annotations

from torch import Tensor, zeros_like
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("paper", "code")
EQUAL = "equal weights for all four; the authors' code has 0, which is DPO, and sets some to 1 in its runs"


@objective(
    "crpo-creative",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "lam_diversity": EQUAL,
        "lam_novelty": EQUAL,
        "lam_surprise": EQUAL,
        "lam_quality": EQUAL,
        "form": "the paper's equation",
    },
    paper="Ismayilzada et al. 2025, 'Creative Preference Optimization' (arXiv 2505.14442), and the authors' code",
)
def crpo_creative(
    pairs: PairLogProbs,
    *,
    beta: float = 0.1,
    lam_diversity: float = 1.0,
    lam_novelty: float = 1.0,
    lam_surprise: float = 1.0,
    lam_quality: float = 1.0,
    form: str = "paper",
) -> Tensor:
    """Creative preference optimisation: DPO's loss of each pair times how creative its chosen response is.

    -w * log sigmoid(beta * h), where h = policy margin - reference margin in nats, summed over response tokens, and
    w = lam_diversity * diversity + lam_novelty * novelty + lam_surprise * surprise + lam_quality * quality: scores by
    these names, each meant to lie in [0, 1]. form="paper": the scores of the chosen response. form="code", as the
    authors' code has it where both responses are scored: chosen minus rejected, 0 where that is negative. A score is
    asked for only where its weight is not 0; with all four at 0, w is 1 and the loss DPO's.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, a weight < 0, form is neither word,
    or a score that counts is missing or, with form="paper", negative.
    """
    positive(beta=beta)
    weights = {
        "diversity": lam_diversity,
        "novelty": lam_novelty,
        "surprise": lam_surprise,
        "quality": lam_quality,
    }
    not_negative(**{f"lam_{name}": weight for name, weight in weights.items()})
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    losses = -logsigmoid(beta * pairs.margin())
    if not any(weights.values()):
        return losses
    total = zeros_like(losses)
    for name, weight in weights.items():
        if weight:
            total = total + weight * _score(pairs, name, form).to(losses.dtype)
    return total * losses


def _score(pairs: PairLogProbs, name: str, form: str) -> Tensor:
    chosen, rejected = pairs.scores(name)
    score = chosen if form == "paper" else (chosen - rejected).clamp(min=0)
    if not bool(((score >= 0) & score.isfinite()).all()):
        raise ValueError(f"{name} must be a number, 0 or above, for the responses of every pair")
    return score
