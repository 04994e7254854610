from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive
from boresight.objectives._scored import score_gap

OFFSETS = ("difference", "ratio")


@objective(
    "odpo",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "alpha": "Amini et al. 2024, the authors' code (rycolab/odpo, preference_loss)",
        "offset": "the authors' code, whose option `ratio` is off by default",
    },
    paper="Amini et al. 2024, 'Direct Preference Optimization with an Offset', as in the authors' code",
)
def odpo(pairs: PairLogProbs, *, beta: float = 0.1, alpha: float = 1.0, offset: str = "difference") -> Tensor:
    """DPO with an offset: the better the chosen is scored, the larger the margin that is asked for.

    -log sigmoid(beta * h - alpha * log(d)), where h = policy margin - reference margin in nats, summed over response
    tokens, and d is the score of the chosen minus that of the rejected (offset="difference") or divided by it
    ("ratio", for positive scores); scores are those named "score". alpha = 0 is DPO. A difference below 1 has a
    negative logarithm: so small a gap asks for less than DPO does, and the scale of the scores matters.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, alpha < 0, offset is neither word,
    a score is missing, or alpha > 0 and the chosen does not score above the rejected.
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    if offset not in OFFSETS:
        raise ValueError(f"offset must be one of {', '.join(OFFSETS)}, not {offset!r}")
    gap = score_gap(pairs)
    h = beta * pairs.margin()
    if alpha == 0:
        return -logsigmoid(h)
    if not bool((gap > 0).all()):
        raise ValueError("score of the chosen must be above that of the rejected in every pair: drop the others")
    if offset == "ratio":
        chosen, rejected = pairs.scores()
        if not bool((rejected > 0).all()):
            raise ValueError('offset="ratio" needs scores above 0')
        gap = chosen / rejected
    return -logsigmoid(h - alpha * gap.log().to(h.dtype))
