from __future__ import annotations

from math import inf

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "modpo",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train LoRA at 1e-4",
    sources={
        "beta": "Zhou et al. 2023, the authors' scripts/modpo/beavertails/modpo.py",
        "weight": "the same script (w there)",
        "others": "the name of scores where rows have one of them",
    },
    paper="Zhou et al. 2023 (MODPO), the loss; checked against the authors' src/trainer/modpo_trainer.py",
)
def modpo(pairs: PairLogProbs, *, beta: float = 0.1, weight: float = 0.5, others: str = "score") -> Tensor:
    """Multi-objective DPO: preferences of one objective, with the scores of others as a margin.

    -log sigmoid((beta * h - (1 - weight) * m) / weight), where h = policy margin - reference margin in nats, summed
    over response tokens, and m = score of chosen - score of rejected under the other objective. The pairs are labelled
    by the first objective alone, which has this weight. The optimum is that of the weighted sum of both rewards;
    sweep weight, one policy each, for the front. weight = 1 is `dpo`.

    others: the name of the score that each response carries for the other objective; names of several, by comma,
    share 1 - weight alike. Scores of a reward model, or beta * (log p - log reference) of a policy trained on the
    other objective, must be on the scale of log-odds of preference, as the first objective's implicit reward is.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, weight is outside (0, 1], or a
    response lacks a score.
    """
    positive(beta=beta)
    if not 0 < weight <= 1:
        raise ValueError(f"weight must be in (0, 1], not {weight}")
    margin = beta * pairs.margin()
    names = others.split(",")
    for name in names:
        chosen, rejected = pairs.scores(name.strip())
        apart = (chosen - rejected).to(margin.dtype)
        if not (apart.abs() < inf).all():
            raise ValueError(f"others: a response has no score {name.strip()!r}")
        margin = margin - (1 - weight) / len(names) * apart
    return -logsigmoid(margin / weight)
