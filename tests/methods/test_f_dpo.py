from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo, objectives
from objective_checks import CHECKS
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {"every_hyperparameter_has_effect": "alpha is read by divergence='alpha' only; tested here"}

loss = objectives()["f-dpo"].function


def f_dpo(pair: Pair, beta: float, divergence: str, alpha: float) -> float:
    def slope(log_ratio: float) -> float:
        if divergence == "reverse-kl":
            return log_ratio
        if divergence == "forward-kl":
            return -math.exp(min(-log_ratio, 80))
        if divergence == "js":
            return -surprise(log_ratio)
        return (1 - math.exp(min(-alpha * log_ratio, 80))) / alpha

    won, lost = implicit_rewards(pair)
    return surprise(beta * (slope(won) - slope(lost)))


def batch(won: list[float], lost: list[float]) -> PairLogProbs:
    w, low = (torch.tensor(x, dtype=torch.float64) for x in (won, lost))
    return PairLogProbs.from_sums(w, low, torch.zeros_like(w), torch.zeros_like(w))


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand_at_ratios_two_and_a_half() -> None:
    """u = 2 and 1/2: slopes log 2 and -log 2; -1/2 and -2; log(2/3) and log(1/3); 2 - sqrt 2 and 2 - 2 sqrt 2."""
    some = batch([math.log(2)], [-math.log(2)])
    close(loss(some, beta=1.0, divergence="reverse-kl"), [math.log(1 + 1 / 4)])
    close(loss(some, beta=1.0, divergence="forward-kl"), [surprise(1.5)])
    close(loss(some, beta=1.0, divergence="js"), [math.log(1 + 1 / 2)])
    close(loss(some, beta=1.0, divergence="alpha", alpha=0.5), [surprise(math.sqrt(2))])


def test_reverse_kl_is_dpo() -> None:
    some = batch([3, -2, 0.5], [1, 4, 0.5])
    torch.testing.assert_close(loss(some, divergence="reverse-kl"), dpo(some))


def test_alpha_runs_from_reverse_to_forward_kl() -> None:
    some = batch([3, -2, 0.5], [1, 4, 0.5])
    torch.testing.assert_close(loss(some, divergence="alpha", alpha=1e-9), dpo(some), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss(some, divergence="alpha", alpha=1.0), loss(some, divergence="forward-kl"))


def test_slopes_are_the_derivatives_of_the_generators() -> None:
    """f of forward KL is -log u, of JS u log u - (u + 1) log((u + 1) / 2), of alpha as in the paper's table 1."""
    alpha = 0.3
    generators = {
        "reverse-kl": lambda u: u * torch.log(u),
        "forward-kl": lambda u: -torch.log(u),
        "js": lambda u: u * torch.log(u) - (u + 1) * torch.log((u + 1) / 2),
        "alpha": lambda u: (u ** (1 - alpha) - (1 - alpha) * u - alpha) / (alpha * (alpha - 1)),
    }
    u = torch.tensor([0.4, 2.5], dtype=torch.float64, requires_grad=True)
    for divergence, generator in generators.items():
        (slope,) = torch.autograd.grad(generator(u).sum(), u)
        expected = surprise(0.7 * (slope[0] - slope[1]).item())
        g = u.detach().log().tolist()
        found = loss(batch(g[:1], g[1:]), beta=0.7, divergence=divergence, alpha=alpha)
        assert found.item() == pytest.approx(expected, rel=1e-12), divergence


@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "alpha"])
@pytest.mark.parametrize("check", sorted(set(CHECKS) - {*EXEMPT, "declares_what_it_is"}))
def test_other_divergences_pass_the_checks(divergence: str, check: str) -> None:
    known = objectives()["f-dpo"]
    told = known.hyperparameters | {"divergence": replace(known.hyperparameters["divergence"], default=divergence)}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, divergence=divergence)))


def test_unusable_words_and_alphas() -> None:
    for bad in ({"divergence": "hellinger"}, {"alpha": 1.2}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(batch([1], [0]), **bad)
