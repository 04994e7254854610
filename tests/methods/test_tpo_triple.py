"""Triple preference optimisation: the rewrite, values by hand, and what longer and shorter lists mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs
from oracles import Listed, average, surprise, total


def tpo_triple(example: Listed, beta: float, alpha: float, pair: str) -> float:
    order = sorted(range(len(example.grades)), key=lambda i: -example.grades[i])
    loss = -alpha * average(example.policy[order[0]])
    if len(order) > 1:
        won, lost = order[min(1, len(order) - 2)], order[-1]
        apart = beta * (total(example.policy[won]) - total(example.policy[lost]))
        if example.grades[won] > example.grades[lost]:
            loss += surprise(apart) if pair == "logistic" else max(0.0, 1 - apart)
    return loss


def lists(sums: list[float], grades: list[float], lengths: list[int] | None = None) -> tuple[ListLogProbs, Tensor]:
    leaf = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    policy = LogProbs.from_sums(leaf, None if lengths is None else torch.tensor(lengths))
    of = torch.zeros(len(sums), dtype=torch.int64)
    graded = torch.tensor(grades, dtype=torch.float64)
    return ListLogProbs(policy, list_of=of, count=1, grades=graded), leaf


def test_three_responses_by_hand():
    # gold: the third, 4 tokens; preferred: the first; margin -5 - -9 = 4, at beta 0.5 sigmoid(2)
    three, _ = lists([-5, -9, -6], [2, 1, 3], [2, 3, 4])
    expected = math.log(1 + math.exp(-2)) + 0.5 * 6 / 4
    assert o.tpo_triple(three, beta=0.5, alpha=0.5).item() == pytest.approx(expected, rel=1e-12)
    assert o.tpo_triple(three, beta=0.1, alpha=0.5, pair="hinge").item() == pytest.approx(0.6 + 0.75, rel=1e-12)


def test_gold_gets_likelihood_alone_and_the_pair_only_their_difference():
    three, leaf = lists([-5, -9, -6], [3, 2, 1])
    (found,) = torch.autograd.grad(o.tpo_triple(three, beta=0.5, alpha=2.0).sum(), leaf)
    slope = 0.5 / (1 + math.exp(-1.5))  # margin -9 - -6, at beta 0.5
    torch.testing.assert_close(found, torch.tensor([-2, -slope, slope], dtype=torch.float64))


def test_of_five_the_lowest_is_dispreferred_and_the_middle_plays_no_part():
    five, leaf = lists([-5, -6, -7, -8, -9], [5, 1, 3, 4, 2])
    (found,) = torch.autograd.grad(o.tpo_triple(five).sum(), leaf)
    assert (found != 0).tolist() == [True, True, False, True, False]
    assert found[3] < 0 < found[1]


def test_of_two_the_better_is_gold_and_preferred():
    two, _ = lists([-3, -4], [1, 0])
    expected = math.log(1 + math.exp(-0.1)) + 0.5 * 3
    assert o.tpo_triple(two).item() == pytest.approx(expected, rel=1e-12)


def test_likelihood_stands_alone_without_a_preference():
    for sums, grades in (([-3.0], [1.0]), ([-3.0, -4.0, -5.0], [1.0, 0.0, 0.0])):
        one, leaf = lists(sums, grades)
        loss = o.tpo_triple(one)
        assert loss.item() == pytest.approx(1.5, rel=1e-12)
        (found,) = torch.autograd.grad(loss.sum(), leaf)
        assert found.tolist() == [-0.5] + [0.0] * (len(sums) - 1)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="pair"):
        o.tpo_triple(lists([-3, -4], [1, 0])[0], pair="square")
