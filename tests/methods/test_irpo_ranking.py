"""In-context ranking preference optimisation: the rewrite, values by hand, and DPO as the list of two."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs, PairLogProbs
from oracles import Listed, average, total


def irpo_ranking(example: Listed, beta: float, form: str, rank: str) -> float:
    take = total if form == "paper" else average
    r = [take(p) - take(q) for p, q in zip(example.policy, example.reference, strict=True)]
    count = len(r)
    order = range(count) if rank == "given" else sorted(range(count), key=lambda i: -example.grades[i])
    loss = 0.0
    for place, i in enumerate(order, start=1):
        weight = (2 ** max(example.grades[i], 0.0) - 1) / math.log2(1 + place)
        others = [beta * (r[j] - r[i]) for j in range(count) if j != i]
        if form == "code":
            others = [x - math.log(count - 1) for x in others]
        top = max(0.0, *others)
        loss += weight * (top + math.log(math.exp(-top) + math.fsum(math.exp(x - top) for x in others)))
    return loss / count


def lists(gains: list[float], grades: list[float], lengths: list[int] | None = None) -> tuple[ListLogProbs, Tensor]:
    leaf = torch.tensor(gains, dtype=torch.float64, requires_grad=True)
    long = None if lengths is None else torch.tensor(lengths)
    fixed = torch.full_like(leaf, -50).detach()
    made = ListLogProbs(
        LogProbs.from_sums(leaf - 50, long),
        LogProbs.from_sums(fixed, long),
        list_of=torch.zeros(len(gains), dtype=torch.int64),
        count=1,
        grades=torch.tensor(grades, dtype=torch.float64),
    )
    return made, leaf


def test_three_items_by_hand():
    # exp(r) = 1, 2, 4; relevances 0, 2, 1 at places 1, 2, 3: weights 0, 3/log2(3), 1/2
    three, _ = lists([0, math.log(2), math.log(4)], [0, 2, 1])
    expected = (3 / math.log2(3) * math.log(1 + 0.5 + 2) + 0.5 * math.log(1 + 0.25 + 0.5)) / 3
    assert o.irpo_ranking(three).item() == pytest.approx(expected, rel=1e-12)
    by_grade = (3 * math.log(3.5) + 1 / math.log2(3) * math.log(1.75)) / 3
    assert o.irpo_ranking(three, rank="grades").item() == pytest.approx(by_grade, rel=1e-12)


def test_the_code_averages_over_tokens_and_over_the_others():
    three, _ = lists([math.log(4), 0, math.log(2)], [1, 0, 0], [2, 1, 1])
    expected = math.log(1 + (0.5 + 1) / 2) / 3  # r = log 2, 0, log 2
    assert o.irpo_ranking(three, form="code").item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("h", [-30.0, -1.0, 0.0, 2.0, 50.0])
@pytest.mark.parametrize("form", ["paper", "code"])
def test_two_items_one_relevant_is_half_of_dpo(h: float, form: str):
    pair = PairLogProbs.from_sums(*(torch.tensor([v], dtype=torch.float64) for v in (h - 50, -50, -50, -50)))
    found = o.irpo_ranking(lists([h, 0], [1, 0])[0], beta=0.3, form=form)
    torch.testing.assert_close(2 * found, o.dpo(pair, beta=0.3), rtol=1e-12, atol=1e-12)


def test_irrelevant_items_are_only_compared_with_and_places_discount():
    made, leaf = lists([0, 0, 0], [0, 1, 0])
    (found,) = torch.autograd.grad(o.irpo_ranking(made).sum(), leaf)
    each = 1 / math.log2(3) / 3 / 3
    torch.testing.assert_close(found, torch.tensor([each, -2 * each, each], dtype=torch.float64))


def test_lists_of_one_and_negative_grades_teach_nothing():
    for gains, grades in (([1.0], [2.0]), ([1.0, 2.0], [-1.0, -3.0])):
        made, leaf = lists(gains, grades)
        loss = o.irpo_ranking(made)
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), leaf)[0].abs().max() == 0


def test_other_words_are_refused():
    two = lists([0, 0], [1, 0])[0]
    with pytest.raises(ValueError, match="form"):
        o.irpo_ranking(two, form="mean")
    with pytest.raises(ValueError, match="rank"):
        o.irpo_ranking(two, rank="score")
