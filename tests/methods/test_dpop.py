from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs, dpo
from boresight.objectives import dpop as loss
from oracles import Pair, implicit_rewards, surprise, total


def dpop(pair: Pair, beta: float, lam: float) -> float:
    won, lost = implicit_rewards(pair)
    penalty = max(0.0, total(pair.ref_chosen) - total(pair.chosen))
    return surprise(beta * won - beta * lost - beta * lam * penalty)


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_by_hand() -> None:
    """Chosen 2 below the reference, rejected 12 below: 0.1 * (10 - 3 * 2) = 0.4."""
    won, lost = (torch.tensor([x], dtype=torch.float64) for x in (-2.0, -12.0))
    assert abs(loss(batch(won, lost), beta=0.1, lam=3.0).item() - math.log(1 + math.exp(-0.4))) < 1e-12


def test_is_dpo_without_penalty_and_where_the_chosen_is_above_the_reference() -> None:
    won = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    lost = torch.tensor([1.0, -4.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(loss(batch(won, lost), lam=0.0), dpo(batch(won, lost), beta=0.3))
    torch.testing.assert_close(loss(batch(won, lost))[1:], dpo(batch(won, lost), beta=0.3)[1:])


def test_a_fallen_chosen_is_pulled_up_much_harder_than_the_rejected_is_pushed_down() -> None:
    won = torch.tensor([-0.1], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    w, low = torch.autograd.grad(loss(batch(won, lost), lam=50.0).sum(), [won, lost])
    assert abs(w.item() + 51 * low.item()) < 1e-12
