from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive
from boresight.objectives._scored import score_gap

FORMS = ("soft", "offset")


@objective(
    "rdpo-refined",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "gamma": "1 takes the scores as they are; not the paper's value, which was not found",
        "form": "the one that is bounded for pairs that were made worse; the paper's equation was not found",
    },
    paper="Gallego 2024, 'Refined Direct Preference Optimization' (arXiv 2402.08005); stated from the catalogue",
)
def rdpo_refined(pairs: PairLogProbs, *, beta: float = 0.1, gamma: float = 1.0, form: str = "soft") -> Tensor:
    """Refined DPO: an external reward model's scores make up for noise in self-made pairs.

    h = beta * (policy margin - reference margin), in nats, summed over response tokens; s = gamma * (score of the
    chosen - score of the rejected), scores named "score". form="soft": -p * log sigmoid(h) - (1 - p) * log sigmoid(-h)
    with p = sigmoid(s), so that a pair which the scores turn round is turned round; it is least at h = s.
    form="offset": -log sigmoid(h - s): the margin must exceed the scores' gap, and a pair that the scores turn round
    asks for less.
    gamma = 0 makes "offset" DPO and "soft" indifferent (p = 1/2).

    The paper's own equation was not found (its code holds data and scoring only): both forms are stated from the
    catalogue, the sign of "offset" chosen so that the policy learns what labels and scores say together. Another
    method that is called rDPO is `rdpo-robust`.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, gamma < 0, form is neither word, or
    a score is missing.
    """
    positive(beta=beta)
    not_negative(gamma=gamma)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    h = beta * pairs.margin()
    s = gamma * score_gap(pairs).to(h.dtype)
    if form == "offset":
        return -logsigmoid(h - s)
    return -s.sigmoid() * logsigmoid(h) - (-s).sigmoid() * logsigmoid(-h)
