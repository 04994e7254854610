"""Sequential preference optimisation: by hand, its limits, and the optimum that its derivation promises."""

from __future__ import annotations

import math

import pytest
import torch

from boresight.lab import TabularWorld, fit
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide, dpo
from boresight.objectives import spo_sequential as loss
from oracles import Pair, implicit_rewards, surprise, total
from test_objectives_golden import close, margins, numbers


def spo_sequential(pair: Pair, beta: float, alpha: float) -> float:
    won, lost = implicit_rewards(pair)
    kept = 0.0
    for known, sign in ((pair.chosen_known, 1), (pair.rejected_known, -1)):
        stages = known.others
        for stage in range(0, len(stages), 2):
            kept += sign * (total(stages[stage]) - total(stages[stage + 1]))
    return surprise(beta * (won - lost) - alpha * beta * kept)


def staged(h: list[float], *earlier: list[float]) -> PairLogProbs:
    """Pairs with these margins over the reference, and under each further reference these."""

    def side(values: list[float]) -> PairSide:
        chosen = numbers(*values) - 30
        return PairSide(LogProbs.from_sums(chosen), LogProbs.from_sums(chosen.new_full(chosen.shape, -30)))

    base = margins(*h)
    return PairLogProbs(base.policy, base.reference, Given(others=tuple(side(e) for e in earlier)))


def test_by_hand() -> None:
    """The stages gained 7 - 3 = 4 and -1 - 1 = -2, together 2; half of it off the margin leaves odds of 3."""
    pairs = staged([1 + 10 * math.log(3)], [7.0], [3.0], [-1.0], [1.0])
    close(loss(pairs, beta=0.1, alpha=0.5), [math.log(4 / 3)])


def test_without_weight_or_without_gain_it_is_dpo() -> None:
    h = [-3.0, 0.0, 8.0]
    close(loss(staged(h, [5.0] * 3, [1.0] * 3), beta=0.3, alpha=0.0), dpo(margins(*h), beta=0.3))
    close(loss(staged(h, [5.0] * 3, [5.0] * 3), beta=0.3, alpha=2.0), dpo(margins(*h), beta=0.3))


def test_a_pair_against_an_earlier_preference_is_asked_less_of_and_one_along_it_more() -> None:
    along, against, plain = staged([0.0], [4.0], [0.0]), staged([0.0], [-4.0], [0.0]), staged([0.0], [0.0], [0.0])
    assert loss(against) < loss(plain) < loss(along)


@pytest.mark.parametrize("kept", ["first", "before"])
def test_the_optimum_is_the_reference_tilted_by_both_rewards(kept: str) -> None:
    """Unlimited pairs; beta 1. Against pi_0: pi_0 * exp(r2 + alpha * r1); against pi_1 another exp(r1)."""
    rng = torch.Generator().manual_seed(3)
    first, second, logits = (0.7 * torch.randn(3, 4, generator=rng, dtype=torch.float64) for _ in range(3))
    world = TabularWorld(first, logits, rewards={"second": second})
    own = {"beta": 1.0}
    one = fit(world, "dpo", pairs=world.population(), hyperparameters=own, steps=800, lr=0.1)
    two = fit(
        world,
        "spo-sequential",
        pairs=world.population(by="second"),
        hyperparameters=own | {"alpha": 0.4},
        start=one,
        reference=world.reference if kept == "first" else one,
        others=[one, world.reference],
        steps=800,
        lr=0.1,
    )
    weight = 0.4 if kept == "first" else 1.4
    wanted = (world.reference + second + weight * first).log_softmax(-1)
    torch.testing.assert_close(two.logits[0].detach().log_softmax(-1), wanted, atol=1e-4, rtol=0)


def test_unusable() -> None:
    with pytest.raises(ValueError, match="references"):
        loss(staged([0.0], [0.0], [0.0], [0.0]))
    with pytest.raises(ValueError, match="further references"):
        loss(margins(0.0))
    for bad in ({"beta": 0.0}, {"alpha": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(staged([0.0], [0.0], [0.0]), **bad)
