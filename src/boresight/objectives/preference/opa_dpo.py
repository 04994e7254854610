from __future__ import annotations

from math import exp, log, log1p

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "opa-dpo",
    needs=("reference", "difference"),
    lr=1e-6,
    lr_source="the authors' run/train_opa_dpo.sh (zhyang2226/OPA-DPO), for adapters",
    sources={
        "beta": "the authors' run/train_opa_dpo.sh (zhyang2226/OPA-DPO)",
        "severity": "the authors' utils/data_utils_dpo.py: 2.5, 2 and 1.5 for scores 1, 2, 3 of 4; the middle",
        "anchor": "the authors' run/train_opa_dpo.sh, ANCHOR_COEF",
        "offset": "the authors' run/train_opa_dpo.sh, ANCHOR",
    },
    paper="Yang et al. 2025 (OPA-DPO, 2501.09695); read in the authors' opadpo/dpo_models/dpo_trainer.py",
    at_zero=lambda anchor, offset: log(2) + anchor * (offset + log1p(exp(-offset))),
)
def opa_dpo(
    pairs: PairLogProbs, *, beta: float = 0.1, severity: float = 2.0, anchor: float = 1.0, offset: float = 0.0
) -> Tensor:
    """DPO on answers that an expert corrected, from a model that was first fine-tuned on the corrected ones.

    -log sigmoid(beta * (G_w - G_l)) - anchor * log sigmoid(beta * g_w - offset), where g is the sum over response
    tokens of log policy - log reference in nats, and G the same with weight `severity` on tokens that differ from the
    other response of the pair and 1 on those that are shared. severity = 1 and anchor = 0 is DPO.

    First comes supervised fine-tuning (`sft`) on the corrected answers; the model that it leaves is both where this
    objective begins and its reference (reference=start). Then the chosen are not unlikely under the reference any
    more, and the KL to it does not hold them down.

    The authors weigh a corrected sentence by the severity that the expert gave it, from 1 (right) to 2.5; here every
    token that the correction changed has one weight. Their pair of an answer and the same answer behind a corrupted
    image is a row of the data, as in `mdpo`. Their code takes the log-sigmoid at each position of the two responses
    and not of their sums, and its anchor keeps the gains of ground truths up (the form here) but those of corrections
    down; the first is not offered, the second is a negative weight that no text explains, and left out.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, severity < 0, anchor < 0 or
    offset < 0.
    """
    positive(beta=beta)
    not_negative(severity=severity, anchor=anchor, offset=offset)
    chosen = _weighted(pairs.policy.chosen, pairs.reference.chosen, severity)
    rejected = _weighted(pairs.policy.rejected, pairs.reference.rejected, severity)
    kept = logsigmoid(beta * pairs.gains()[0] - offset)
    return -logsigmoid(beta * (chosen - rejected)) - anchor * kept


def _weighted(policy: LogProbs, reference: LogProbs, severity: float) -> Tensor:
    weights = 1 + (severity - 1) * policy.token("difference").to(policy.values.dtype)
    return policy.weighted_sum(weights) - reference.weighted_sum(weights)
