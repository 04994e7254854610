"""OPA-DPO: weighted tokens and the anchor by hand, its limits, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo
from boresight.objectives import mdpo as anchored
from boresight.objectives import opa_dpo as loss
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close


def opa_dpo(pair: Pair, beta: float, severity: float, anchor: float, offset: float) -> float:
    def gain(policy: list[float], reference: list[float], differs: list[bool]) -> float:
        terms = [(severity if d else 1.0) * (p - r) for p, r, d in zip(policy, reference, differs, strict=True)]
        return math.fsum(terms)

    won = gain(pair.chosen, pair.ref_chosen, pair.chosen_known.per_token["difference"])
    lost = gain(pair.rejected, pair.ref_rejected, pair.rejected_known.per_token["difference"])
    return surprise(beta * (won - lost)) + anchor * surprise(beta * implicit_rewards(pair)[0] - offset)


def one_pair(chosen: list[float], rejected: list[float], differs: list[bool]) -> tuple[PairLogProbs, list[Tensor]]:
    """One pair with these log-ratios to the reference, the same places of both sides marked as different."""
    leaves = [(torch.tensor(v, dtype=torch.float64) - 9).requires_grad_() for v in (chosen, rejected)]
    policy = PairSide(*(LogProbs.from_sequences([x], difference=[torch.tensor(differs)]) for x in leaves))
    fixed = PairSide(*(LogProbs.from_sequences([torch.full_like(x, -9.0)]) for x in leaves))
    return PairLogProbs(policy, fixed), leaves


LN3 = math.log(3)


def test_by_hand() -> None:
    """In units of log 3: chosen 2 + 3 * 1, rejected 1 + 3 * 1, margin 1; the anchor sees 2 + 1 without weights."""
    pairs, _ = one_pair([2 * LN3, LN3], [LN3, LN3], [False, True])
    close(loss(pairs, beta=1.0, severity=3.0, anchor=0.0), [math.log(4 / 3)])
    close(loss(pairs, beta=1.0, severity=3.0, anchor=2.0), [math.log(4 / 3) + 2 * math.log(28 / 27)])
    close(loss(pairs, beta=1.0, severity=3.0, anchor=1.0, offset=4 * LN3), [math.log(4 / 3) + math.log(4)])


def test_alike_in_weight_it_is_dpo_with_an_anchor() -> None:
    pairs, _ = one_pair([0.5, -1.0, 2.0], [1.0, -3.0, 0.2], [True, False, True])
    close(loss(pairs, beta=0.3, severity=1.0, anchor=0.0), dpo(pairs, beta=0.3))
    close(loss(pairs, beta=0.3, severity=1.0, anchor=0.7), anchored(pairs, beta=0.3, anchor=0.7))


def test_all_tokens_changed_is_dpo_with_a_larger_beta() -> None:
    pairs, _ = one_pair([0.5, -1.0], [1.0, -3.0], [True, True])
    close(loss(pairs, beta=0.2, severity=2.5, anchor=0.0), dpo(pairs, beta=0.5))


def test_gradient_of_a_changed_token_is_severity_times_that_of_a_shared_one() -> None:
    pairs, leaves = one_pair([0.5, -1.0], [1.0, -3.0], [False, True])
    for side, sign in zip(
        torch.autograd.grad(loss(pairs, severity=2.5, anchor=0.0).sum(), leaves), (-1, 1), strict=True
    ):
        assert (sign * side > 0).all()
        close(side[1:] / side[:1], [2.5])


def test_the_anchor_raises_the_chosen_alone() -> None:
    pairs, leaves = one_pair([-2.0], [-5.0], [True])
    with_anchor, without = (
        torch.autograd.grad(loss(pairs, beta=1.0, anchor=a).sum(), leaves, retain_graph=True) for a in (1.0, 0.0)
    )
    close(with_anchor[0] - without[0], [-1 / (1 + math.exp(-2))])
    close(with_anchor[1], without[1])


@pytest.mark.parametrize("name", ["beta", "severity", "anchor", "offset"])
def test_unusable(name: str) -> None:
    pairs, _ = one_pair([0.0], [0.0], [True])
    with pytest.raises(ValueError, match=name):
        loss(pairs, **{name: -1.0})
