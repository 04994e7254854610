from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("paper", "code")
LEAST = 1e-6


@objective(
    "mrpo",
    needs=("reference", "references"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors train LoRA at 1e-5 (run_mrpo.py)",
    sources={
        "beta": "that of dpo; the authors' run_mrpo.py leaves it at LLaMA-Factory's default, which is 0.1",
        "eta": "the authors' run_mrpo.py (epsilon there)",
        "split": "the authors' trainer_mref.py; False is what it does for a negative eta",
        "weights": "the authors' run_mrpo.py (alpha = -1 there)",
        "form": "the closed form of the combined reference",
    },
    paper="Le et al. 2024 (MRPO, 2405.16388); thaihungle/MRPO, src/llmtuner/train/dpo/trainer_mref.py",
)
def mrpo(
    pairs: PairLogProbs,
    *,
    beta: float = 0.1,
    eta: float = 0.1,
    split: bool = True,
    weights: str = "adaptive",
    form: str = "paper",
) -> Tensor:
    """Multi-reference preference optimisation: DPO against the weighted harmonic mean of several references.

    -log sigmoid(beta * h), where h = policy margin - margin of R in nats, R(y) = 1 / sum_k a_k / ref_k(y), sum_k a_k =
    1, all of it of sums over response tokens. The first reference is the run's own, from which training starts; the
    further ones are those named in `references`.

    Each further log-prob is first clipped to within eta times the size of the first one's, on either side of it;
    eta = 0 is `dpo`. split: of eta the chosen response has the share b_w / (b_w + b_l) and the rejected the rest, b
    being the size of the mean of the first and that further log-prob before clipping; False: both have the whole.
    weights: "adaptive" for a_k in proportion to |log ref_k(chosen) - log ref_k(rejected)| before clipping, alike where
    no reference tells them apart; "uniform"; or numbers by comma, the first reference's first, for fixed ones.

    form: "paper" as above. The released code, which knows two references, puts each one's weight on the other's
    inverse, so that a reference that tells the pair apart better counts less; form="code" does so, for two. As R is
    of whole responses, the least likely reference decides unless its weight is next to nothing.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, eta < 0, weights or form cannot be
    used, there are no further references, or form="code" meets more than one of them.
    """
    positive(beta=beta)
    not_negative(eta=eta)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    sides = [pairs.reference, *pairs.others]
    if form == "code" and len(sides) != 2:
        raise ValueError(f'form="code" is of two references, and here are {len(sides)}; use form="paper"')
    chosen = torch.stack([side.chosen.sum() for side in sides]).detach()
    rejected = torch.stack([side.rejected.sum() for side in sides]).detach()
    share = _weights(weights, chosen - rejected)
    if form == "code":
        share = share.flip(0)
    middle = [(each[:1] + each).abs() / 2 for each in (chosen, rejected)]
    both = middle[0] + middle[1]
    of_chosen = torch.where(both > 0, middle[0] / both.clamp(min=LEAST), 0.5) if split else torch.ones_like(both)
    of_rejected = 1 - of_chosen if split else of_chosen
    sums = [
        torch.logsumexp(share.log() - _clipped(each, eta * of), 0)
        for each, of in ((chosen, of_chosen), (rejected, of_rejected))
    ]
    return -logsigmoid(beta * (pairs.policy.margin() + sums[0] - sums[1]))


def _clipped(each: Tensor, part: Tensor) -> Tensor:
    """(references, pairs) log-probs within `part` times the size of the first ones."""
    first = each[:1]
    room = part * first.abs()
    return torch.minimum(torch.maximum(each, first - room), first + room)


def _weights(weights: str, margins: Tensor) -> Tensor:
    """(references, pairs), which add up to 1 over the references."""
    if weights == "adaptive":
        apart = margins.abs() + LEAST
        return apart / apart.sum(0)
    if weights == "uniform":
        return torch.full_like(margins, 1 / len(margins))
    try:
        given = [float(word) for word in weights.split(",")]
    except ValueError:
        given = []
    if len(given) != len(margins) or not all(0 <= a < inf for a in given) or not 0 < sum(given) < inf:
        raise ValueError(
            f'weights must be "adaptive", "uniform" or {len(margins)} numbers by comma, one for each reference and '
            f"not all of them 0, not {weights!r}"
        )
    return margins.new_tensor(given)[:, None].expand_as(margins) / sum(given)
