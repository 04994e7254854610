"""Ranking accuracy: against plain rewrites, against what DPO itself gives, and at the limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.diagnostics import (
    difficulty,
    ideal_margin,
    ranked_by_loss,
    ranking,
    ranking_accuracy,
    turning_loss,
)
from boresight.lab import TabularWorld
from boresight.objectives import PairLogProbs, dpo


def draw(seed: int, pairs: int = 12, spread: float = 10.0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [-spread * torch.rand(pairs, generator=rng, dtype=torch.float64) for _ in range(4)]


def test_three_pairs_by_hand() -> None:
    chosen, rejected = torch.tensor([-1.0, -5.0, -2.0]), torch.tensor([-2.0, -3.0, -2.0])
    assert ranking_accuracy(chosen, rejected).item() == pytest.approx(1 / 3)
    # per token: -1 > -2, -0.5 > -1, -2 > -4
    lengths = torch.tensor([1, 10, 1]), torch.tensor([1, 3, 1])
    assert ranking_accuracy(chosen, rejected, lengths).item() == pytest.approx(2 / 3)
    assert ranking_accuracy(chosen, rejected, weight=torch.tensor([3.0, 1.0, 0.0])).item() == pytest.approx(0.75)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_every_figure_against_a_rewrite(seed: int) -> None:
    won, lost, won_before, lost_before = draw(seed)
    share = torch.rand(12, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    beta = 0.3
    told = ranking(won, lost, won_before, lost_before, share=share, beta=beta)
    rows = list(zip(*(x.tolist() for x in (won, lost, won_before, lost_before, share)), strict=True))
    right = [r[0] > r[1] for r in rows]
    before = [r[2] > r[3] for r in rows]
    ideal = [(r[2] - r[3]) + math.log(r[4] / (1 - r[4])) / beta > 0 for r in rows]
    assert told.model.item() == pytest.approx(sum(right) / 12)
    assert told.reference.item() == pytest.approx(sum(before) / 12)
    assert told.ideal is not None
    assert told.gap is not None
    assert told.ideal.item() == pytest.approx(sum(ideal) / 12)
    assert told.gap.item() == pytest.approx((sum(ideal) - sum(right)) / 12)
    turned = [r for r, b in zip(right, before, strict=True) if not b]
    lost_ones = [not r for r, b in zip(right, before, strict=True) if b]
    for found, rewritten in ((told.turned, turned), (told.lost, lost_ones)):
        if rewritten:
            assert found.item() == pytest.approx(sum(rewritten) / len(rewritten))
        else:
            assert math.isnan(found.item())


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 1.0, 5.0]))
def test_the_loss_of_dpo_tells_the_ranking(seed: int, beta: float) -> None:
    won, lost, won_before, lost_before = draw(seed)
    loss = dpo(PairLogProbs.from_sums(won, lost, won_before, lost_before), beta=beta)
    hard = difficulty(won_before, lost_before)
    assert torch.equal(ranked_by_loss(loss, hard, beta), won > lost)


def test_the_turning_loss_in_closed_form() -> None:
    hard = torch.tensor([0.0, 10.0, -10.0, 5000.0, -5000.0], dtype=torch.float64)
    found = turning_loss(hard, 0.1).tolist()
    assert found[0] == pytest.approx(math.log(2))
    assert found[1] == pytest.approx(math.log(1 + math.exp(-1)))
    assert found[2] == pytest.approx(math.log(1 + math.exp(1)))
    assert found[3] == pytest.approx(math.exp(-500), rel=1e-9)
    assert found[4] == pytest.approx(500.0)


def test_the_ideal_policy_is_the_optimum_of_dpo() -> None:
    """Tilting the reference by exp(r / beta), with Bradley-Terry annotators of rewards r, gives the ideal margins."""
    world, beta = TabularWorld.random(3, 4, seed=0), 0.5
    best = world.tilted(beta)
    prompt, first, second = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(4)).unbind(1)
    share = world.preference(prompt, first, second)
    margin = ideal_margin(world.reference[prompt, first], world.reference[prompt, second], share, beta)
    torch.testing.assert_close(margin, best[prompt, first] - best[prompt, second])


def test_all_annotators_agree_or_none_does() -> None:
    reference = torch.tensor([-30.0, -30.0, -30.0]), torch.tensor([-1.0, -1.0, -1.0])
    margin = ideal_margin(*reference, torch.tensor([1.0, 0.5, 0.0]), 0.1)
    assert margin.tolist() == [math.inf, -29.0, -math.inf]


def test_at_the_limits() -> None:
    none = torch.zeros(0)
    assert math.isnan(ranking_accuracy(none, none).item())
    alike = torch.zeros(2)
    assert ranking_accuracy(alike, alike).item() == 0.0
    impossible = torch.tensor([-math.inf, -1.0, -math.inf])
    assert ranking_accuracy(impossible, torch.tensor([-math.inf, -math.inf, -1.0])).item() == pytest.approx(1 / 3)
    many = ranking_accuracy(torch.zeros(2, 3, 4), -torch.ones(2, 3, 4))
    assert many.shape == (2, 3)
    assert (many == 1).all()
    far = torch.tensor([-1e30]), torch.tensor([-1e29])
    assert ranking(*far, *far).model.item() == 0.0


def test_what_cannot_be_used_is_refused() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ValueError, match="one shape"):
        ranking_accuracy(one, two)
    with pytest.raises(ValueError, match="one shape"):
        ranking_accuracy(torch.tensor(0.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="nan"):
        ranking_accuracy(one, torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="lengths"):
        ranking_accuracy(one, one, (one, one))
    with pytest.raises(ValueError, match="weights"):
        ranking_accuracy(one, one, weight=-torch.ones(1))
    with pytest.raises(ValueError, match="share"):
        ideal_margin(one, one, torch.tensor([1.5]), 0.1)
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="beta"):
            turning_loss(one, beta)
        with pytest.raises(ValueError, match="beta"):
            ideal_margin(one, one, one, beta)
    with pytest.raises(ValueError, match="not both"):
        ranking(one, one, one, one, lengths=(one + 1, one + 1), share=one)
    with pytest.raises(ValueError, match="policy and reference"):
        ranking(one, one, two, two)
    with pytest.raises(ValueError, match="loss and difficulty"):
        ranked_by_loss(one, two, 0.1)
