"""MAPL: the rewrite, DPO on lists of two, margins of pairs by hand, and prompts of their own."""

from __future__ import annotations

import math

import pytest
import torch

import boresight.objectives as o
from boresight.data.example import Example, Response
from boresight.data.render import Renderer
from boresight.data.rows import make_rows
from boresight.lab.tiny import byte_tokenizer
from boresight.objectives import ListLogProbs, LogProbs, PairLogProbs
from oracles import Listed, surprise, total


def mapl(one: Listed, beta: float, inter: float) -> float:
    margin = 0.0
    for policy, reference, grade in zip(one.policy, one.reference, one.grades, strict=True):
        sign = 1 if grade == max(one.grades) else -1
        margin += sign * (total(policy) - total(reference))
    return surprise(beta * margin) * (inter if len(one.policy) > 2 else 1)


def lists(gains: list[list[float]], grades: list[list[float]]) -> tuple[ListLogProbs, torch.Tensor]:
    leaf = torch.tensor([g for some in gains for g in some], dtype=torch.float64, requires_grad=True)
    sizes = torch.tensor([len(some) for some in gains])
    made = ListLogProbs(
        LogProbs.from_sums(leaf - 9),
        LogProbs.from_sums(torch.full_like(leaf, -9)),
        list_of=torch.repeat_interleave(torch.arange(len(gains)), sizes),
        count=len(gains),
        grades=torch.tensor([g for some in grades for g in some], dtype=torch.float64),
    )
    return made, leaf


def test_of_two_it_is_dpo():
    made, _ = lists([[1.0, -2.0], [0.5, 4.0]], [[1, 0], [0, 1]])
    sums = [torch.tensor(x, dtype=torch.float64) for x in ([1.0, 4.0], [-2.0, 0.5], [0.0, 0.0], [0.0, 0.0])]
    torch.testing.assert_close(o.mapl(made, beta=0.3, inter=7.0), o.dpo(PairLogProbs.from_sums(*sums), beta=0.3))


def test_margins_of_two_pairs_by_hand():
    # a: 3 - 1 = 2, b: 4 - 1.5 = 2.5; graded a_w, a_l, b_w, b_l = 1, 0, 0, 1
    made, leaf = lists([[3.0, 1.0, 4.0, 1.5]], [[1, 0, 0, 1]])
    found = o.mapl(made, beta=0.4, inter=0.5)
    assert found.item() == pytest.approx(0.5 * math.log(1 + math.exp(0.2)), rel=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    slope = 0.5 * 0.4 / (1 + math.exp(-0.2))
    torch.testing.assert_close(gradient, slope * torch.tensor([-1.0, 1, 1, -1], dtype=torch.float64))


def test_zero_margins():
    made, _ = lists([[0.0, 0.0], [1.0, 3.0, 2.0, 4.0]], [[1, 0], [1, 0, 0, 1]])
    expected = torch.tensor([1.0, 2.5], dtype=torch.float64) * math.log(2)
    torch.testing.assert_close(o.mapl(made, inter=2.5), expected)


def test_a_level_that_both_pairs_share_does_not_matter():
    one, _ = lists([[3.0, 1.0, 4.0, 1.5]], [[1, 0, 0, 1]])
    moved, _ = lists([[8.0, 6.0, -3.0, -5.5]], [[1, 0, 0, 1]])
    torch.testing.assert_close(o.mapl(one), o.mapl(moved))


def test_one_response_behind_two_prompts_makes_a_row():
    """The same words behind another prompt are another response, and no duplicate."""
    renderer = Renderer(byte_tokenizer(["fits does not fit y"] * 8, 300), template="plain")
    intra = Example("fits", (Response("y"), Response("y", prompt="does not fit")), ranks=(1, 2))
    (row,) = make_rows([intra], renderer, kind="lists")
    assert [t.key() for t in row.sequences] == [renderer.tokens(p, "y").key() for p in ("fits", "does not fit")]
    assert row.scores["grade"][0] > row.scores["grade"][1]
