from __future__ import annotations

from torch import Tensor

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import positive


@objective(
    "irpo-ranking",
    needs=("reference", "grades"),
    lr=1e-5,
    lr_source="Wu et al. 2025, the authors' README (lr)",
    sources={
        "beta": "Wu et al. 2025, the authors' README (loss.beta)",
        "form": "the sum is what generalises DPO",
        "rank": "the list as it stands in the prompt",
    },
    paper="Wu et al. 2025 (In-context Ranking Preference Optimization)",
)
def irpo_ranking(lists: ListLogProbs, *, beta: float = 1.0, form: str = "paper", rank: str = "given") -> Tensor:
    """In-context ranking preference optimisation: each item against all others, weighed by NDCG's gain and discount.

    Mean over the items i of a list of w_i * log(1 + sum over j != i of exp(beta * (r_j - r_i))), where r = log policy
    - log reference in nats and w_i = (2^relevance_i - 1) / log2(1 + rank_i). The grades are the relevances, 0 for an
    item that is not relevant; below 0 counts as 0.

    form: "paper" sums r over the item's tokens and sums over the others; "code" takes r per token and the mean over
    the others (both stated from the catalogue, which checked the authors' code). rank: "given" is an item's place in
    the list as handed in, from 1; "grades" is its place by falling grade. Two items of which the first alone is
    relevant, by 1, give half the loss of `dpo`. Not to be confused with iterative reasoning preference optimisation,
    which is called IRPO as well.

    Returns the loss of each list, shape (lists,). Raises ValueError if beta <= 0 or form or rank is another word.
    """
    positive(beta=beta)
    if form not in ("paper", "code"):
        raise ValueError(f'form must be "paper" or "code", not {form!r}')
    if rank not in ("given", "grades"):
        raise ValueError(f'rank must be "given" or "grades", not {rank!r}')
    gains = lists.gains() if form == "paper" else lists.policy.mean() - lists.reference.mean()
    first, second = lists.couples()
    terms = beta * (gains[second] - gains[first])
    if form == "code":
        terms = terms - (lists.sizes() - 1).to(terms.dtype)[lists.list_of[first]].log()
    # The 1 of log(1 + sum) is a term exp(0), so the largest exponent is at least 0.
    top = terms.new_zeros(len(gains)).scatter_reduce(0, first, terms.detach(), "amax")
    against = (-top).exp().index_add(0, first, (terms - top[first]).exp()).log() + top
    place = lists.rank(gains.new_zeros(len(gains)) if rank == "given" else lists.grades)
    weight = (2 ** lists.grades.to(gains.dtype).clamp(min=0) - 1) / (1 + place.to(gains.dtype)).log2()
    return lists.mean(weight * against)
