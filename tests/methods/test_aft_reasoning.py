"""Alignment fine-tuning: the rewrite, values by hand, and where each constraint lets wrong chains rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import ListLogProbs, LogProbs
from oracles import Listed, average


def aft_reasoning(example: Listed, constraint: str, gap: float, feedback: str, sft: float) -> float:
    s = [average(p) for p in example.policy]
    grades = example.grades
    inside = [0.0]  # exponents; the first is the 1
    for n, worse in enumerate(grades):
        if feedback == "binary":
            above = [p for p, g in enumerate(grades) if g > 0 >= worse]
        else:
            above = [p for p, g in enumerate(grades) if g > worse]
        for p in above:
            inside.append(s[n] - s[p])
            if constraint == "boundary":
                inside.append(min(s[q] for q in above) - gap - s[n])
    top = max(inside)
    ranking = top + math.log(math.fsum(math.exp(x - top) for x in inside))
    good = [x for x, g in zip(s, grades, strict=True) if (g > 0 if feedback == "binary" else g == max(grades))]
    return ranking - sft * (math.fsum(good) / len(good) if good else 0.0)


def lists(sums: list[float], grades: list[float], lengths: list[int] | None = None) -> tuple[ListLogProbs, Tensor]:
    leaf = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    policy = LogProbs.from_sums(leaf, None if lengths is None else torch.tensor(lengths))
    of = torch.zeros(len(sums), dtype=torch.int64)
    graded = torch.tensor(grades, dtype=torch.float64)
    return ListLogProbs(policy, list_of=of, count=1, grades=graded), leaf


def slope(sums: list[float], grades: list[float], **values: object) -> Tensor:
    made, leaf = lists(sums, grades)
    return torch.autograd.grad(o.aft_reasoning(made, **values).sum(), leaf)[0]


def test_two_right_and_one_wrong_by_hand():
    three, _ = lists([-4, -1, -6], [1, 0, 1], [2, 1, 2])  # s = -2, -1, -3
    plain = math.log(1 + math.exp(1) + math.exp(2)) + 2.5
    bound = math.log(1 + math.exp(1) + math.exp(2) + 2 * math.exp(-3 - 0.5 + 1)) + 2.5
    assert o.aft_reasoning(three, constraint="none").item() == pytest.approx(plain, rel=1e-12)
    assert o.aft_reasoning(three, constraint="detached").item() == pytest.approx(plain, rel=1e-12)
    assert o.aft_reasoning(three, constraint="boundary", gap=0.5).item() == pytest.approx(bound, rel=1e-12)
    assert o.aft_reasoning(three, constraint="none", sft=0).item() == pytest.approx(plain - 2.5, rel=1e-12)


def test_detached_never_pushes_and_none_always_does():
    for wrong in (-1.0, -3.0, -30.0):
        assert slope([-2, wrong], [1, 0], constraint="detached")[1] == 0
        assert slope([-2, wrong], [1, 0], constraint="none")[1] > 0
        assert slope([-2, wrong], [1, 0], constraint="detached", sft=0)[0] < 0


@pytest.mark.parametrize("gap", [0.0, 0.4, 3.0])
def test_boundary_lets_a_wrong_chain_rest_half_the_gap_below(gap: float):
    at, above, below = (slope([-2, -2 - gap / 2 + d], [1, 0], gap=gap)[1].item() for d in (0, 0.1, -0.1))
    assert at == pytest.approx(0, abs=1e-12)
    assert below < 0 < above


def test_ranking_takes_every_pair_and_binary_only_right_over_wrong():
    found = {f: slope([-2, -2, -2], [2, 1, 0], constraint="none", feedback=f, sft=0) for f in ("binary", "ranking")}
    # 1 + 2 terms, each 1; and 1 + 3 terms
    torch.testing.assert_close(found["binary"], torch.tensor([-1 / 3, -1 / 3, 2 / 3], dtype=torch.float64))
    torch.testing.assert_close(found["ranking"], torch.tensor([-0.5, 0, 0.5], dtype=torch.float64))


def test_no_right_chain_teaches_nothing_and_no_wrong_one_likelihood_alone():
    made, leaf = lists([-2, -3], [0, 0])
    loss = o.aft_reasoning(made)
    assert loss.item() == 0
    assert torch.autograd.grad(loss.sum(), leaf)[0].tolist() == [0, 0]
    assert o.aft_reasoning(lists([-2, -3], [1, 1])[0]).item() == pytest.approx(2.5, rel=1e-12)


def test_other_words_are_refused():
    two = lists([-3, -4], [1, 0])[0]
    with pytest.raises(ValueError, match="constraint"):
        o.aft_reasoning(two, constraint="clip")
    with pytest.raises(ValueError, match="feedback"):
        o.aft_reasoning(two, feedback="pairs")
