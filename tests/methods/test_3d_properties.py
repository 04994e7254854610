"""Flex-DPO and its likelihood term, and the gradients that the paper is about."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo, dpo_shift
from boresight.objectives import flex_dpo as loss
from oracles import Pair, implicit_rewards, surprise, total
from test_objectives_golden import close, margins, numbers, random_pairs


def flex_dpo(pair: Pair, beta_chosen: float, beta_rejected: float, lam: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta_chosen * won - beta_rejected * lost) - lam * total(pair.chosen)


def test_by_hand() -> None:
    # 0.5 * 2 - 0.25 * (-4) = 2; the chosen has log-prob -3
    pairs = PairLogProbs.from_sums(numbers(-3), numbers(-9), numbers(-5), numbers(-5))
    close(loss(pairs, beta_chosen=0.5, beta_rejected=0.25), [math.log1p(math.exp(-2))])
    close(loss(pairs, beta_chosen=0.5, beta_rejected=0.25, lam=0.1), [math.log1p(math.exp(-2)) + 0.3])


def test_equal_betas_are_dpo_and_a_fixed_ratio_is_dpo_shift() -> None:
    pairs = random_pairs()
    close(loss(pairs, beta_chosen=0.3, beta_rejected=0.3), dpo(pairs, beta=0.3))
    close(loss(pairs, beta_chosen=0.3, beta_rejected=0.21), dpo_shift(pairs, beta=0.3, f=0.7))


def test_without_a_rejected_side_only_the_chosen_is_raised() -> None:
    c, r = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-5.0, -6.0))
    value = loss(PairLogProbs.from_sums(c, r, numbers(-5), numbers(-6)), beta_chosen=0.2, beta_rejected=0.0)
    up, down = torch.autograd.grad(value.sum(), [c, r])
    close(up, [-0.1])
    close(down, [0])


@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_slopes_on_probabilities_stand_as_the_probabilities_do(ratio: float) -> None:
    """|dL/dp_l| / |dL/dp_w| = p_w / p_l in DPO, and beta_rejected / beta_chosen of it here."""
    w, low = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.2, 0.001))
    value = loss(
        PairLogProbs.from_sums(w.log(), low.log(), numbers(-2), numbers(-2)), beta_chosen=0.1, beta_rejected=0.1 * ratio
    )
    up, down = torch.autograd.grad(value.sum(), [w, low])
    close(-down / up, [ratio * 200])


def test_unusable_values_are_named() -> None:
    for bad in ({"beta_chosen": 0.0}, {"beta_rejected": -0.1}, {"lam": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(margins(1), **bad)
