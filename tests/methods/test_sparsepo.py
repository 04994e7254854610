"""SparsePO: masked sums by hand for each kind of mask, its limit, what is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Linear

import boresight.objectives as room
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide
from oracles import Known, Pair, average, surprise

EXEMPT = {
    "one_loss_per_example": "the checks' empty batch carries no heads; test_one_loss_for_each_pair",
}


def sparsepo(pair: Pair, beta: float, masks: str, l1: float) -> float:
    def mask(name: str, known: Known) -> list[float]:
        head = pair.around.heads[name]
        weight, bias = head.weight.double()[0].tolist(), head.bias.item()
        return [
            max(0.0, bias + math.fsum(w * x for w, x in zip(weight, hidden, strict=True)))
            for hidden in known.per_token["reference_hidden"]
        ]

    def rescaled(known: Known) -> list[float]:
        means = [average(hidden) for hidden in known.per_token["reference_hidden"]]
        low, high = min(means), max(means)
        return [(m - low) / (high - low) if high > low else 1.0 for m in means]

    def side(policy: list[float], reference: list[float], known: Known) -> tuple[float, float]:
        if masks == "activations":
            on_reward = on_kl = rescaled(known)
        elif masks == "common":
            on_reward = on_kl = mask("mask", known)
        else:
            on_reward, on_kl = mask("reward_mask", known), mask("kl_mask", known)
        reward = math.fsum(m * (p - r) for m, p, r in zip(on_reward, policy, reference, strict=True))
        divergence = math.fsum(m * k for m, k in zip(on_kl, known.per_token["reference_kl"], strict=True))
        size = math.fsum(on_reward) + (math.fsum(on_kl) if masks == "independent" else 0.0)
        return reward + divergence, size

    won, large = side(pair.chosen, pair.ref_chosen, pair.chosen_known)
    lost, small = side(pair.rejected, pair.ref_rejected, pair.rejected_known)
    return surprise(beta * (won - lost)) + (0.0 if masks == "activations" else l1 * (large + small))


def head(weight: list[float], bias: float) -> Linear:
    made = Linear(len(weight), 1, dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([weight]))
        made.bias.fill_(bias)
    return made


def one_pair(heads: dict[str, Linear]) -> tuple[PairLogProbs, list[Tensor]]:
    """Chosen: log-ratios 1 and 4, KL 2 and 3, hidden (1, 0) and (0, 3). Rejected: -2, 5 and (2, 2)."""

    def side(ratio: list[float], kl: list[float], hidden: list[list[float]]) -> tuple[Tensor, LogProbs]:
        leaf = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
        more = {"reference_kl": [torch.tensor(kl).double()], "reference_hidden": [torch.tensor(hidden).double()]}
        return leaf, LogProbs.from_sequences([leaf], **more)

    won, chosen = side([1.0, 4.0], [2.0, 3.0], [[1.0, 0.0], [0.0, 3.0]])
    lost, rejected = side([-2.0], [5.0], [[2.0, 2.0]])
    zero = PairSide(*(LogProbs.from_sequences([torch.zeros_like(x)]) for x in (won, lost)))
    return PairLogProbs(PairSide(chosen, rejected), zero, Given(heads=heads)), [won, lost]


def test_common_mask_by_hand() -> None:
    """w = (1, -1), b = 1: masks relu(2) = 2, relu(-2) = 0, relu(1) = 1.

    U: 2 * 1 = 2 and -2; D: 2 * 2 = 4 and 5. Margin 2 + 2 - (5 - 4) = 3; masks add up to 3.
    """
    pairs, _ = one_pair({"mask": head([1, -1], 1)})
    found = room.sparsepo(pairs, beta=0.5, l1=0.01)
    assert found.item() == pytest.approx(math.log1p(math.exp(-1.5)) + 0.03, rel=1e-12)


def test_independent_masks_by_hand() -> None:
    """Reward mask as above; KL mask with w = (0, 1), b = -1: 0, 2, 1. D: 6 and 5. Margin 4 - (5 - 6) = 5, sum 6."""
    pairs, _ = one_pair({"reward_mask": head([1, -1], 1), "kl_mask": head([0, 1], -1)})
    found = room.sparsepo(pairs, beta=0.5, masks="independent", l1=0.01)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2.5)) + 0.06, rel=1e-12)


def test_masks_from_activations_by_hand() -> None:
    """Means 1/2 and 3/2: masks 0 and 1; alone: 1. U: 4 and -2; D: 3 and 5. Margin 6 - (5 - 3) = 4, no l1."""
    pairs, _ = one_pair({})
    found = room.sparsepo(pairs, beta=0.5, masks="activations", l1=1.0)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-12)


def test_masks_of_one_without_kl_are_dpo() -> None:
    pairs, _ = one_pair({"mask": head([0, 0], 1)})
    for side in (pairs.policy.chosen, pairs.policy.rejected):
        side.token("reference_kl").zero_()
    torch.testing.assert_close(room.sparsepo(pairs, beta=0.3, l1=0.0), room.dpo(pairs, beta=0.3))


def test_kl_of_the_chosen_adds_to_the_margin_as_in_tdpo() -> None:
    """log sigmoid(beta * (u - (KL_rejected - KL_chosen))): the sign is easily turned over."""
    pairs, _ = one_pair({"mask": head([0, 0], 1)})
    base = room.sparsepo(pairs, l1=0.0)
    pairs.policy.chosen.token("reference_kl").mul_(2)
    assert (room.sparsepo(pairs, l1=0.0) < base).all()


def test_gradients_reach_policy_and_mask_but_not_the_reference() -> None:
    mask = head([1, -1], 1)
    pairs, leaves = one_pair({"mask": mask})
    hidden = pairs.policy.chosen.token("reference_hidden").requires_grad_()
    losses = room.sparsepo(pairs, beta=0.5, l1=0.01)
    won, lost, weight, to_hidden = torch.autograd.grad(losses.sum(), [*leaves, mask.weight, hidden], allow_unused=True)
    slope = 0.5 / (1 + math.exp(1.5))
    torch.testing.assert_close(won, torch.tensor([-2 * slope, 0.0], dtype=torch.float64))
    torch.testing.assert_close(lost, torch.tensor([slope], dtype=torch.float64))
    # d margin / d mask: 1 + 2 on the chosen's first token, -(-2) - 5 on the rejected's; each mask also costs l1
    expected = (-slope * 3 + 0.01) * torch.tensor([[1.0, 0.0]]) + (-slope * -3 + 0.01) * torch.tensor([[2.0, 2.0]])
    torch.testing.assert_close(weight, expected.double())
    assert to_hidden is None


def test_l1_alone_empties_the_masks() -> None:
    """Policy = reference and no KL: nothing but the penalty is left, and its gradient lowers every open mask."""
    mask = head([0.5, 0.5], 0.1)
    pairs, _ = one_pair({"mask": mask})
    for side in (pairs.policy.chosen, pairs.policy.rejected):
        side.token("reference_kl").zero_()
    flat = PairLogProbs(pairs.policy, pairs.policy, pairs.given)
    (bias,) = torch.autograd.grad(room.sparsepo(flat, l1=0.2).sum(), mask.bias)
    assert bias.item() == pytest.approx(0.2 * 3)


def test_heads_are_those_that_the_masks_need() -> None:
    heads = room.find("sparsepo").heads
    assert heads is not None
    assert set(heads(4)) == {"mask"}
    assert set(heads(4, masks="independent", beta=0.1)) == {"reward_mask", "kl_mask"}
    assert heads(4, masks="activations") == {}
    assert heads(4)["mask"](torch.zeros(7, 4)).shape == (7, 1)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_loss_for_each_pair(count: int, dtype: torch.dtype) -> None:
    values, owner = torch.ones(2 * count, dtype=dtype), torch.arange(count).repeat(2)
    more = {
        "reference_kl": torch.ones(2 * count, dtype=dtype),
        "reference_hidden": torch.ones(2 * count, 2, dtype=dtype),
    }
    side = LogProbs(values, owner, count, more)
    given = Given(heads={"mask": Linear(2, 1).to(dtype)})
    found = room.sparsepo(PairLogProbs(PairSide(side, side), PairSide(side, side), given))
    assert found.shape == (count,)
    assert found.dtype == dtype


def test_unusable() -> None:
    pairs, _ = one_pair({"mask": head([0, 0], 1)})
    with pytest.raises(ValueError, match="masks must be one of common"):
        room.sparsepo(pairs, masks="some")
    with pytest.raises(ValueError, match="the head 'reward_mask'"):
        room.sparsepo(pairs, masks="independent")
