"""Differential information: laws by hand, their limits, and DPO's optimum on pairs drawn so."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.diagnostics import information, information_entropy, rejected_law
from boresight.lab import TabularWorld, fit
from boresight.lab.drawn import Pairs


def logs(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


def test_by_hand():
    # ratios 2, 1, 1/2 of 3.5
    before, after = logs(0.25, 0.25, 0.5), logs(0.5, 0.25, 0.25)
    expected = torch.tensor([4 / 7, 2 / 7, 1 / 7], dtype=torch.float64)
    torch.testing.assert_close(information(before, after).exp(), expected)
    entropy = -sum(p * math.log(p) for p in (4 / 7, 2 / 7, 1 / 7))
    assert information_entropy(before, after).item() == pytest.approx(entropy, rel=1e-12)
    # ref * (ref / target)^2: 1/4 * 1/4, 1/4 * 1, 1/2 * 4 of 37/16
    law = rejected_law(before, after, 2.0).exp()
    torch.testing.assert_close(law, torch.tensor([1 / 37, 4 / 37, 32 / 37], dtype=torch.float64))


def test_nothing_to_learn():
    same = logs(0.7, 0.2, 0.1)
    assert information_entropy(same, same).item() == pytest.approx(math.log(3), rel=1e-12)
    torch.testing.assert_close(rejected_law(same, same, 0.3), same)


def test_one_response_carries_it_all():
    before, after = torch.zeros(4), torch.tensor([60.0, 0, 0, 0])
    assert information_entropy(before, after).item() == pytest.approx(0, abs=1e-20)


def test_levels_do_not_matter_and_rows_are_apart():
    rng = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(information(before + 3, after - 1), information(before, after))
    torch.testing.assert_close(rejected_law(before + 3, after - 1, 0.5), rejected_law(before, after, 0.5))
    torch.testing.assert_close(information_entropy(before, after)[2], information_entropy(before[2], after[2]))
    there, back = information(before, after), information(after, before)
    torch.testing.assert_close((there + back).diff(), torch.zeros(5, 3, dtype=torch.float64))


def test_the_optimum_of_dpo_is_the_target():
    rng = torch.Generator().manual_seed(1)
    reference, target = torch.randn(2, 1, 4, generator=rng, dtype=torch.float64).log_softmax(-1)
    world = TabularWorld(torch.zeros_like(reference), reference)
    law = rejected_law(reference, target, 0.5)
    first, second = torch.cartesian_prod(torch.arange(4), torch.arange(4)).unbind(1)
    weight = reference.exp()[0, first] * law.exp()[0, second]
    pairs = Pairs.of(torch.zeros_like(first), first, second, weight)
    policy = fit(world, "dpo", pairs=pairs, hyperparameters={"beta": 0.5}, steps=400)
    torch.testing.assert_close(policy.log_probs()[0], target, atol=1e-4, rtol=0)


def test_what_cannot_be_used_is_refused():
    two, three = logs(0.5, 0.5), logs(0.2, 0.3, 0.5)
    for call in (information, information_entropy):
        with pytest.raises(ValueError, match="shape"):
            call(two, three)
        with pytest.raises(ValueError, match="finite"):
            call(two, logs(1.0, 0.0))
    with pytest.raises(ValueError, match="shape"):
        rejected_law(torch.tensor(0.0), torch.tensor(0.0), 1.0)
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="beta"):
            rejected_law(two, two, beta)
