from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive

FORMS = ("mixed", "geometric")


@objective(
    "dpo-soft",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "temperature": "1 where the scores are log-odds, such as those of a Bradley-Terry reward model",
        "form": "the cross-entropy to the soft label",
        "attribute": "the attribute of scores that have no name",
        "probabilities": "scores of a reward model are the common case",
    },
    paper="Furuta et al. 2024 (Soft preference labels, 2409.06691): cDPO with soft labels, and GDPO; Mitchell 2023",
    at_zero=lambda: log(2),
)
def dpo_soft(
    pairs: PairLogProbs,
    *,
    beta: float = 0.1,
    temperature: float = 1.0,
    form: str = "mixed",
    attribute: str = "score",
    probabilities: bool = False,
) -> Tensor:
    """DPO with soft labels: how sure the preference is, pair by pair.

    p, the probability that the chosen response is the better one, is sigmoid((score of the chosen - score of the
    rejected) / temperature) of the scores called `attribute`; with probabilities=True it is the chosen response's
    score itself. h = policy margin - reference margin in nats, summed over response tokens.
    form="mixed": -p * log sigmoid(beta * h) - (1 - p) * log sigmoid(-beta * h), least where beta * h is the log-odds
    of p. form="geometric": -log sigmoid(beta * (2 * p - 1) * h), the paper's geometric average, which learns little
    from unsure pairs and has no target. p = 1 is DPO in both; one p for all pairs is label smoothing in the first.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta or temperature is not positive, form is
    unknown, a score is missing, or a probability is outside [0, 1].
    """
    positive(beta=beta, temperature=temperature)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    better, worse = pairs.scores(attribute)
    p = better if probabilities else torch.sigmoid((better - worse) / temperature)
    if not bool(((p >= 0) & (p <= 1)).all()):  # NaN is neither
        raise ValueError(
            f"the scores {attribute!r} must be probabilities from 0 to 1, and every pair needs one"
            if probabilities
            else f"every response needs a score {attribute!r}, and some have none"
        )
    h, p = beta * pairs.margin(), p.detach().to(pairs.policy.chosen.values.dtype)
    if form == "geometric":
        return -logsigmoid((2 * p - 1) * h)
    return -p * logsigmoid(h) - (1 - p) * logsigmoid(-h)
