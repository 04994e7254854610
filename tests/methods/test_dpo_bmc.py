"""DPO-BMC: weighted sums by hand, its limits, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as room
from boresight.objectives import LogProbs, PairLogProbs, PairSide
from oracles import Pair, surprise


def dpo_bmc(pair: Pair, beta: float, delta: float, form: str) -> float:
    def gain(policy: list[float], reference: list[float], differs: list[bool]) -> float:
        total = 0.0
        for log_p, log_ref, other in zip(policy, reference, differs, strict=True):
            own = 1 + min(math.exp(min(-log_p, 700)), delta) if other else 1.0
            theirs = 1 + min(math.exp(min(-log_ref, 700)), delta) if other and form == "code" else own
            total += own * log_p - theirs * log_ref
        return total

    won = gain(pair.chosen, pair.ref_chosen, pair.chosen_known.per_token["difference"])
    lost = gain(pair.rejected, pair.ref_rejected, pair.rejected_known.per_token["difference"])
    return surprise(beta * (won - lost))


def one_pair(
    chosen: list[float], rejected: list[float], ref_chosen: list[float], ref_rejected: list[float], differs: list[bool]
) -> tuple[PairLogProbs, Tensor, Tensor]:
    """One pair, the same tokens of both sides marked as different; and the leaves of the policy."""
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (chosen, rejected)]
    policy = PairSide(*(LogProbs.from_sequences([x], difference=[torch.tensor(differs)]) for x in leaves))
    fixed = [LogProbs.from_sequences([torch.tensor(v, dtype=torch.float64)]) for v in (ref_chosen, ref_rejected)]
    return PairLogProbs(policy, PairSide(*fixed)), leaves[0], leaves[1]


LN2, LN4 = math.log(2), math.log(4)


def test_by_hand() -> None:
    """Second token differs. Policy's p are 1/2 (chosen) and 1/4 (rejected), the reference's 1/4 and 1/2; delta = 3.

    Weights of the policy: 1 + 2 = 3 and 1 + min(4, 3) = 4; of the reference 4 and 3. In units of log 2:
    code: chosen 3 * -1 - 4 * -2 = 5, rejected 4 * -2 - 3 * -1 = -5; paper: 3 * (-1 + 2) = 3, 4 * (-2 + 1) = -4.
    The first token is the same in both and under both models.
    """
    pairs, _, _ = one_pair([-1.0, -LN2], [-1.0, -LN4], [-1.0, -LN4], [-1.0, -LN2], [False, True])
    for form, margin in (("code", 10), ("paper", 7)):
        expected = math.log1p(math.exp(-0.5 * margin * LN2))
        assert room.dpo_bmc(pairs, beta=0.5, delta=3.0, form=form).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_without_differences_or_without_weight_it_is_dpo(form: str) -> None:
    sides = [-1.0, -0.2, -3.0], [-2.0, -0.5, -0.1], [-1.5, -0.3, -2.0], [-1.0, -1.0, -1.0]
    same, _, _ = one_pair(*sides, [False] * 3)
    marked, _, _ = one_pair(*sides, [True, False, True])
    expected = room.dpo(same, beta=0.3)
    torch.testing.assert_close(room.dpo_bmc(same, beta=0.3, form=form), expected)
    torch.testing.assert_close(room.dpo_bmc(marked, beta=0.3, delta=0.0, form=form), expected)


def test_all_tokens_alike_unsure_double_the_weight() -> None:
    """Where every token differs and has a p so small that delta cuts it, it is DPO with beta * (1 + delta)."""
    sides = [-9.0, -8.0], [-7.0, -9.5], [-8.5, -8.0], [-9.0, -7.0]
    pairs, _, _ = one_pair(*sides, [True, True])
    for form in ("code", "paper"):
        found = room.dpo_bmc(pairs, beta=0.1, delta=1.0, form=form)
        torch.testing.assert_close(found, room.dpo(pairs, beta=0.2))


def test_a_decisive_token_gets_the_larger_gradient_and_weights_none() -> None:
    """dL/dlogp of a token is -beta * sigmoid(-beta * h) * its weight: the weights are constants."""
    pairs, chosen, rejected = one_pair([-0.5, -0.5], [-2.0, -2.0], [-0.6, -0.4], [-1.0, -2.0], [False, True])
    losses = room.dpo_bmc(pairs, beta=0.2, delta=1.5)
    won, lost = torch.autograd.grad(losses.sum(), [chosen, rejected])
    slope = 0.2 * -math.expm1(-losses.item())  # sigmoid(-h) = 1 - exp(log sigmoid(h))
    unsure = min(math.exp(0.5), 1.5)
    torch.testing.assert_close(won, torch.tensor([-slope, -slope * (1 + unsure)], dtype=torch.float64))
    torch.testing.assert_close(lost, torch.tensor([slope, slope * 2.5], dtype=torch.float64))


def test_the_two_forms_agree_only_where_policy_is_reference() -> None:
    at_start, _, _ = one_pair([-0.5, -2.0], [-1.0, -0.3], [-0.5, -2.0], [-1.0, -0.3], [True, True])
    for form in ("code", "paper"):
        assert room.dpo_bmc(at_start, form=form).item() == pytest.approx(LN2)
    later, _, _ = one_pair([-0.3, -2.0], [-1.0, -0.3], [-0.6, -2.0], [-1.0, -0.3], [True, True])
    assert room.dpo_bmc(later, form="code").item() != pytest.approx(room.dpo_bmc(later, form="paper").item(), rel=1e-6)


def test_unusable() -> None:
    pairs, _, _ = one_pair([-0.5], [-1.0], [-0.5], [-1.0], [True])
    with pytest.raises(ValueError, match="form must be 'code' or 'paper'"):
        room.dpo_bmc(pairs, form="both")
    plain = PairLogProbs.from_sums(*(torch.zeros(1) for _ in range(4)))
    with pytest.raises(ValueError, match="needs difference of each token"):
        room.dpo_bmc(plain)
