"""SPO with preference degrees: both terms by hand, its limit, what the classifier's loss reaches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Linear

import boresight.objectives as room
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide
from oracles import Known, Pair, implicit_rewards, surprise

EXEMPT = {
    "one_loss_per_example": "the checks' empty batch carries no heads; test_one_loss_for_each_pair",
}


def spo_preference_degree(pair: Pair, beta: float, gamma: float, levels: int) -> float:
    def told(known: Known) -> float:
        states, head = known.per_token["hidden"], pair.around.heads["degree"]
        mean = [math.fsum(column) / len(states) for column in zip(*states, strict=True)]
        logits = [
            bias + math.fsum(w * x for w, x in zip(row, mean, strict=True))
            for row, bias in zip(head.weight.double().tolist(), head.bias.double().tolist(), strict=True)
        ]
        right = min(max(round(known.scores["degree"]), 0), levels - 1)
        top = max(logits)
        return top + math.log(math.fsum(math.exp(x - top) for x in logits)) - logits[right]

    won, lost = implicit_rewards(pair)
    return surprise(beta * (won - lost)) + gamma * (told(pair.chosen_known) + told(pair.rejected_known))


def head(weight: list[list[float]], bias: list[float]) -> Linear:
    made = Linear(len(weight[0]), len(weight), dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        made.bias.copy_(torch.tensor(bias))
    return made


def one_pair(degrees: list[float], classifier: Linear) -> tuple[PairLogProbs, Tensor]:
    """Chosen of two tokens with hidden states 1 and 3, rejected of one with -1; rewards 1.5 and -0.5."""
    hidden = torch.tensor([[1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[-1.0]], dtype=torch.float64)
    chosen = LogProbs.from_sequences([torch.tensor([-1.0, -0.5], dtype=torch.float64)], hidden=[hidden])
    rejected = LogProbs.from_sequences([torch.tensor([-2.5], dtype=torch.float64)], hidden=[other])
    fixed = [LogProbs.from_sums(torch.tensor([v], dtype=torch.float64)) for v in (-3.0, -2.0)]
    given = Given(scores={"degree": torch.tensor(degrees)}, heads={"degree": classifier})
    return PairLogProbs(PairSide(chosen, rejected), PairSide(*fixed), given), hidden


TWO = head([[0.0], [1.0]], [0.0, 0.0])
"""Logits 0 and the mean of the hidden states: 2 for the chosen, -1 for the rejected."""


def test_by_hand() -> None:
    pairs, _ = one_pair([1.0, 0.0], TWO)
    found = room.spo_preference_degree(pairs, beta=0.5, gamma=0.2, levels=2)
    expected = math.log1p(math.exp(-1.0)) + 0.2 * (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    turned, _ = one_pair([0.0, 1.0], TWO)
    found = room.spo_preference_degree(turned, beta=0.5, gamma=0.2, levels=2)
    expected = math.log1p(math.exp(-1.0)) + 0.2 * (math.log1p(math.exp(2)) + math.log1p(math.exp(1)))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_without_gamma_or_without_degrees_it_is_dpo() -> None:
    pairs, _ = one_pair([1.0, 0.0], TWO)
    torch.testing.assert_close(room.spo_preference_degree(pairs, gamma=0.0, levels=2), room.dpo(pairs))
    unknown, _ = one_pair([math.nan, math.nan], TWO)
    found = room.spo_preference_degree(unknown, gamma=3.0, levels=2)
    torch.testing.assert_close(found, room.dpo(unknown))
    half, _ = one_pair([math.nan, 0.0], TWO)
    expected = room.dpo(half) + 3 * math.log1p(math.exp(-1))
    torch.testing.assert_close(room.spo_preference_degree(half, gamma=3.0, levels=2), expected)


def test_the_classifiers_loss_reaches_the_hidden_states_and_the_classifier() -> None:
    pairs, hidden = one_pair([0.0, 0.0], TWO)
    losses = room.spo_preference_degree(pairs, gamma=0.5, levels=2)
    to_hidden, to_weight = torch.autograd.grad(losses.sum(), [hidden, TWO.weight])
    wrong = 1 / (1 + math.exp(-2))  # the probability of degree 1, where 0 is right
    expected = torch.full((2, 1), 0.5 * wrong / 2, dtype=torch.float64)
    torch.testing.assert_close(to_hidden, expected)
    low = 1 / (1 + math.exp(1))
    torch.testing.assert_close(to_weight[1], torch.tensor([0.5 * (wrong * 2 + low * -1)], dtype=torch.float64))


def test_a_certain_classifier_is_finite() -> None:
    steep = head([[0.0], [1e4]], [0.0, 0.0])
    pairs, hidden = one_pair([0.0, 1.0], steep)
    losses = room.spo_preference_degree(pairs, gamma=1.0, levels=2)
    assert losses.isfinite().all()
    assert torch.autograd.grad(losses.sum(), hidden)[0].isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_loss_for_each_pair(count: int, dtype: torch.dtype) -> None:
    values, owner = torch.ones(2 * count, dtype=dtype), torch.arange(count).repeat(2)
    more = {"hidden": torch.ones(2 * count, 2, dtype=dtype)}
    side = LogProbs(values, owner, count, more)
    given = Given(scores={"degree": torch.ones(2 * count)}, heads={"degree": Linear(2, 5).to(dtype)})
    found = room.spo_preference_degree(PairLogProbs(PairSide(side, side), PairSide(side, side), given))
    assert found.shape == (count,)
    assert found.dtype == dtype


def test_unusable() -> None:
    pairs, _ = one_pair([1.0, 0.0], TWO)
    with pytest.raises(ValueError, match="levels is 3, but the classifier tells 2 apart"):
        room.spo_preference_degree(pairs, levels=3)
    for bad in (0, 1):
        with pytest.raises(ValueError, match="levels must be"):
            room.spo_preference_degree(pairs, levels=bad)
    bare = PairLogProbs(pairs.policy, pairs.reference, Given(heads={"degree": TWO}))
    with pytest.raises(ValueError, match="needs scores named 'degree'"):
        room.spo_preference_degree(bare, levels=2)


def test_the_classifier_has_a_class_for_each_level() -> None:
    heads = room.find("spo-preference-degree").heads
    assert heads is not None
    assert heads(6)["degree"](torch.zeros(3, 6)).shape == (3, 5)
    assert heads(6, levels=9, gamma=0.1)["degree"](torch.zeros(3, 6)).shape == (3, 9)
