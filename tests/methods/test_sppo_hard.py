from __future__ import annotations

import torch

from boresight.objectives import PairLogProbs
from boresight.objectives import sppo_hard as loss
from oracles import Pair, implicit_rewards


def sppo_hard(pair: Pair, beta: float) -> float:
    """Probabilities of winning 1 and 0: eta * (P - 1/2) with eta = 1 / beta is the target of each side."""
    eta = 1 / beta
    won, lost = implicit_rewards(pair)
    return (won - eta * (1 - 0.5)) ** 2 + (lost - eta * (0 - 0.5)) ** 2


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_is_nought_at_its_targets_and_square_around_them() -> None:
    won = torch.tensor([5.0, 6.0, 0.0], dtype=torch.float64)
    lost = torch.tensor([-5.0, -3.0, 0.0], dtype=torch.float64)
    assert loss(batch(won, lost), beta=0.1).tolist() == [0, 5, 50]


def test_a_wide_margin_that_lies_wrong_is_still_moved() -> None:
    """Both below their targets: DPO, which sees the margin only, would call the pair settled."""
    won = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([-120.0], dtype=torch.float64, requires_grad=True)
    w, low = torch.autograd.grad(loss(batch(won, lost), beta=0.1).sum(), [won, lost])
    assert w.item() == -50
    assert low.item() == -230
