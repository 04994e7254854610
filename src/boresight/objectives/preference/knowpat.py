from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import not_negative

CODE = 3
"""What the authors' code divides the alignment term by, whatever the length of the list (theirs have four)."""


@objective(
    "knowpat",
    needs=("grades",),
    lr=5e-6,
    lr_source="that of orpo, likewise likelihood and a small preference term; the authors train LoRA at 1e-4",
    sources={
        "lam": "Zhang et al. 2023, the authors' scripts/train_RJUA.sh (rrhf_weight there)",
        "length_power": "Zhang et al. 2023, the authors' train.py (length_penalty there)",
        "form": "the authors' train.py, for which lam was chosen",
    },
    paper="Zhang et al. 2023 (KnowPAT), alignment objective; checked against the authors' train.py",
)
def knowpat(lists: ListLogProbs, *, lam: float = 0.01, length_power: float = 1.0, form: str = "code") -> Tensor:
    """Knowledgeable preference alignment: likelihood of the best answer and a ranked-list term with own weights.

    -mean log p per token of the best + lam * sum over all but the last of w_i * (softplus(-s_i) + mean of
    softplus(s_j) over the responses j ranked below i), with s = log p / tokens^length_power in nats, the list sorted
    by falling grade (equal grades in the order given), and w_i = (s_i - min s) / (max s - min s), through which no
    gradient flows: a response that the policy finds least likely of its list is not raised by the second term.
    Where all s are equal, w is 0.

    form: "code" divides the second term by 3 as the authors' code does, "paper" does not (stated from the catalogue;
    the paper's own equation was not found). There is no reference.

    Returns the loss of each list, shape (lists,). Raises ValueError if lam < 0, length_power < 0 or form is another
    word.
    """
    not_negative(lam=lam, length_power=length_power)
    if form not in ("paper", "code"):
        raise ValueError(f'form must be "paper" or "code", not {form!r}')
    policy, list_of = lists.policy, lists.list_of
    scores = policy.sum() / policy.lengths().clamp(min=1).to(policy.values.dtype) ** length_power
    place = lists.rank(lists.grades)
    frozen = scores.detach()
    low = lists.min(frozen)[list_of]
    span = lists.max(frozen)[list_of] - low
    weight = (frozen - low) / span.where(span > 0, span.new_ones(()))
    first, second = lists.couples()
    above = place[first] < place[second]
    first, second = first[above], second[above]
    below = (lists.sizes()[list_of] - place).to(scores.dtype)
    terms = (softplus(-scores[first]) + softplus(scores[second])) * (weight / below.clamp(min=1))[first]
    aligned = terms.new_zeros(len(lists)).index_add(0, list_of[first], terms)
    if form == "code":
        aligned = aligned / CODE
    return lam * aligned - lists.sum(policy.mean() * (place == 1))
