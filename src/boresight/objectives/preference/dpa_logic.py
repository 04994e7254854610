from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import positive
from boresight.objectives._logic import compile_formula, log_odds


@objective(
    "dpa-logic",
    needs=("reference",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1)",
    sources={
        "beta": "1 takes the odds as they are",
        "formula": "the rejected response is valid only if the chosen is: what most losses of this kind say",
        "condition": "exactly one of the two is valid, which makes the loss ORPO's odds-ratio term",
        "both": "no assignment is counted on both sides",
    },
    paper="Richardson et al. 2025, 'Understanding the Logic of Direct Preference Alignment through Logic', as the "
    "catalogue states it (arXiv 2412.17696)",
)
def dpa_logic(
    pairs: PairLogProbs,
    *,
    beta: float = 1.0,
    formula: str = "w or not l",
    condition: str = "(w or l) and not (w and l)",
    both: str = "false",
) -> Tensor:
    """A loss compiled from logic: -log sigmoid of the log-odds that a formula about the two responses holds.

    -log sigmoid(beta * log(T / F)), where T is the weight of the truth assignments counted for `formula`, F of those
    against it. An assignment weighs the product of p and 1 - p over its events: `w` and `l`, the policy takes the
    chosen, the rejected response to be valid, `rw` and `rl`, the reference does; p is the geometric mean of the
    response's token probabilities. `condition` says which assignments count at all, `both` which of these count on both
    sides. The three are written with the events, true, false, not, and, or, parentheses.

    "w or not l" with the default `condition`: odds p_w (1 - p_l) / (p_l (1 - p_w)), ORPO's. With condition="w or l" and
    both="w and l": p_w / p_l, that of CPO, length-normalised. "not (rw and l) or (w and rl)" with
    condition="(rw and l) or (w and rl)" and both="w and l and rw and rl": p_w r_l / (p_l r_w), that of DPO,
    length-normalised. "w and not l" with condition="true": p_w (1 - p_l) / (1 - p_w (1 - p_l)). The names that the
    paper gives to new losses were not checked. The reference is asked for whether or not a text names it.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, a text cannot be read, or nothing is
    counted for or against the formula.
    """
    positive(beta=beta)
    counted = compile_formula(formula, condition, both)
    log_p = {
        "w": pairs.policy.chosen.mean(),
        "l": pairs.policy.rejected.mean(),
    }
    if {"rw", "rl"} & {*counted.events}:
        log_p |= {"rw": pairs.reference.chosen.mean(), "rl": pairs.reference.rejected.mean()}
    return -logsigmoid(beta * log_odds(counted, log_p))
