from __future__ import annotations

from math import inf, log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("paper", "code")


def _names(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")] if words.strip() else []


def _at_zero(attributes: str, weights: str, penalty: float, form: str) -> float | None:
    if _names(weights):
        return None  # each row has its own weights, which the penalty is made of
    return log(2) + (penalty * log(len(_names(attributes))) if form == "code" else 0.0)


@objective(
    "multitron",
    needs=("reference", "scores"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train a recommender",
    sources={
        "beta": "that of dpo (Rafailov et al. 2023, app. B)",
        "attributes": "two common names of scores",
        "weights": "none: all alike",
        "soft": "none: which response scores higher, whatever the scale",
        "penalty": "the least of the authors' four (0.02, 0.2, 0.5, 1), best on one of their three data sets",
        "form": "the paper's",
    },
    paper="Wilm et al. 2024 (MultiTRON, 2407.16828), with DPO as the losses; otto-de/MultiTRON, src/loss.py",
    at_zero=_at_zero,
)
def multitron(
    pairs: PairLogProbs,
    *,
    beta: float = 0.1,
    attributes: str = "helpfulness,safety",
    weights: str = "",
    soft: bool = False,
    penalty: float = 0.02,
    form: str = "paper",
) -> Tensor:
    """Several preferences at once, weighed by a vector that the prompt tells: one policy for the whole Pareto front.

    sum over k of w_k * L_k, plus penalty * R. L_k is DPO's loss under attribute k alone: -p * log sigmoid(beta * h) -
    (1 - p) * log sigmoid(-beta * h), h = policy margin - reference margin in nats, summed over response tokens; p is 1,
    0 or 1/2 as the chosen response scores higher, lower or alike under k, or with soft=True sigmoid(score of chosen -
    score of rejected). Which response is called chosen does not matter.

    R keeps all attributes at work: with g = softmax(w_k * L_k / sum of them), form="paper" is KL(g || uniform),
    form="code" the authors' cross-entropy of g under uniform targets. It is least where all w_k * L_k are equal.

    attributes: names of scores, by comma. weights: names of the scores that hold each row's weights of them, in the
    same order; they are made to sum to 1, and "" weighs all alike. `boresight.curation.preference_vectors` draws a
    vector for each example, tells it in the prompt and writes these scores (`weight_NAME`); at inference
    `toward` tells the vector that is wanted. In the paper the losses are of clicks and orders, and the vector is
    added to embeddings of items.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, penalty < 0, attributes are fewer
    than two, weights are not as many, negative or all 0, form is unknown, or a response lacks a score.
    """
    positive(beta=beta)
    not_negative(penalty=penalty)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    names, told = _names(attributes), _names(weights)
    if len(names) < 2:
        raise ValueError(f"attributes must be two names of scores or more, by comma, not {attributes!r}")
    if told and len(told) != len(names):
        raise ValueError(f"weights must be as many names as attributes ({len(names)}), or none, not {weights!r}")
    margin = beta * pairs.margin()
    sides = [_losses(pairs, name, margin, soft) for name in names]
    weighed = _weights(pairs, told, len(names), margin) * torch.stack(sides, 1)
    share = weighed / weighed.sum(1, keepdim=True).clamp(min=1e-6)
    logs = share.log_softmax(1)
    uneven = (logs.exp() * (logs + log(len(names)))).sum(1) if form == "paper" else -logs.mean(1)
    return weighed.sum(1) + penalty * uneven


def _losses(pairs: PairLogProbs, name: str, margin: Tensor, soft: bool) -> Tensor:
    """DPO's loss of each pair under the scores of that name, (pairs,)."""
    better, worse = pairs.scores(name)
    apart = (better - worse).detach().to(margin.dtype)
    if not bool((apart.abs() < inf).all()):
        raise ValueError(f"attributes: a response has no score {name!r}")
    p = torch.sigmoid(apart) if soft else (apart.sign() + 1) / 2
    return -p * logsigmoid(margin) - (1 - p) * logsigmoid(-margin)


def _weights(pairs: PairLogProbs, names: list[str], count: int, margin: Tensor) -> Tensor:
    """The weight of each attribute for each pair, rows summing to 1, (pairs, attributes)."""
    if not names:
        return torch.full((len(margin), count), 1 / count, dtype=margin.dtype, device=margin.device)
    given = torch.stack([pairs.scores(name)[0] for name in names], 1).detach().to(margin.dtype)
    if not bool(((given >= 0) & (given < inf)).all() & (given.sum(1) > 0).all()):
        raise ValueError(f"weights must be 0 or more, not all 0, and every pair needs those of {', '.join(names)}")
    return given / given.sum(1, keepdim=True)
