"""SPAC: the rewrite, values by hand, DPO where the pessimism cancels, and the bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import Given, ListLogProbs, LogProbs, PairLogProbs, PairSide
from oracles import Pair, implicit_rewards, surprise, total

EXEMPT = {
    "gradient_signs": "the rejected response is covered by the data, so pessimism holds it up; own test below",
    "every_hyperparameter_has_effect": "no response of the check is as far from the reference as bound; own test below",
}


def spac(pair: Pair, eta: float, lam: float, pessimism: float, bound: float) -> float:
    def cut(x: float) -> float:
        return max(-bound, min(bound, x))

    won, lost = implicit_rewards(pair)
    own = [cut(total(p) - total(r)) for p, r in pair.around.samples]
    critic = sum(own) / len(own) - (cut(won) + cut(lost)) / 2
    return lam * surprise((won - lost) / eta) + pessimism * critic / eta


def batch(won: float, lost: float, own: list[float]) -> tuple[PairLogProbs, Tensor]:
    """A pair with these log-ratios and samples with theirs; the leaf is all of them in this order."""
    leaf = torch.tensor([won, lost, *own], dtype=torch.float64, requires_grad=True)
    fixed = LogProbs.from_sums(torch.full((1,), -8, dtype=torch.float64))
    samples = ListLogProbs(
        LogProbs.from_sums(leaf[2:] - 9),
        LogProbs.from_sums(torch.full((len(own),), -9, dtype=torch.float64)),
        list_of=torch.zeros(len(own), dtype=torch.int64),
        count=1,
    )
    policy = PairSide(LogProbs.from_sums(leaf[:1] - 8), LogProbs.from_sums(leaf[1:2] - 8))
    return PairLogProbs(policy, PairSide(fixed, fixed), Given(samples=samples)), leaf


def test_by_hand():
    # h / eta = 1; samples mean(-2, 4) = 1, data mean(3, 1) = 2; (1 - 2) / 2
    found = o.spac(batch(3, 1, [-2, 4])[0], eta=2, lam=3, pessimism=0.5).item()
    assert found == pytest.approx(3 * math.log(1 + math.exp(-1)) - 0.25, rel=1e-12)


@pytest.mark.parametrize("h", [-20.0, 0.0, 3.0])
def test_without_pessimism_it_is_dpo(h: float):
    made, _ = batch(h, 0, [5, -3])
    torch.testing.assert_close(o.spac(made, eta=5, lam=2, pessimism=0), 2 * o.dpo(made, beta=0.2))


def test_samples_that_are_the_data_cancel():
    made, leaf = batch(1, -2, [1, -2])
    torch.testing.assert_close(o.spac(made, eta=5, lam=1), o.dpo(made, beta=0.2))
    (found,) = torch.autograd.grad(o.spac(made, eta=5, lam=0).sum(), leaf)
    torch.testing.assert_close(found, torch.tensor([-0.1, -0.1, 0.1, 0.1], dtype=torch.float64))


def test_gradient_signs():
    """Chosen always rises, samples always fall; rejected falls while the pair is not told apart, then is held up."""
    for h, sign in ((-30.0, 1), (0.0, 1), (40.0, -1)):
        made, leaf = batch(h / 8, -h / 8, [1.0, -1.0])
        (found,) = torch.autograd.grad(o.spac(made, eta=1.0, lam=4.0).sum(), leaf)
        assert found[0] < 0
        assert (found[2:] > 0).all()
        assert found[1] * sign > 0


def test_the_critic_stops_at_its_bound():
    made, leaf = batch(0, 0, [-11, 11, -9])
    (found,) = torch.autograd.grad(o.spac(made, eta=1, bound=10).sum(), leaf)
    assert found[2:].tolist() == [0, 0, pytest.approx(1 / 3)]
    far = [o.spac(batch(0, 0, [g])[0], eta=1, bound=10).item() for g in (-10.0, -1e4)]
    assert far[0] == far[1]
