"""RankDPO: the rewrite, values by hand, and where it differs from LiPO."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs
from oracles import Listed, surprise, total


def rankdpo(example: Listed, beta: float) -> float:
    g = [total(p) - total(q) for p, q in zip(example.policy, example.reference, strict=True)]
    order = sorted(range(len(g)), key=lambda i: -example.grades[i])
    loss = 0.0
    for a, i in enumerate(order):
        for b, j in enumerate(order):
            if a < b:
                gain = 2 ** example.grades[i] - 2 ** example.grades[j]
                loss += gain * (1 / math.log(2 + a) - 1 / math.log(2 + b)) * surprise(beta * (g[i] - g[j]))
    return loss


def lists(gains: list[float], grades: list[float]) -> tuple[ListLogProbs, Tensor]:
    leaf = torch.tensor(gains, dtype=torch.float64, requires_grad=True)
    made = ListLogProbs(
        LogProbs.from_sums(leaf - 50),
        LogProbs.from_sums(torch.full_like(leaf, -50).detach()),
        list_of=torch.zeros(len(gains), dtype=torch.int64),
        count=1,
        grades=torch.tensor(grades, dtype=torch.float64),
    )
    return made, leaf


def test_three_by_hand():
    # grades 1, 0, 2: places 2, 3, 1; exp(g) = 1, 3, 2
    three, _ = lists([0, math.log(3), math.log(2)], [1, 0, 2])
    d = [1 / math.log(x) for x in (3, 4, 2)]
    expected = (
        1 * (d[0] - d[1]) * math.log(4)  # 1st over 2nd
        + 2 * (d[2] - d[0]) * math.log(1.5)  # 3rd over 1st
        + 3 * (d[2] - d[1]) * math.log(2.5)  # 3rd over 2nd
    )
    assert o.rankdpo(three, beta=1).item() == pytest.approx(expected, rel=1e-12)


def test_it_is_lipo_where_the_policy_sorts_as_the_grades_do():
    right, _ = lists([3, 2, 1, 0.5], [3, 2, 1, 0])
    wrong, _ = lists([0.5, 1, 2, 3], [3, 2, 1, 0])
    torch.testing.assert_close(o.rankdpo(right, beta=0.3), o.lipo(right, beta=0.3))
    assert not torch.isclose(o.rankdpo(wrong, beta=0.3), o.lipo(wrong, beta=0.3))


def test_weights_stay_as_the_policy_moves():
    """The loss is convex in the margin of each pair: its slope at 0 and far below are as 1 to 2."""
    slopes = []
    for far in (0.0, 400.0):
        made, leaf = lists([-far, far], [1, 0])
        slopes.append(torch.autograd.grad(o.rankdpo(made, beta=1).sum(), leaf)[0])
    torch.testing.assert_close(2 * slopes[0], slopes[1])


def test_denoising_errors_stand_for_log_probs():
    """Minus squared errors, of policy and reference: less error than the reference on the better image is less loss."""

    def loss(better: float) -> float:
        policy, reference = (LogProbs.from_sums(-torch.tensor(e)) for e in ([better, 1.0], [1.0, 1.0]))
        of = torch.zeros(2, dtype=torch.int64)
        made = ListLogProbs(policy, reference, list_of=of, count=1, grades=torch.tensor([1.0, 0.0]))
        return o.rankdpo(made).item()

    assert loss(0.5) < loss(1.0) < loss(1.5)


def test_equal_grades_teach_nothing():
    made, leaf = lists([1, 2, 3], [1, 1, 1])
    loss = o.rankdpo(made)
    assert loss.item() == 0
    assert torch.autograd.grad(loss.sum(), leaf)[0].abs().max() == 0
