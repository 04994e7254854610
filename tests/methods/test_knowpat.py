"""KnowPAT: the rewrite, values by hand, and its weights, which follow the policy's own order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs
from oracles import Listed, average, surprise, total

EXEMPT = {
    "falls_towards_its_target": "weights jump from 0 to 1 where the policy's order of two turns round; own test below",
    "gradient_signs": "of two the better has weight 0 while the policy ranks it below; own test below",
}


def knowpat(example: Listed, lam: float, length_power: float, form: str) -> float:
    order = sorted(range(len(example.grades)), key=lambda i: -example.grades[i])
    s = [total(example.policy[i]) / len(example.policy[i]) ** length_power for i in order]
    low, high = min(s), max(s)
    aligned = 0.0
    for i in range(len(s) - 1):
        weight = (s[i] - low) / (high - low) if high > low else 0.0
        later = [surprise(-x) for x in s[i + 1 :]]
        aligned += weight * (surprise(s[i]) + sum(later) / len(later))
    if form == "code":
        aligned /= 3
    return -average(example.policy[order[0]]) + lam * aligned


def lists(sums: list[float], grades: list[float], lengths: list[int] | None = None) -> tuple[ListLogProbs, Tensor]:
    leaf = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    policy = LogProbs.from_sums(leaf, None if lengths is None else torch.tensor(lengths))
    of = torch.zeros(len(sums), dtype=torch.int64)
    graded = torch.tensor(grades, dtype=torch.float64)
    return ListLogProbs(policy, list_of=of, count=1, grades=graded), leaf


def test_three_responses_by_hand():
    # in order of grade s = -1, -2, -3: weights 1, 1/2; token means of one-token responses
    three, _ = lists([-2, -1, -3], [1, 2, 0])
    up = [math.log(1 + math.exp(x)) for x in (1, 2)]
    down = [math.log(1 + math.exp(-x)) for x in (2, 3)]
    aligned = up[0] + (down[0] + down[1]) / 2 + 0.5 * (up[1] + down[1])
    assert o.knowpat(three, lam=0.3, form="paper").item() == pytest.approx(1 + 0.3 * aligned, rel=1e-12)
    assert o.knowpat(three, lam=0.3, form="code").item() == pytest.approx(1 + 0.1 * aligned, rel=1e-12)


def test_without_the_term_it_is_likelihood_of_the_best():
    three, leaf = lists([-8, -6, -3], [0, 2, 1], [2, 3, 1])
    loss = o.knowpat(three, lam=0)
    assert loss.item() == pytest.approx(2, rel=1e-12)
    (found,) = torch.autograd.grad(loss.sum(), leaf)
    torch.testing.assert_close(found, torch.tensor([0, -1 / 3, 0], dtype=torch.float64))


def test_length_power_0_sums_and_1_averages():
    # the likelihood is per token always; s of the second is -4 or -1, of the first -3 or -3
    for power, low in ((0.0, -4.0), (1.0, -1.0)):
        two, _ = lists([-3, -4], [1, 0], [1, 4])
        weight = 1.0 if low < -3 else 0.0
        aligned = weight * (math.log(1 + math.exp(3)) + math.log(1 + math.exp(low)))
        found = o.knowpat(two, lam=1, length_power=power, form="paper").item()
        assert found == pytest.approx(3 + aligned, rel=1e-12)


def test_weights_are_frozen_and_signs_hold_where_they_are_not_0():
    three, leaf = lists([-1, -2, -3], [2, 1, 0])
    (found,) = torch.autograd.grad(o.knowpat(three, lam=1, form="paper").sum(), leaf)
    p = [1 / (1 + math.exp(-x)) for x in (-1, -2, -3)]
    # -1 of the likelihood; weights 1 and 1/2, a response below counts by the mean over those below
    expected = [-1 - (1 - p[0]), p[1] / 2 - (1 - p[1]) / 2, p[2] / 2 + p[2] / 2]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_best_response_that_the_policy_ranks_last_gets_likelihood_alone():
    two, leaf = lists([-5, -1], [1, 0])
    (found,) = torch.autograd.grad(o.knowpat(two, lam=10).sum(), leaf)
    assert found.tolist() == [-1, 0]


def test_equal_scores_have_weight_0():
    assert o.knowpat(lists([-2, -2, -2], [2, 1, 0])[0], lam=10).item() == 2


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="form"):
        o.knowpat(lists([-3, -4], [1, 0])[0], form="sum")
