from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide, dpo, objectives
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {"falls_towards_its_target": "pairs that are filtered out have loss 0, whatever their margin; tested here"}

known = objectives()["beta-dpo"]
loss = known.function


def beta_dpo(examples: list[Pair], beta: float, a: float, rho: float, momentum: float) -> list[float]:
    gaps = [w - low for w, low in map(implicit_rewards, examples)]
    n = len(gaps)
    average = math.fsum(gaps) / n
    spread = math.sqrt(math.fsum((g - average) ** 2 for g in gaps) / (n - 1)) if n > 1 else 0.0
    before = examples[0].around.state
    mean = momentum * before.get("mean", 0.0) + (1 - momentum) * average
    std = momentum * before.get("std", 0.0) + (1 - momentum) * spread
    keys = []
    for gap, example in zip(gaps, examples, strict=True):
        u = min(max(example.chosen_known.per_token["noise"][0], 1e-12), 1 - 1e-12)
        weight = -0.5 * ((gap - mean) / std) ** 2 if std > 0 else 0.0
        keys.append(weight - math.log(-math.log(u)))
    number = max(1, math.floor(rho * n + 1e-9))
    kept = sorted(range(n), key=lambda i: -keys[i])[:number]
    used = max(beta * (1 + a * (math.fsum(gaps[i] for i in kept) / number - mean)), 1e-3)
    return [n / number * surprise(used * gaps[i]) if i in kept else 0.0 for i in range(n)]


def batch(gaps: list[float], noise: list[float], mean: float = 0.0, std: float = 0.0) -> PairLogProbs:
    g = torch.tensor(gaps, dtype=torch.float64)
    chosen = LogProbs(g - 50, torch.arange(len(g)), len(g), {"noise": torch.tensor(noise, dtype=torch.float64)})
    flat = LogProbs.from_sums(torch.full_like(g, -50))
    state = {"mean": torch.tensor(mean, dtype=torch.float64), "std": torch.tensor(std, dtype=torch.float64)}
    return PairLogProbs(PairSide(chosen, flat), PairSide(flat, flat), Given(state=state))


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_beta_moves_with_the_kept_gaps_by_hand() -> None:
    """Nothing filtered, gaps 2 and 4, momentum 0.5 from mean 1: M = 2, kept mean 3, b = 0.1 * (1 + 0.6)."""
    found = loss(batch([2, 4], [0.5, 0.5], mean=1, std=1), rho=1.0, momentum=0.5)
    close(found, [surprise(0.16 * 2), surprise(0.16 * 4)])


def test_beta_never_falls_below_a_thousandth() -> None:
    found = loss(batch([-100, -100], [0.5, 0.6], mean=100, std=1), rho=1.0, momentum=0.99)
    close(found, [surprise(-0.1)] * 2)


def test_is_dpo_without_filter_and_slope() -> None:
    some = batch([3, -2, 0.5], [0.1, 0.9, 0.4], mean=0.3, std=2)
    torch.testing.assert_close(loss(some, rho=1.0, a=0.0), dpo(some, beta=0.1))


def test_outliers_are_left_out_and_the_rest_weighs_for_them() -> None:
    found = loss(batch([1, 1.2, 0.9, 1.1, 400], [0.5] * 5, mean=1, std=0.5), momentum=0.999)
    assert found[4] == 0
    assert (found[:4] > 0).all()
    mean, kept = 0.999 * 1 + 0.001 * 404.2 / 5, 4.2 / 4
    used = 0.1 * (1 + 0.6 * (kept - mean))
    close(found.mean(), (sum(surprise(used * g) for g in (1, 1.2, 0.9, 1.1)) / 4))  # type: ignore[arg-type]


def test_the_draw_has_the_probabilities_of_sampling_without_replacement() -> None:
    """One of two pairs with weights 1 and exp(-1/2): drawn by uniform numbers on a grid, shares as the weights."""
    grid = [(i + 0.5) / 200 for i in range(200)]
    first = [[u, v] for u in grid for v in grid]
    picked = 0
    for u, v in first[::7]:
        key = [-math.log(-math.log(u)), -0.5 - math.log(-math.log(v))]
        picked += key[0] > key[1]
    share = 1 / (1 + math.exp(-0.5))
    assert picked / len(first[::7]) == pytest.approx(share, abs=0.01)
    for u, v in first[::4001]:
        # M = 0 and S = 1 held fixed by momentum near 1: gaps 0 and 1 have these weights
        found = loss(batch([0, 1], [u, v], mean=0, std=1), rho=0.5, momentum=1 - 1e-12)
        key = [-math.log(-math.log(u)), -0.5 - math.log(-math.log(v))]
        assert (found > 0).tolist() == [key[0] > key[1], key[0] <= key[1]]


def test_first_step_where_policy_is_reference_keeps_as_many_and_is_log_two() -> None:
    found = loss(batch([0, 0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5]))
    close(found, [0, *[5 / 4 * math.log(2)] * 4])  # equal weights: the smallest noise goes
    assert loss(batch([0], [0.0])).item() == pytest.approx(math.log(2))


def test_update_is_the_running_mean_and_spread() -> None:
    assert known.update is not None
    told = known.update(batch([2, 4], [0.5, 0.5], mean=1, std=1), momentum=0.9)
    assert told["mean"].item() == pytest.approx(0.9 + 0.1 * 3)
    assert told["std"].item() == pytest.approx(0.9 + 0.1 * math.sqrt(2))
    empty = known.update(batch([], [], mean=1, std=2))
    assert (empty["mean"].item(), empty["std"].item()) == (1, 2)


def test_no_gradient_flows_through_beta() -> None:
    g = torch.tensor([2.0, 4.0], dtype=torch.float64, requires_grad=True)
    some = batch([0, 0], [0.5, 0.5], mean=1, std=1)
    owner = torch.arange(2)
    side = LogProbs(g, owner, 2, {"noise": torch.tensor([0.5, 0.5], dtype=torch.float64)})
    flat = LogProbs.from_sums(torch.zeros(2, dtype=torch.float64))
    one = PairLogProbs(PairSide(side, flat), PairSide(flat, flat), some.given)
    (slope,) = torch.autograd.grad(loss(one, rho=1.0, momentum=0.5).sum(), g)
    close(slope, [-0.16 / (1 + math.exp(0.16 * 2)), -0.16 / (1 + math.exp(0.16 * 4))])


def test_a_chosen_response_without_tokens_is_drawn_too() -> None:
    none = LogProbs(
        torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), 1,
        {"noise": torch.zeros(0, dtype=torch.float64)},
    )  # fmt: skip
    flat = LogProbs.from_sums(torch.zeros(1, dtype=torch.float64))
    state = {n: torch.tensor(0.0, dtype=torch.float64) for n in ("mean", "std")}
    found = loss(PairLogProbs(PairSide(none, flat), PairSide(flat, flat), Given(state=state)))
    close(found, [math.log(2)])


def test_shares_beyond_one() -> None:
    for bad in ({"rho": 1.2}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(batch([1], [0.5]), **bad)
