"""Bradley-Terry weights with a pull, against closed forms, another optimiser, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from boresight.errors import InputError
from boresight.rewards.prior import PULLS, bradley_terry, fine_tune


def test_one_feature_solves_its_equation():
    # 30 pairs with gap 1, 10 with gap -1: 30 sigmoid(-w) - 10 sigmoid(w) = pull (w - start)
    gaps = np.array([[1.0]] * 30 + [[-1.0]] * 10)
    for pull, start in ((1e-9, 0.0), (2.0, 0.0), (2.0, 3.0)):
        root = brentq(lambda w, p=pull, s=start: 30 / (1 + np.exp(w)) - 10 / (1 + np.exp(-w)) - p * (w - s), -9, 9)
        assert bradley_terry(gaps, pull=pull, start=[start])[0] == pytest.approx(root, abs=1e-8)
    assert bradley_terry(gaps, pull=1e-9)[0] == pytest.approx(np.log(3), abs=1e-6)


def test_the_minimum_is_that_of_another_optimiser():
    rng = np.random.default_rng(0)
    gaps, start = rng.normal(size=(50, 4)), rng.normal(size=4)

    def cost(w):
        return np.logaddexp(0, -gaps @ w).sum() + 0.35 * ((w - start) ** 2).sum()

    other = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    assert bradley_terry(gaps, pull=0.7, start=start) == pytest.approx(other, abs=1e-5)


def test_limits():
    rng = np.random.default_rng(1)
    gaps, start = np.abs(rng.normal(size=(20, 3))), np.array([1.0, -2.0, 0.5])
    assert bradley_terry(gaps, pull=1e9, start=start) == pytest.approx(start, abs=1e-6)
    assert bradley_terry(np.zeros((0, 3)), pull=1.0, start=start).tolist() == start.tolist()
    assert np.isfinite(bradley_terry(gaps * 1e4, pull=1e-6)).all()  # separable, far out
    assert bradley_terry(np.zeros((5, 3)), pull=1.0).tolist() == [0, 0, 0]
    # The weights of a pull towards `start` move with it: they are those of no start in shifted coordinates.
    flat = bradley_terry(np.zeros((5, 3)), pull=1.0, start=start)
    assert flat == pytest.approx(start)


def test_the_pull_is_strong_where_the_start_is_right_and_weak_where_it_is_wrong():
    rng = np.random.default_rng(2)
    true = rng.normal(size=8) * 2
    x = rng.normal(size=(400, 8))
    gaps = x * np.where(rng.random(400) < 1 / (1 + np.exp(-(x @ true))), 1, -1)[:, None]
    kept, strong = fine_tune(gaps, true)
    freed, weak = fine_tune(gaps, -true)
    assert strong >= 10 * weak
    assert np.abs(kept - true).max() < 0.5
    assert freed @ true > 0.9 * np.linalg.norm(freed) * np.linalg.norm(true)  # it turned round


def test_the_pull_has_the_least_log_loss_over_folds():
    rng = np.random.default_rng(3)
    gaps = rng.normal(size=(23, 3)) + np.array([0.5, 0, 0])
    weights, pull = fine_tune(gaps, folds=4)

    def lost(p):
        total = 0.0
        for k in range(4):
            out = np.arange(23) % 4 == k
            total += np.log1p(np.exp(-gaps[out] @ bradley_terry(gaps[~out], pull=p))).sum()
        return total

    assert pull == min(PULLS, key=lost)
    assert weights.tolist() == bradley_terry(gaps, pull=pull).tolist()
    assert fine_tune(gaps[:1], [0, 0, 1])[1] == max(PULLS)
    assert fine_tune(gaps, pulls=[3.0])[1] == 3.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bradley_terry([1.0], pull=1), "no finite matrix"),
        (lambda: bradley_terry([[np.nan]], pull=1), "no finite matrix"),
        (lambda: bradley_terry([[1.0]], pull=0), "pull is 0"),
        (lambda: bradley_terry([[1.0]], pull=1, start=[1, 2]), "for 1 features"),
        (lambda: fine_tune([[1.0]], pulls=[]), "0 pulls"),
        (lambda: fine_tune([[1.0]], folds=1), "1 folds"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
