from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs
from boresight.objectives import cal_dpo as loss
from oracles import Pair, implicit_rewards, surprise


def cal_dpo(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    target = 1 / (2 * beta)
    return surprise(won - lost) + (won - target) ** 2 + (lost - -target) ** 2


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_by_hand() -> None:
    won, lost = (torch.tensor(x, dtype=torch.float64) for x in ([5.0, 6.0], [-5.0, 6.0]))
    expected = [math.log(1 + math.exp(-10)), math.log(2) + 1 + 121]
    torch.testing.assert_close(loss(batch(won, lost), beta=0.1), torch.tensor(expected, dtype=torch.float64))


def test_at_its_targets_only_the_preference_is_left_and_its_sigmoid_has_no_beta() -> None:
    won = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([-0.5], dtype=torch.float64, requires_grad=True)
    w, low = torch.autograd.grad(loss(batch(won, lost), beta=1.0).sum(), [won, lost])
    push = 1 / (1 + math.exp(1))
    assert abs(w.item() + push) < 1e-15
    assert abs(low.item() - push) < 1e-15


def test_a_chosen_below_the_reference_is_pulled_up_although_the_margin_is_wide() -> None:
    won = torch.tensor([-10.0], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([-90.0], dtype=torch.float64)
    (w,) = torch.autograd.grad(loss(batch(won, lost), beta=0.1).sum(), won)
    assert abs(w.item() + 30) < 1e-12
