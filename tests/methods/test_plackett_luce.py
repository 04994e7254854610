from __future__ import annotations

import itertools
import math

import pytest
import torch

from boresight.objectives import ListLogProbs, LogProbs, PairLogProbs, dpo
from boresight.objectives import plackett_luce as loss
from oracles import Listed, total


def plackett_luce(one: Listed, beta: float) -> float:
    scores = [beta * (total(p) - total(r)) for p, r in zip(one.policy, one.reference, strict=True)]
    found = 0.0
    for mine, grade in zip(scores, one.grades, strict=True):
        rest = [s for s, g in zip(scores, one.grades, strict=True) if g <= grade]
        top = max(rest)
        found += top + math.log(math.fsum(math.exp(s - top) for s in rest)) - mine
    return found


def batch(rows: list[list[float]], grades: list[list[float]]) -> ListLogProbs:
    flat = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    owner = torch.tensor([i for i, row in enumerate(rows) for _ in row], dtype=torch.int64)
    graded = torch.tensor([g for row in grades for g in row], dtype=torch.float64)
    zero = LogProbs.from_sums(torch.zeros_like(flat))
    return ListLogProbs(LogProbs.from_sums(flat), zero, list_of=owner, count=len(rows), grades=graded)


def test_by_hand() -> None:
    """Weights 4, 2, 1 in their order: 4/7 * 2/3. In reverse: 1/7 * 2/6."""
    scores = [math.log(4), math.log(2), 0.0]
    found = loss(batch([scores, scores], [[3, 2, 1], [1, 2, 3]]), beta=1.0).tolist()
    assert found == pytest.approx([math.log(7 / 4 * 3 / 2), math.log(7 * 3)])


def test_probabilities_of_all_orders_sum_to_one() -> None:
    scores = [0.3, -1.2, 2.0, 0.0]
    orders = [list(map(float, p)) for p in itertools.permutations(range(4))]
    found = loss(batch([scores] * 24, orders), beta=1.0)
    assert (-found).exp().sum().item() == pytest.approx(1, rel=1e-12)


def test_two_responses_are_dpo() -> None:
    h = torch.tensor([3.0, -2.0], dtype=torch.float64)
    zero = torch.zeros_like(h)
    found = loss(batch([[3.0, 0.0], [-2.0, 0.0]], [[1, 0], [1, 0]]))
    torch.testing.assert_close(found, dpo(PairLogProbs.from_sums(h, zero, zero, zero)))


def test_ties_are_drawn_together_and_a_lone_response_costs_nothing() -> None:
    found = loss(batch([[0.0, 0.0], [5.0], [3.0, 0.0, 0.0]], [[1, 1], [1], [2, 1, 1]]), beta=1.0).tolist()
    assert found == pytest.approx([2 * math.log(2), 0, math.log(1 + 2 * math.exp(-3)) + 2 * math.log(2)])


def test_finite_far_out() -> None:
    assert loss(batch([[1e4, -1e4, 0.0]], [[0, 2, 1]]), beta=1.0).item() == pytest.approx(2e4 + 1e4)
