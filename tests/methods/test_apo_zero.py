from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs
from boresight.objectives import apo_zero as loss
from oracles import Pair, implicit_rewards, probability


def apo_zero(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return 1 - probability(beta * won) + probability(beta * lost)


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_by_hand() -> None:
    """Rewards log 3 and -log 4: 1/4 + 1/5."""
    r = [torch.tensor([10 * math.log(3)], dtype=torch.float64), torch.tensor([-10 * math.log(4)], dtype=torch.float64)]
    assert abs(loss(batch(*r), beta=0.1).item() - 0.45) < 1e-12


def test_anchored_at_the_reference_each_side_is_pushed_alike_whatever_the_other() -> None:
    won = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([0.0, 50.0], dtype=torch.float64, requires_grad=True)
    w, low = torch.autograd.grad(loss(batch(won, lost), beta=0.4).sum(), [won, lost])
    assert w.tolist() == [-0.1, -0.1]
    assert abs(low[0].item() - 0.1) < 1e-15
    assert 0 < low[1].item() < 1e-8, "a side far from the reference saturates"


def test_bounded_by_nought_and_two() -> None:
    far = torch.tensor([1e4, -1e4], dtype=torch.float64)
    assert loss(batch(far, -far)).tolist() == [0, 2]
