from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs
from boresight.objectives import apo_down as loss
from oracles import Pair, implicit_rewards, probability

EXEMPT = {
    "falls_towards_its_target": "bounded and not monotone by design: it lowers the chosen too; tested here",
    "gradient_signs": "it lowers the chosen response where the margin is settled; tested here",
}


def apo_down(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return probability(beta * won) + 1 - probability(beta * (won - lost))


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def test_by_hand() -> None:
    """Rewards log 3 and log 3 - log 4: 3/4 + 1/5."""
    r = [10 * math.log(3), 10 * (math.log(3) - math.log(4))]
    found = loss(batch(*(torch.tensor([x], dtype=torch.float64) for x in r)), beta=0.1)
    assert abs(found.item() - 0.95) < 1e-12


def test_rejected_always_falls_and_chosen_falls_once_the_margin_is_settled() -> None:
    """At the reference the two pulls on the chosen cancel; with a wide margin only the downward one is left."""
    won = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    lost = torch.tensor([0.0, -100.0, 30.0], dtype=torch.float64, requires_grad=True)
    w, low = torch.autograd.grad(loss(batch(won, lost), beta=0.4).sum(), [won, lost])
    assert abs(w[0].item()) < 1e-15
    assert abs(w[1].item() - 0.1) < 1e-12
    assert (low >= 0).all()
    assert abs(low[0].item() - 0.1) < 1e-15


def test_bounded_by_nought_and_two() -> None:
    values = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    won, lost = torch.meshgrid(values, values, indexing="ij")
    found = loss(batch(won.flatten(), lost.flatten()))
    assert (found >= 0).all()
    assert (found <= 2).all()
    assert loss(batch(values[:1], 2 * values[:1])).item() == 0
