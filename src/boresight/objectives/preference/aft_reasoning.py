from __future__ import annotations

from math import inf

from torch import Tensor, cat, full_like

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import not_negative


@objective(
    "aft-reasoning",
    needs=("grades",),
    lr=5e-6,
    lr_source="that of orpo, likewise likelihood and a ranking term; the paper's own was not found",
    sources={
        "constraint": "one of the two of Wang et al. 2023",
        "gap": "a choice of this project, in nats per token; the paper's own was not found",
        "feedback": "Wang et al. 2023: right or wrong final answers",
        "sft": "1 in Wang et al. 2023: the two terms are added",
    },
    paper="Wang et al. 2023 (AFT), eq. 6 and the two constraints after it",
)
def aft_reasoning(
    lists: ListLogProbs,
    *,
    constraint: str = "boundary",
    gap: float = 0.4,
    feedback: str = "binary",
    sft: float = 1.0,
) -> Tensor:
    """Alignment fine-tuning of reasoning: right chains above wrong ones, the wrong kept in a reasonable range.

    sft * (-mean of s over the good chains) + log(1 + sum over pairs (p, n) of exp(s_n - s_p)), where s is the mean
    log-prob per token of a chain in nats, p better than n.

    constraint: "none" is the ranking alone, which pushes wrong chains down without end. "detached" stops the gradient
    at s_n, so that wrong chains are never pushed. "boundary" adds exp(t - s_n) for each pair inside the logarithm, t
    = the lowest s among the better chains, without gradient, minus gap: a wrong chain comes to rest gap/2 below the
    lowest of one right chain. (Form stated from the catalogue; the paper's own equation was not found.)
    feedback: "binary" takes grades above 0 for right, the others for wrong; "ranking" takes every pair of different
    grades. The good chains are the right ones, or those of the highest grade. The paper's likelihood term is on
    reference solutions; put these into the list as right ones.

    Returns the loss of each list, shape (lists,); 0 where no chain is right. Raises ValueError if gap < 0, sft < 0 or
    constraint or feedback is another word.
    """
    not_negative(gap=gap, sft=sft)
    if constraint not in ("detached", "boundary", "none"):
        raise ValueError(f'constraint must be "detached", "boundary" or "none", not {constraint!r}')
    if feedback not in ("binary", "ranking"):
        raise ValueError(f'feedback must be "binary" or "ranking", not {feedback!r}')
    scores, grades, list_of = lists.policy.mean(), lists.grades, lists.list_of
    if feedback == "binary":
        good = grades > 0
        first, second = lists.couples()
        kept = good[first] & ~good[second]
        better, worse = first[kept], second[kept]
    else:
        good = grades == lists.max(grades)[list_of]
        better, worse = lists.better()
    pushed = scores.detach() if constraint == "detached" else scores
    terms, owner = pushed[worse] - scores[better], list_of[better]
    if constraint == "boundary":
        frozen = scores.detach()
        lowest = full_like(frozen, inf).scatter_reduce(0, worse, frozen[better], "amin")
        terms, owner = cat([terms, lowest[worse] - gap - scores[worse]]), cat([owner, owner])
    loss = _log_one_plus_sum(terms, owner, len(lists))
    likelihood = lists.sum(scores * good) / lists.sum(good.to(scores.dtype)).clamp(min=1)
    return loss - sft * likelihood


def _log_one_plus_sum(terms: Tensor, owner: Tensor, count: int) -> Tensor:
    """log(1 + sum of exp(terms) by owner), (count,), without overflow; 0 for an owner without terms."""
    top = terms.new_zeros(count).scatter_reduce(0, owner, terms.detach(), "amax")
    total = (-top).exp().index_add(0, owner, (terms - top[owner]).exp())
    return total.log() + top
