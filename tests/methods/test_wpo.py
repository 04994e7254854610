from __future__ import annotations

import math

import torch

from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo
from boresight.objectives import wpo as loss
from oracles import Pair, average, implicit_rewards, surprise


def wpo(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return math.exp(average(pair.chosen)) * math.exp(average(pair.rejected)) * surprise(beta * (won - lost))


def test_by_hand() -> None:
    """Mean probabilities 1/2 and 1/4, margin at odds three to one: log(4/3) / 8."""
    chosen = torch.tensor([2 * math.log(0.5)], dtype=torch.float64)
    rejected = torch.tensor([3 * math.log(0.25)], dtype=torch.float64)
    pairs = PairLogProbs.from_sums(
        chosen, rejected, chosen - 10 * math.log(3), rejected,
        chosen_lengths=torch.tensor([2]), rejected_lengths=torch.tensor([3]),
    )  # fmt: skip
    assert abs(loss(pairs, beta=0.1).item() - math.log(4 / 3) / 8) < 1e-12


def test_gradient_is_that_of_dpo_times_the_weight() -> None:
    """The weight is only a weight: were it differentiated, the rejected response could be pushed up."""
    values = torch.tensor([-1.0, -0.5, -2.0, -0.1], dtype=torch.float64, requires_grad=True)

    def pairs() -> PairLogProbs:
        chosen = LogProbs(values[:2], torch.tensor([0, 1]), 2)
        rejected = LogProbs(values[2:], torch.tensor([0, 1]), 2)
        flat = LogProbs.from_sums(torch.full((2,), -1.0, dtype=torch.float64))
        return PairLogProbs(PairSide(chosen, rejected), PairSide(flat, flat))

    (mine,) = torch.autograd.grad(loss(pairs(), beta=0.1).sum(), values)
    (plain,) = torch.autograd.grad(dpo(pairs(), beta=0.1).sum(), values)
    weight = torch.tensor([math.exp(-3.0), math.exp(-0.6)] * 2, dtype=torch.float64)
    torch.testing.assert_close(mine, weight * plain)


def test_a_certain_pair_has_weight_one() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert loss(PairLogProbs.from_sums(zero, zero, zero, zero)).item() == math.log(2)
