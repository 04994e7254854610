"""Tree preference optimisation: the rewrite, values by hand, and what it shares with LiPO and DPO."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs, PairLogProbs
from oracles import Listed, average, surprise


def tpo_tree(example: Listed, beta: float, form: str) -> float:
    take = sum if form == "paper" else average
    s = [beta * (take(p) - take(q)) for p, q in zip(example.policy, example.reference, strict=True)]
    order = sorted(range(len(s)), key=lambda i: -s[i])
    discount = {i: 1 / math.log(2 + place) for place, i in enumerate(order)}
    loss = 0.0
    for i, v in enumerate(example.grades):
        for j, u in enumerate(example.grades):
            if v > u:
                even = 2 / (len(s) * (len(s) - 1))
                weight = (2**v - 2**u) * abs(discount[i] - discount[j]) if form == "paper" else even
                loss += weight * surprise(s[i] - s[j])
    return loss


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


def test_three_leaves_by_hand():
    # s = log 2, 0, log 3 at beta 1; grades 2, 1, 0; places 2, 3, 1
    three, _ = lists([math.log(2), 0, math.log(3)], [2, 1, 0])
    d = [1 / math.log(x) for x in (3, 4, 2)]
    terms = [math.log(1.5), math.log(1 + 1.5), math.log(4)]  # 1st over 2nd, 1st over 3rd, 2nd over 3rd
    weights = [2 * (d[0] - d[1]), 3 * (d[2] - d[0]), 1 * (d[2] - d[1])]
    expected = sum(w * t for w, t in zip(weights, terms, strict=True))
    assert o.tpo_tree(three, beta=1).item() == pytest.approx(expected, rel=1e-12)
    assert o.tpo_tree(three, beta=1, form="code").item() == pytest.approx(sum(terms) / 3, rel=1e-12)


def test_without_step_weights_the_paper_is_lipo():
    made, _ = lists([0.4, -1.0, 2.0, 0.1], [3, 1, 0, 2], [2, 3, 1, 4])
    torch.testing.assert_close(o.tpo_tree(made, beta=0.7), o.lipo(made, beta=0.7), rtol=1e-12, atol=1e-12)


def test_the_code_takes_means_over_tokens():
    two, _ = lists([4, 1], [1, 0], [4, 1])
    assert o.tpo_tree(two, beta=0.4, form="code").item() == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("h", [-30.0, 0.0, 3.0])
def test_two_leaves_are_dpo_in_the_code(h: float):
    pair = PairLogProbs.from_sums(*(torch.tensor([v], dtype=torch.float64) for v in (h - 50, -50, -50, -50)))
    found = o.tpo_tree(lists([h, 0], [1, 0])[0], beta=0.3, form="code")
    torch.testing.assert_close(found, o.dpo(pair, beta=0.3), rtol=1e-12, atol=1e-12)


def test_equal_grades_teach_nothing():
    for form in ("paper", "code"):
        made, leaf = lists([1, 2, 3], [1, 1, 1])
        loss = o.tpo_tree(made, form=form)
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), leaf)[0].abs().max() == 0


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="form"):
        o.tpo_tree(lists([0, 0], [1, 0])[0], form="steps")
