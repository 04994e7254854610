from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo
from boresight.objectives import mdpo as loss
from oracles import Pair, implicit_rewards, surprise


def mdpo(pair: Pair, beta: float, anchor: float, offset: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * (won - lost)) + anchor * surprise(beta * won - offset)


def batch(won: torch.Tensor, lost: torch.Tensor) -> PairLogProbs:
    return PairLogProbs.from_sums(won, lost, torch.zeros_like(won), torch.zeros_like(won))


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand() -> None:
    """Rewards log 3 and 0: log 4/3 of the pair, half of log 4/3 as the anchor."""
    found = loss(batch(numbers(10 * math.log(3)), numbers(0)), beta=0.1)
    assert found.item() == pytest.approx(1.5 * math.log(4 / 3), rel=1e-12)


def test_without_anchor_it_is_dpo() -> None:
    some = batch(numbers(3, -2, 0), numbers(1, 5, 0))
    torch.testing.assert_close(loss(some, anchor=0.0), dpo(some))


def test_an_example_as_two_rows_is_the_loss_of_three_terms() -> None:
    """Chosen, rejected, and the chosen behind a corrupted condition: preference, conditional preference, anchor."""
    won, lost, behind, beta = 2.0, -1.0, 0.5, 0.3
    two = loss(batch(numbers(won, won), numbers(lost, behind)), beta=beta).sum().item()
    three = surprise(beta * (won - lost)) + surprise(beta * (won - behind)) + surprise(beta * won)
    assert two == pytest.approx(three, rel=1e-12)


def test_the_anchor_pulls_a_chosen_up_that_fell_although_the_margin_is_settled() -> None:
    won = numbers(-50).requires_grad_()
    (slope,) = torch.autograd.grad(loss(batch(won, numbers(-5000))).sum(), won)
    assert slope.item() == pytest.approx(-0.1 * 0.5 / (1 + math.exp(-5)), rel=1e-9)
