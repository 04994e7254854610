from __future__ import annotations

from torch import Tensor, zeros_like
from torch.nn.functional import relu, softplus

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "tpo-triple",
    needs=("grades",),
    lr=5e-7,
    lr_source="Saeidi et al. 2024, the authors' run_tpo.sh",
    sources={
        "beta": "Saeidi et al. 2024, the authors' run_tpo.sh",
        "alpha": "Saeidi et al. 2024, the authors' run_tpo.sh",
        "pair": "the authors' trainer (loss_type, sigmoid by default)",
    },
    paper="Saeidi et al. 2024 (Triple Preference Optimization); loss as in the authors' utils/tpo_trainer.py",
)
def tpo_triple(lists: ListLogProbs, *, beta: float = 0.1, alpha: float = 0.5, pair: str = "logistic") -> Tensor:
    """Triple preference optimisation: likelihood of a gold answer, preference between two others, no reference.

    -log sigmoid(beta * (log p(preferred) - log p(dispreferred))) + alpha * (-mean log p per token of gold), log-probs
    in nats, the first two summed over response tokens.

    Of three graded responses the best is gold, the next is preferred, the last dispreferred; of a longer list the
    last is the lowest. Of two the better is gold and preferred, which is CPO with its likelihood term. Where
    preferred and dispreferred have the same grade, or there is one response only, the likelihood stands alone.
    pair: "logistic", or "hinge" for max(0, 1 - beta * margin). The authors' code averages the likelihood over all
    tokens of the batch, prompts among them; here each list has its own mean, over the gold response.

    Returns the loss of each list, shape (lists,). Raises ValueError if beta <= 0, alpha < 0 or pair is another word.
    """
    positive(beta=beta)
    not_negative(alpha=alpha)
    if pair not in ("logistic", "hinge"):
        raise ValueError(f'pair must be "logistic" or "hinge", not {pair!r}')
    total, grades, sizes = lists.policy.sum(), lists.grades, lists.sizes()
    place, last = lists.rank(grades), sizes[lists.list_of]
    preferred, dispreferred = place == last.clamp(max=3) - 1, place == last
    apart = lists.sum(total * preferred) - lists.sum(total * dispreferred)
    differ = lists.sum(grades * preferred) > lists.sum(grades * dispreferred)
    loss = softplus(-beta * apart) if pair == "logistic" else relu(1 - beta * apart)
    gold = lists.sum(lists.policy.mean() * (place == 1))
    return (loss * (differ & (sizes > 1))).where(sizes > 1, zeros_like(loss)) - alpha * gold
