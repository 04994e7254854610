"""Rewards over features against closed forms, an independent fit, and planted weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from boresight.data.example import Example, Pair, Response
from boresight.errors import InputError
from boresight.rewards.features import FeatureNetwork, FeatureReward


def table(values: np.ndarray, column: int):
    """A feature that looks its value up: responses are numbers of rows."""
    return lambda prompts, responses: [float(values[int(r), column]) for r in responses]


def drawn(rng: np.random.Generator, count: int, weights: list[float], scale: float = 1.0):
    """`count` pairs whose verdicts follow Bradley-Terry with these weights of standard normal features."""
    values = rng.normal(size=(2 * count, len(weights))) * scale
    reward = values @ np.array(weights)
    made = []
    for k in range(count):
        a, b = 2 * k, 2 * k + 1
        first = rng.random() < 1 / (1 + math.exp(reward[b] - reward[a]))
        made.append(Example(f"q{k}", (Response(str(a)), Response(str(b))), (Pair(*((0, 1) if first else (1, 0))),)))
    return values, made


def test_one_binary_feature_has_the_logit_of_its_share():
    # The response with the feature is chosen in 30 of 40 pairs: weight log 3 in raw units; its deviation is 1/2.
    values = np.array([[1.0], [0.0]])
    sides = (Response("0"), Response("1"))
    made = [Example(f"q{k}", sides, (Pair(0, 1) if k < 30 else Pair(1, 0),)) for k in range(40)]
    reward = FeatureReward([table(values, 0)], ["has it"]).fit(made, penalties=[1e8])
    assert reward.weights["has it"] == pytest.approx(math.log(3) * 0.5, abs=1e-4)
    assert reward.margin(["q"], ["0"], ["1"])[0] == pytest.approx(math.log(3), abs=1e-4)
    heavy = [Example("q", sides, (Pair(0, 1, weight=3.0), Pair(1, 0)))]  # a pair of weight 3 against one of 1
    assert FeatureReward([table(values, 0)]).fit(heavy, penalties=[1e8]).margin(["q"], ["0"], ["1"]) == pytest.approx(
        math.log(3), abs=1e-4
    )


def test_the_fit_is_that_of_another_optimiser():
    values, made = drawn(np.random.default_rng(0), 60, [1.0, -0.5, 0.2])
    c = 0.7
    reward = FeatureReward([table(values, k) for k in range(3)]).fit(made, penalties=[c])
    z = (values - values.mean(0)) / values.std(0)
    gaps = np.array([z[int(e.responses[p.chosen].content)] - z[int(e.responses[p.rejected].content)]
                     for e in made for p in e.pairs])  # fmt: skip

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -gaps @ w).sum() + w @ w / (2 * c))

    other = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    assert reward.coefficients == pytest.approx(other, abs=1e-4)


def test_planted_weights_are_found_whatever_the_units_of_features():
    values, made = drawn(np.random.default_rng(1), 4000, [1.5, -0.7, 0.0])
    values = values * [100, 0.01, 1] + [5, -3, 0]
    reward = FeatureReward([table(values, k) for k in range(3)], ["a", "b", "c"]).fit(made)
    assert list(reward.weights.values()) == pytest.approx([1.5, -0.7, 0.0], abs=0.12)
    assert reward.penalty in {10.0**k for k in range(-3, 4)}


def test_cross_validation_distrusts_what_says_nothing():
    rng = np.random.default_rng(2)
    values, made = drawn(rng, 60, [0.0] * 20)
    assert FeatureReward([table(values, k) for k in range(20)]).fit(made).penalty < 1


def test_a_network_learns_what_no_weighted_sum_can():
    """Neither too much nor too little of a quality is liked: a linear score of it is at chance."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(1200, 1))
    made = []
    for k in range(600):
        a, b = 2 * k, 2 * k + 1
        better = abs(values[a, 0]) < abs(values[b, 0])
        made.append(Example(f"q{k}", (Response(str(a)), Response(str(b))), (Pair(*((0, 1) if better else (1, 0))),)))
    fitted, held_out = made[:400], made[400:]

    def accuracy(reward) -> float:
        sides = [
            [e.responses[getattr(p, s)].content for e in held_out for p in e.pairs] for s in ("chosen", "rejected")
        ]
        return float((reward.margin([""] * len(sides[0]), *sides) > 0).mean())

    assert accuracy(FeatureNetwork([table(values, 0)], seed=1).fit(fitted)) > 0.93
    assert 0.4 < accuracy(FeatureReward([table(values, 0)]).fit(fitted)) < 0.6


def test_a_network_without_hidden_bends_is_the_weighted_sum():
    """Where inputs are tiny tanh is the identity: with strong decay the scores are linear in the feature."""
    values, made = drawn(np.random.default_rng(4), 100, [1.0])
    network = FeatureNetwork([table(values, 0)], width=4, decay=1.0).fit(made)
    at = [network.score(["q"], [str(k)])[0] for k in (0, 1, 2)]
    slope = [(at[i] - at[j]) / (values[i, 0] - values[j, 0]) for i, j in ((0, 1), (1, 2))]
    assert slope[0] == pytest.approx(slope[1], rel=0.05, abs=1e-6)


@pytest.mark.parametrize("kind", [FeatureReward, FeatureNetwork])
def test_what_cannot_be_fitted_and_what_is_missing(kind):
    values = np.array([[1.0], [math.nan], [2.0]])
    reward = kind([table(values, 0)])
    with pytest.raises(InputError, match="no pair has all features"):
        reward.fit([Example("q", (Response("0"), Response("1")), (Pair(0, 1),))])
    with pytest.raises(InputError, match="no pair has all features"):
        reward.fit([])
    fitted = reward.fit([Example("q", (Response("0"), Response("2"), Response("1")), (Pair(1, 0), Pair(1, 2)))])
    assert np.isnan(fitted.score(["q"] * 3, ["0", "1", "2"])).tolist() == [False, True, False]
    assert fitted.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="at least one"):
        kind([])
    with pytest.raises(ValueError, match="2 names for 1"):
        kind([table(values, 0)], ["a", "b"])


def test_a_feature_that_never_differs_does_no_harm():
    values = np.array([[1.0, 7.0], [0.0, 7.0]])
    made = [Example("q", (Response("0"), Response("1")), (Pair(0, 1),))] * 5
    reward = FeatureReward([table(values, 0), table(values, 1)], ["a", "same"]).fit(made)
    assert reward.weights["same"] == 0
    assert 0 < reward.weights["a"] < math.inf  # perfectly separable, and yet finite
