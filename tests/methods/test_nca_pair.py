from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs
from boresight.objectives import nca_pair as loss
from oracles import Pair, implicit_rewards, surprise


def nca_pair(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * won) + surprise(-beta * won) / 2 + surprise(-beta * lost) / 2


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_by_hand() -> None:
    """Rewards log 3 and -log 3: log 4/3 + (log 4 + log 4/3) / 2."""
    r = torch.tensor([100 * math.log(3)], dtype=torch.float64)
    expected = math.log(4 / 3) + (math.log(4) + math.log(4 / 3)) / 2
    assert abs(loss(batch(r, -r), beta=0.01).item() - expected) < 1e-12


def test_chosen_is_kept_at_twice_its_odds() -> None:
    """Least at reward log 2: pushed up below, held down above; DPO would go on for ever."""
    at = torch.tensor([math.log(2) - 0.3, math.log(2), math.log(2) + 0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(batch(at, torch.zeros_like(at)), beta=1.0).sum(), at)
    assert slope[0] < 0 < slope[2]
    assert abs(slope[1].item()) < 1e-15


def test_sides_do_not_touch_each_other() -> None:
    won = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(batch(won, torch.tensor([-9.0, 9.0], dtype=torch.float64))).sum(), won)
    assert slope[0] == slope[1]
