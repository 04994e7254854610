"""Normalised gradients: the loss by hand, and that its step does what it promises on a model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as room
from boresight.diagnostics import entanglement
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {
    "one_loss_per_example": "the checks' empty batch carries no statistics; test_one_loss_for_each_pair",
}


def gradient_entanglement(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    norms = [pair.around.statistics[f"{side}_gradient_norm"] for side in ("chosen", "rejected")]
    middle = math.sqrt(norms[0] * norms[1])
    return surprise(beta * (middle * won / norms[0] - middle * lost / norms[1]))


def with_norms(sums: list[Tensor], won: float, lost: float) -> PairLogProbs:
    policy, reference = (PairSide(*(LogProbs.from_sums(s) for s in both)) for both in (sums[:2], sums[2:]))
    norms = {"chosen_gradient_norm": torch.tensor(won), "rejected_gradient_norm": torch.tensor(lost)}
    return PairLogProbs(policy, reference, Given(statistics=norms))


def sums(*values: float) -> list[Tensor]:
    return [torch.tensor([v], dtype=torch.float64) for v in values]


def test_by_hand() -> None:
    """Norms 1 and 4: k = 2, so rewards 3 and -2 make a margin of 2 * 3 + 2 / 2 = 7."""
    found = room.gradient_entanglement(with_norms(sums(-7, -12, -10, -10), 1.0, 4.0), beta=0.5)
    assert found.item() == pytest.approx(math.log1p(math.exp(-3.5)), rel=1e-12)


def test_at_equal_norms_it_is_dpo() -> None:
    pairs = with_norms(sums(-7, -12, -10, -9), 0.3, 0.3)
    torch.testing.assert_close(room.gradient_entanglement(pairs), room.dpo(pairs))


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_loss_for_each_pair(count: int, dtype: torch.dtype) -> None:
    found = room.gradient_entanglement(with_norms([torch.ones(count, dtype=dtype)] * 4, 1.0, 2.0))
    assert found.shape == (count,)
    assert found.dtype == dtype


def test_without_the_norms_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs chosen_gradient_norm"):
        room.gradient_entanglement(PairLogProbs.from_sums(*sums(0, 0, 0, 0)))


def test_a_norm_of_nothing_is_finite() -> None:
    for won, lost in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        assert room.gradient_entanglement(with_norms(sums(-1, -2, -1.5, -1.5), won, lost)).isfinite().all()


def log_probs(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Two responses that nearly agree, of a softmax over four: features chosen so that DPO lowers both."""
    features = torch.tensor([[1.0, 0.0], [2.5, 0.3], [-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    table = (features @ parameter).log_softmax(0)
    return table[:1], table[1:2]


def test_its_step_raises_chosen_and_lowers_rejected_where_dpos_lowers_both() -> None:
    start = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    changes = {}
    for name in ("dpo", "gradient-entanglement"):
        parameter = start.clone().requires_grad_()
        chosen, rejected = log_probs(parameter)
        found = entanglement(chosen, rejected, [parameter])
        pairs = with_norms(
            [chosen, rejected, chosen.detach(), rejected.detach()], found.chosen**0.5, found.rejected**0.5
        )
        (gradient,) = torch.autograd.grad(room.find(name).function(pairs).sum(), parameter)
        after = log_probs(start - 1e-4 * gradient)
        changes[name] = [(a - b).item() for a, b in zip(after, (chosen, rejected), strict=True)]
    assert found.chosen_falls, "this model could not tell the two apart"
    assert not found.rejected_rises
    assert changes["dpo"][0] < 0 > changes["dpo"][1]
    assert changes["gradient-entanglement"][0] > 0 > changes["gradient-entanglement"][1]


def test_its_gradient_is_the_normalised_one() -> None:
    parameter = torch.tensor([0.5, -0.2], dtype=torch.float64, requires_grad=True)
    chosen, rejected = log_probs(parameter)
    won, lost = (torch.autograd.grad(s.sum(), parameter, retain_graph=True)[0] for s in (chosen, rejected))
    a, b = won.norm().item(), lost.norm().item()
    pairs = with_norms([chosen, rejected, chosen.detach(), rejected.detach()], a, b)
    (found,) = torch.autograd.grad(room.gradient_entanglement(pairs, beta=0.1).sum(), parameter)
    expected = -0.1 * 0.5 * math.sqrt(a * b) * (won / a - lost / b)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
