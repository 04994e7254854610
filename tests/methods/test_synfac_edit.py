"""SALT: likelihood and unlikelihood by hand, the limit of likelihood alone, certainty."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as room
from boresight.objectives import LogProbs, PairLogProbs, PairSide
from oracles import Pair, average

EXEMPT = {
    "gradient_signs": "rejected_shared > 0 raises, as it should, tokens of the rejected that both responses have; "
    "test_each_kind_of_token_goes_its_own_way",
}


def synfac_edit(pair: Pair, shared: float, edited: float, dropped: float, rejected_shared: float) -> float:
    new, old = pair.chosen_known.per_token["difference"], pair.rejected_known.per_token["difference"]
    loss = -average([(edited if d else shared) * t for t, d in zip(pair.chosen, new, strict=True)])
    gone = [math.log(-math.expm1(min(t, -1e-7))) for t, d in zip(pair.rejected, old, strict=True) if d]
    both = [t for t, d in zip(pair.rejected, old, strict=True) if not d]
    loss -= dropped * average(gone) if gone else 0.0
    loss -= rejected_shared * average(both) if both else 0.0
    return loss


def one_pair(
    chosen: list[float], new: list[bool], rejected: list[float], gone: list[bool], dtype: torch.dtype = torch.float64
) -> tuple[PairLogProbs, Tensor, Tensor]:
    leaves = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (chosen, rejected)]
    marks = [torch.tensor(new), torch.tensor(gone)]
    sides = [LogProbs.from_sequences([x], difference=[m]) for x, m in zip(leaves, marks, strict=True)]
    return PairLogProbs(PairSide(*sides)), leaves[0], leaves[1]


def test_by_hand() -> None:
    """Chosen: shared p = 1/2, new p = 1/4. Rejected: shared p = 1/2, gone p = 3/4, so 1 - p = 1/4. In log 2: ..."""
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    pairs, _, _ = one_pair([half, quarter], [False, True], [half, math.log(3 / 4)], [False, True])
    found = room.synfac_edit(pairs, shared=1, edited=3, dropped=0.5, rejected_shared=0.25)
    # -(1 * -1 + 3 * -2) / 2 + 0.5 * 2 + 0.25 * 1
    assert found.item() == pytest.approx((3.5 + 1 + 0.25) * math.log(2), rel=1e-12)


def test_with_one_weight_and_no_unlikelihood_it_is_fine_tuning_on_the_chosen() -> None:
    pairs, _, _ = one_pair([-1.0, -2.0, -0.5], [True, False, True], [-1.0, -0.1], [True, False])
    found = room.synfac_edit(pairs, shared=1, edited=1, dropped=0)
    torch.testing.assert_close(found, -pairs.policy.chosen.mean())


def test_each_kind_of_token_goes_its_own_way() -> None:
    """Slopes: -w / n on the chosen; p / (1 - p) on what is gone; none, or -weight, on what the rejected shares."""
    pairs, chosen, rejected = one_pair([-1.0, -2.0], [False, True], [-1.0, math.log(0.8)], [False, True])
    losses = room.synfac_edit(pairs, shared=1, edited=1.5, dropped=0.1)
    won, lost = torch.autograd.grad(losses.sum(), [chosen, rejected])
    torch.testing.assert_close(won, torch.tensor([-0.5, -0.75], dtype=torch.float64))
    torch.testing.assert_close(lost, torch.tensor([0.0, 0.1 * 4], dtype=torch.float64))
    losses = room.synfac_edit(pairs, dropped=0.1, rejected_shared=0.3)
    (lost,) = torch.autograd.grad(losses.sum(), [rejected])
    torch.testing.assert_close(lost, torch.tensor([-0.3, 0.4], dtype=torch.float64))


def test_pitfall_17_a_certain_false_token_has_a_finite_loss() -> None:
    """log(1 - p) is minus infinity at p = 1, and p rounds to 1 in fp32 long before."""
    for dtype in (torch.float32, torch.float64):
        for log_p in (0.0, -1e-30, -1e-8, -1e-4):
            pairs, _, rejected = one_pair([-1.0], [True], [log_p], [True], dtype)
            losses = room.synfac_edit(pairs, dropped=1.0)
            assert losses.isfinite().all()
            assert torch.autograd.grad(losses.sum(), rejected)[0].isfinite().all()


def test_pitfall_17_digits_near_certainty() -> None:
    """At p = 1 - 1e-6 the loss is 6 log 10; 1 - exp(log p) in fp32 has lost six of its digits there."""
    near = torch.tensor([math.log1p(-1e-6)], dtype=torch.float32)
    mark = [torch.tensor([True])]
    sides = LogProbs.from_sequences([torch.zeros(1)], difference=mark), LogProbs.from_sequences([near], difference=mark)
    found = room.synfac_edit(PairLogProbs(PairSide(*sides)), dropped=1.0)
    assert found.item() == pytest.approx(6 * math.log(10), rel=1e-6)


def test_the_loss_pushes_a_logit_by_at_most_p() -> None:
    """Through the softmax the steep slope in log p is harmless: d loss / d logit = p for unlikelihood."""
    for logit in (0.0, 5.0, 12.0):
        logits = torch.tensor([logit, 0.0], dtype=torch.float64, requires_grad=True)
        log_p = logits.log_softmax(0)[:1]
        mark = [torch.tensor([True])]
        chosen = LogProbs.from_sequences([torch.zeros(1, dtype=torch.float64)], difference=mark)
        pairs = PairLogProbs(PairSide(chosen, LogProbs.from_sequences([log_p], difference=mark)))
        (slope,) = torch.autograd.grad(room.synfac_edit(pairs, dropped=1.0).sum(), logits)
        p = log_p.exp().item()
        assert slope.tolist() == pytest.approx([p, -p], rel=1e-9)


def test_responses_without_any_such_token_add_nothing() -> None:
    pairs, _, _ = one_pair([-1.0], [False], [-2.0], [False])
    assert room.synfac_edit(pairs, shared=2, dropped=5).item() == pytest.approx(2.0)
