from __future__ import annotations

import math

import torch

from boresight.objectives import PairLogProbs, dpo
from boresight.objectives import r_dpo as loss
from oracles import Pair, implicit_rewards, surprise


def r_dpo(pair: Pair, beta: float, alpha: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * won + alpha * len(pair.chosen) - beta * lost - alpha * len(pair.rejected))


def batch(h: list[float], longer: list[int], shorter: list[int]) -> PairLogProbs:
    m = torch.tensor(h, dtype=torch.float64)
    zero = torch.zeros_like(m)
    return PairLogProbs.from_sums(
        m - 9, zero - 9, zero, zero, chosen_lengths=torch.tensor(longer), rejected_lengths=torch.tensor(shorter)
    )


def test_by_hand() -> None:
    """0.1 * 10 + 0.05 * (30 - 10) = 2, and the other way round 0."""
    found = loss(batch([10, 10], [30, 10], [10, 30]), beta=0.1, alpha=0.05)
    assert abs(found[0].item() - math.log(1 + math.exp(-2))) < 1e-12
    assert abs(found[1].item() - math.log(2)) < 1e-12


def test_is_dpo_at_equal_lengths_and_without_penalty() -> None:
    torch.testing.assert_close(loss(batch([3, -2], [4, 9], [4, 9])), dpo(batch([3, -2], [4, 9], [4, 9])))
    torch.testing.assert_close(loss(batch([3, -2], [4, 9], [8, 1]), alpha=0.0), dpo(batch([3, -2], [4, 9], [8, 1])))


def test_the_loss_at_the_best_policy_under_a_price_of_length_is_least() -> None:
    """Two responses, Bradley-Terry labels of their rewards: least where the policy is ref * exp((r - a n) / b)."""
    beta, alpha, reward, lengths = 0.5, 0.2, (1.0, 0.3), (7, 2)
    wins = 1 / (1 + math.exp(-(reward[0] - reward[1])))
    best = (reward[0] - reward[1] - alpha * (lengths[0] - lengths[1])) / beta
    h = torch.tensor(best, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    first = PairLogProbs.from_sums(
        h[None], zero, zero, zero, chosen_lengths=torch.tensor([7]), rejected_lengths=torch.tensor([2])
    )
    second = PairLogProbs.from_sums(
        zero, h[None], zero, zero, chosen_lengths=torch.tensor([2]), rejected_lengths=torch.tensor([7])
    )
    expected = wins * loss(first, beta=beta, alpha=alpha) + (1 - wins) * loss(second, beta=beta, alpha=alpha)
    assert abs(torch.autograd.grad(expected.sum(), h)[0].item()) < 1e-12
