from __future__ import annotations

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "dpo-bmc",
    needs=("reference", "difference"),
    lr=5e-7,
    lr_source="the authors' configuration (YJiangcm/BMC, training_configs/instruction_following)",
    sources={
        "beta": "the authors' configuration for Llama-3-8B (YJiangcm/BMC); 0.05 for question answering",
        "delta": "the authors' configuration for Llama-3-8B (YJiangcm/BMC); 3 for question answering, 2 in the class",
        "form": "the authors' code (YJiangcm/BMC, scripts/dpo_bmc_trainer.py)",
    },
    paper="Jiang et al. 2024 (BMC), modelling step; read in the authors' code, scripts/dpo_bmc_trainer.py",
    at_zero=lambda: log(2),
)
def dpo_bmc(pairs: PairLogProbs, *, beta: float = 0.01, delta: float = 1.5, form: str = "code") -> Tensor:
    """DPO on pairs that are edits of each other, tokens that differ weighted by the policy's lack of confidence.

    -log sigmoid(beta * (g_chosen - g_rejected)), where g = sum over tokens of a * log policy - sum of b * log
    reference, in nats. A token that is shared with the other response has weight 1, one that differs
    1 + min(1 / p, delta), p its probability, without gradient. For a (the policy's sum) p is the policy's.

    form="code": b is made of the reference's own probabilities, as the authors' trainer does. form="paper": b = a, so
    that each token's log-ratio has one weight. Both are log 2 at the start; delta=0 is DPO in either form.

    Which tokens differ is what the data says (`difference`); the authors also take stop words as shared. The other
    half of the method is data: an editor rewrites the rejected response into a chosen one that is close to it.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, delta < 0, or form is another word.
    """
    positive(beta=beta)
    not_negative(delta=delta)
    if form not in ("code", "paper"):
        raise ValueError(f"form must be 'code' or 'paper', not {form!r}")

    def gain(policy: LogProbs, reference: LogProbs) -> Tensor:
        differs = policy.token("difference")
        own = _weights(policy.values, differs, delta)
        other = own if form == "paper" else _weights(reference.values, differs, delta)
        return policy.weighted_sum(own) - reference.weighted_sum(other)

    chosen = gain(pairs.policy.chosen, pairs.reference.chosen)
    return -logsigmoid(beta * (chosen - gain(pairs.policy.rejected, pairs.reference.rejected)))


def _weights(log_probs: Tensor, differs: Tensor, delta: float) -> Tensor:
    return 1 + differs * (-log_probs.detach()).exp().clamp(max=delta)
