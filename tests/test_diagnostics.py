"""Diagnostics: against closed forms, against what a small step really does, and at their limits."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.diagnostics import distinguishability, entanglement, gradient_ratio, masses
from boresight.objectives import PairLogProbs, dpo

# Gradient entanglement


def test_gradients_of_linear_log_probs_by_hand() -> None:
    """log-probs 3x + y and x - 2y + z^2 at z = 2: gradients (3, 1, 0) and (1, -2, 4)."""
    x, y, z = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 5.0, 2.0))
    found = entanglement(3 * x + y, x - 2 * y + z**2, [x, y, z])
    assert (found.inner, found.chosen, found.rejected) == (1.0, 10.0, 21.0)
    assert (found.chosen_change, found.rejected_change) == (9.0, -20.0)
    assert not found.chosen_falls
    assert not found.rejected_rises
    assert found.cosine == pytest.approx(1 / math.sqrt(210))
    assert x.grad is None


def test_the_mean_over_pairs_and_frozen_parameters() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    frozen = torch.tensor([3.0, 3.0])
    found = entanglement(weight * frozen, 2 * weight, [weight, frozen])
    # means of (3 w1, 3 w2) and (2 w1, 2 w2): gradients (1.5, 1.5) and (1, 1)
    assert (found.inner, found.chosen, found.rejected) == pytest.approx((3.0, 4.5, 2.0))
    assert found.rejected_rises
    assert found.cosine == pytest.approx(1.0)


def tied(parameter: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    table = (features @ parameter).log_softmax(0)
    return table[0], table[1]


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_predicts_what_a_step_of_dpo_does(seed: int) -> None:
    """On a softmax with shared features: the signs of both changes, wherever they are not within rounding of 0."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    features[1] = features[0] + 0.5 * features[1]
    parameter = torch.randn(3, generator=rng, dtype=torch.float64).requires_grad_()
    chosen, rejected = tied(parameter, features)
    found = entanglement(chosen, rejected, [parameter])
    sums = (x[None] for x in (chosen, rejected, chosen.detach(), rejected.detach()))
    (gradient,) = torch.autograd.grad(dpo(PairLogProbs.from_sums(*sums), beta=1.0).sum(), parameter)
    size = 1e-6
    after = tied(parameter.detach() - size * gradient, features)
    # DPO's slope at zero margin is beta / 2 along the difference of the gradients
    for new, old, change in zip(after, (chosen, rejected), (found.chosen_change, found.rejected_change), strict=True):
        assert (new - old).item() == pytest.approx(size / 2 * change, rel=1e-3, abs=1e-10)


def test_log_probs_without_a_gradient_are_refused() -> None:
    weight, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    for chosen, parameters in ((torch.ones(()), [weight]), (weight.sum(), []), (weight.sum(), [other])):
        with pytest.raises(ValueError, match="depend on none of the parameters"):
            entanglement(chosen, chosen, parameters)


def test_orthogonal_gradients_and_none_at_all() -> None:
    weight = torch.zeros(2, requires_grad=True)
    found = entanglement(weight[0], weight[1], [weight])
    assert (found.inner, found.cosine) == (0.0, 0.0)
    flat = entanglement(weight[0] * 0, weight[1], [weight])
    assert (flat.chosen, flat.cosine, flat.chosen_falls) == (0.0, 0.0, False)


# Masses


def test_masses_add_up_to_one() -> None:
    log_probs = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64).log()
    found = masses(log_probs[:, :1], log_probs[:, 1:3])
    torch.testing.assert_close(found.chosen, torch.tensor([0.1, 0.7], dtype=torch.float64))
    torch.testing.assert_close(found.rejected, torch.tensor([0.5, 0.2], dtype=torch.float64))
    torch.testing.assert_close(found.unseen, torch.tensor([0.4, 0.1], dtype=torch.float64))


def test_masses_of_ragged_rows_and_of_none() -> None:
    found = masses(torch.tensor([[math.log(0.5), -math.inf]]), torch.zeros(1, 0))
    assert (found.chosen.item(), found.rejected.item(), found.unseen.item()) == pytest.approx((0.5, 0, 0.5))


def test_masses_of_a_response_given_twice_are_refused_but_rounding_is_not() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.5"):
        masses(torch.tensor([0.75, 0.75]).log(), torch.zeros(0))
    assert masses(torch.tensor([0.5, 0.5]).log() + 1e-7, torch.zeros(0)).unseen.item() == 0
    with pytest.raises(ValueError, match="must have shapes"):
        masses(torch.zeros(2, 3), torch.zeros(3, 3))


def test_gradient_ratio_is_that_of_dpos_gradient_in_the_probabilities() -> None:
    p = torch.tensor([0.3, 0.002], dtype=torch.float64, requires_grad=True)
    fixed = torch.log(torch.tensor([0.3, 0.3], dtype=torch.float64))
    sums = (p[0].log(), p[1].log(), fixed[0], fixed[1])
    (gradient,) = torch.autograd.grad(dpo(PairLogProbs.from_sums(*(s[None] for s in sums))).sum(), p)
    expected = (gradient[1] / gradient[0]).abs().log()
    torch.testing.assert_close(gradient_ratio(p[0].log(), p[1].log()), expected)
    assert gradient_ratio(torch.tensor(-1.0), torch.tensor(-1e4)).item() == pytest.approx(9999)
    with pytest.raises(ValueError, match="one shape"):
        gradient_ratio(torch.zeros(2), torch.zeros(3))


# Distinguishability


def test_distance_of_the_means_by_behaviour() -> None:
    chosen = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 9.0]])
    rejected = torch.tensor([[2.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    found = distinguishability(chosen, rejected, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    assert found.tolist() == pytest.approx([4.0, 9.0])


def test_shifting_all_statements_changes_nothing_and_scaling_scales() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(6, 4, generator=rng), torch.randn(5, 4, generator=rng)
    places = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([1, 0, 1, 0, 1])
    base = distinguishability(one, other, *places)
    torch.testing.assert_close(distinguishability(one + 7, other + 7, *places), base, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(distinguishability(3 * one, 3 * other, *places), 3 * base)


def test_a_behaviour_on_one_side_only_is_not_a_number() -> None:
    found = distinguishability(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]))
    assert found.isnan().all()
    none, nobody = torch.ones(0, 2), torch.zeros(0, dtype=torch.int64)
    assert distinguishability(none, none, nobody, nobody).shape == (0,)


def test_shapes_that_disagree_are_refused() -> None:
    none = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="must have shapes"):
        distinguishability(torch.ones(1, 2), torch.ones(1, 3), none, none)
    with pytest.raises(ValueError, match="one behaviour for each statement"):
        distinguishability(torch.ones(2, 2), torch.ones(1, 2), none, none)


def test_this_floor_imports_torch_only() -> None:
    code = (
        "import sys; import boresight.diagnostics;"
        "print([m for m in ('transformers', 'datasets', 'peft', 'boresight.objectives') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
