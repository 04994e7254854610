from __future__ import annotations

import torch
from torch import Tensor

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative
from boresight.objectives._odds import log_both


@objective(
    "synfac-edit",
    needs=("difference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors' 1e-3 is for adapters on quantised weights",
    sources={
        "shared": "the authors' script (seasonyao/LearnFromHumanEdit, SALT_trainer.py: S_edited_C_weight)",
        "edited": "the authors' script (S_edited_I_weight and S_edited_S_weight)",
        "dropped": "the authors' script (omega2 0.1 times 0.1 of S_generated_D_weight and S_generated_S_weight)",
        "rejected_shared": "the authors' code leaves it out (calculate_liklihood_token_log_prob=False)",
    },
    paper="Mishra et al. 2024 (SYNFAC-EDIT); SALT: Yao et al. 2023, 'Improving Summarization with Human Edits'",
)
def synfac_edit(
    pairs: PairLogProbs,
    *,
    shared: float = 1.0,
    edited: float = 1.1,
    dropped: float = 0.01,
    rejected_shared: float = 0.0,
) -> Tensor:
    """SALT, sequence alignment (un)likelihood training, on an edited response (chosen) and the original (rejected).

    Minus the mean over the chosen response's tokens of w * log p, with w = shared on tokens that both responses have
    and w = edited on those that are the chosen's alone; minus dropped * the mean of log(1 - p) over the tokens that are
    the rejected's alone; minus rejected_shared * the mean of log p over the rejected's tokens that both have. Log-probs
    in nats, no reference. A mean over no tokens is 0.

    The authors' code divides by the tokens of the whole batch where this divides by those of each pair. It also
    normalises log(1 - p) over the vocabulary, which subtracts a constant. The earlier paper trains on the rejected's
    shared tokens as well, with weight 1 (rejected_shared). DPO on the same pairs is SYNFAC-EDIT's other choice.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if a weight is below 0.
    """
    not_negative(shared=shared, edited=edited, dropped=dropped, rejected_shared=rejected_shared)
    chosen, rejected = pairs.policy.chosen, pairs.policy.rejected
    added = chosen.token("difference").bool()
    gone = rejected.token("difference").bool()
    weights = shared + (edited - shared) * added.to(chosen.values.dtype)
    likelihood = _mean(chosen, weights * chosen.values, torch.ones_like(added))
    _, unlikely = log_both(rejected.values)
    loss = -likelihood - dropped * _mean(rejected, unlikely, gone)
    return loss - rejected_shared * _mean(rejected, rejected.values, ~gone)


def _mean(side: LogProbs, values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` over those tokens of each response, (responses,); 0 where there are none."""
    count = side.values.new_zeros(side.count).index_add(0, side.owner, where.to(values.dtype))
    total = side.values.new_zeros(side.count).index_add(0, side.owner, values * where)
    return total / count.clamp(min=1)
