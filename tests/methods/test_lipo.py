"""LiPO: the rewrite, values by hand, and its limits: DPO and hinge-norm SLiC on lists of two."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs, PairLogProbs
from oracles import Listed, surprise


def lipo(example: Listed, beta: float, weighting: str, pair: str) -> float:
    scores = [beta * (sum(p) - sum(r)) for p, r in zip(example.policy, example.reference, strict=True)]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    loss = 0.0
    for i, grade in enumerate(example.grades):
        for j, other in enumerate(example.grades):
            if grade <= other:
                continue
            apart = scores[i] - scores[j]
            term = surprise(apart) if pair == "logistic" else max(0.0, 1 - apart)
            if weighting == "dcg":
                gain = (2**grade - 1) - (2**other - 1)
                term *= gain * abs(1 / math.log(2 + order.index(i)) - 1 / math.log(2 + order.index(j)))
            loss += term
    return loss


def lists(gains: Tensor, grades: list[list[float]]) -> ListLogProbs:
    """Lists of one-token responses, gains: (lists, n), log-ratios to the reference."""
    flat = gains.flatten()
    return ListLogProbs(
        LogProbs.from_sums(flat - 50),
        LogProbs.from_sums(torch.full_like(flat, -50).detach()),
        list_of=torch.arange(gains.shape[0]).repeat_interleave(gains.shape[1]),
        count=gains.shape[0],
        grades=torch.tensor(grades, dtype=torch.float64).flatten(),
    )


def numbers(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64, requires_grad=True)


def test_three_responses_by_hand():
    # sorted by score: 2nd, 3rd, 1st; places 3, 1, 2. Scores 0, log 3, log 2 at beta = 1; gains 1, 0, 3
    gains = numbers(0, math.log(3), math.log(2))
    d = [1 / math.log(1 + t) for t in (3, 1, 2)]
    expected = (
        1 * (d[1] - d[0]) * math.log(4)  # 1st over 2nd: log(1 + 3)
        + 2 * (d[2] - d[0]) * math.log(1.5)  # 3rd over 1st: log(1 + 1/2)
        + 3 * (d[1] - d[2]) * math.log(2.5)  # 3rd over 2nd: log(1 + 3/2)
    )
    assert o.lipo(lists(gains, [[1, 0, 2]]), beta=1).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("h", [-30.0, -2.0, 0.0, 0.5, 40.0])
def test_a_list_of_two_is_dpo_or_slic_times_its_weight(h: float):
    two = lists(numbers(h, 0), [[1, 0]])
    pair = PairLogProbs.from_sums(*(torch.tensor([v], dtype=torch.float64) for v in (h - 50, -50, -50, -50)))
    weight = 1 / math.log(2) - 1 / math.log(3)
    for form, other in (("logistic", o.dpo), ("hinge", o.rso_hinge)):
        plain = o.lipo(two, beta=0.3, weighting="constant", pair=form)
        torch.testing.assert_close(plain, other(pair, beta=0.3), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(o.lipo(two, beta=0.3, pair=form), weight * plain, rtol=1e-12, atol=1e-12)


def test_no_gradient_flows_through_the_weight_and_the_order_of_equals_matters_not():
    gains = numbers(1, 0.5, -1)
    (found,) = torch.autograd.grad(o.lipo(lists(gains, [[0, 1, 1]]), beta=1).sum(), gains)
    d = [1 / math.log(1 + t) for t in (1, 2, 3)]
    first, second = (d[0] - d[1]) / (1 + math.exp(-0.5)), (d[0] - d[2]) / (1 + math.exp(-2))
    torch.testing.assert_close(found, torch.tensor([[first + second, -first, -second]], dtype=torch.float64))


def test_equal_grades_teach_nothing_and_labels_weigh():
    gains = numbers(1, 0.5, -1)
    assert o.lipo(lists(gains, [[1, 1, 1]])).item() == 0
    near, far = (o.lipo(lists(gains, [g])).item() for g in ([0.51, 0.5, 0.49], [0.99, 0.5, 0.01]))
    assert near < 0.03 * far  # the same order: constant weights see no difference
    same = [o.lipo(lists(gains, [g]), weighting="constant").item() for g in ([0.51, 0.5, 0.49], [0.99, 0.5, 0.01])]
    assert same[0] == same[1]


def test_other_words_are_refused():
    two = lists(numbers(0, 0), [[1, 0]])
    with pytest.raises(ValueError, match="weighting"):
        o.lipo(two, weighting="ndcg")
    with pytest.raises(ValueError, match="pair"):
        o.lipo(two, pair="square")
