"""Fast-slow chasing: values and gradients of both adapters against their two losses written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide, dpo, objectives
from boresight.objectives import ofs_dpo as loss
from oracles import Pair, probability, surprise, total
from test_objectives_golden import close, numbers

EXEMPT = {
    "every_hyperparameter_has_effect": "alpha changes gradients and never the value, as the tests here hold; slow is "
    "the trainer's",
    "closed_form_at_zero_margin": "the twin of the checks is not at the reference; below it is",
}


def ofs_dpo(pair: Pair, beta: float, alpha: float, slow: float) -> float:
    policy = total(pair.chosen) - total(pair.rejected)
    twin = total(pair.chosen_known.twin) - total(pair.rejected_known.twin)
    reference = total(pair.ref_chosen) - total(pair.ref_rejected)
    chase = surprise(beta * (policy - twin))
    fast = surprise(beta * (policy - reference)) + alpha * chase
    return fast + surprise(beta * (twin - reference)) - alpha * chase


def three(fast: Tensor, slow: Tensor, reference: Tensor) -> PairLogProbs:
    """Pairs of one-token responses with these margins under policy, twin and reference."""

    def side(margin: Tensor) -> PairSide:
        return PairSide(*(LogProbs.from_sums(sign * margin / 2 - 40) for sign in (1, -1)))

    return PairLogProbs(side(fast), side(reference), Given(twin=side(slow)))


def leaves(*values: list[float]) -> list[Tensor]:
    return [numbers(*v).requires_grad_() for v in values]


def test_by_hand() -> None:
    # fast odds 3, slow odds 1: log 4/3 and log 2; the chase is in the gradient alone
    pairs = three(numbers(2 * math.log(3)), numbers(0.0), numbers(0.0))
    for alpha in (0.0, 0.5, 3.0):
        close(loss(pairs, beta=0.5, alpha=alpha), [math.log(4 / 3) + math.log(2)])


def test_at_the_start_policy_twin_and_reference_are_one() -> None:
    one = numbers(3.0, -7.0)
    close(loss(three(one, one, one), beta=0.4, alpha=0.9), [2 * math.log(2)] * 2)
    assert objectives()["ofs-dpo"].closed_form(alpha=0.9) == pytest.approx(2 * math.log(2), rel=1e-15)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 2.0])
def test_each_adapter_gets_the_gradient_of_its_own_loss(alpha: float) -> None:
    """d/dF: -beta * (sigmoid(-h_F) + alpha * sigmoid(-h_FS)), d/dS: -beta * (sigmoid(-h_S) + alpha * sigmoid(-h_FS)).

    L_S has -alpha * l(F, S), and h(F, S) falls as S rises: the two signs make one.
    """
    beta, fast, slow, reference = 0.3, [4.0, -2.0, 9.0], [1.0, 3.0, -5.0], [0.5, 0.0, 1.0]
    f, s = leaves(fast, slow)
    found = torch.autograd.grad(loss(three(f, s, numbers(*reference)), beta=beta, alpha=alpha).sum(), [f, s])
    rows = list(zip(fast, slow, reference, strict=True))
    chase = [alpha * probability(-beta * (a - b)) for a, b, _ in rows]
    for got, own in zip(found, (fast, slow), strict=True):
        wanted = [-beta * (probability(-beta * (x - r)) + c) for x, (_, _, r), c in zip(own, rows, chase, strict=True)]
        close(got, wanted)


def test_without_the_chase_it_is_dpo_twice() -> None:
    fast, slow, reference = numbers(4.0, -2.0), numbers(1.0, 3.0), numbers(0.5, 0.0)
    pairs = three(fast, slow, reference)
    twice = dpo(pairs, beta=0.2) + dpo(PairLogProbs(pairs.twin, pairs.reference), beta=0.2)
    close(loss(pairs, beta=0.2, alpha=0.0), twice)


def test_the_chase_never_ends_for_a_fast_adapter_that_is_sure() -> None:
    """Far from the reference DPO's gradient is gone; with the twin just behind the chase's is alpha * beta / 2."""
    f, s = leaves([400.0], [400.0])
    found = torch.autograd.grad(loss(three(f, s, numbers(0.0)), beta=0.5, alpha=0.3).sum(), [f, s])
    for got in found:
        close(got, [-0.3 * 0.5 / 2])


def test_unusable() -> None:
    pairs = three(numbers(0.0), numbers(0.0), numbers(0.0))
    for bad in ({"beta": 0.0}, {"alpha": -1.0}, {"slow": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(pairs, **bad)
    with pytest.raises(ValueError, match="needs twin"):
        loss(PairLogProbs(pairs.policy, pairs.reference))
