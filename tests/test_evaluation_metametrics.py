"""MetaMetrics: agreement against rewrites, the search against a grid, and at the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.judging.metametrics import (
    AGREEMENTS,
    Scale,
    boost,
    expected_improvement,
    kendall,
    pair_accuracy,
    spearman,
    tune,
)


def some(seed: int, items: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    aspects = rng.normal(size=(items, 2))
    return aspects + 0.3 * rng.normal(size=aspects.shape), aspects @ [1.0, 0.4]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=12))
def test_agreements_against_rewrites(rows: list[tuple[int, int]]) -> None:
    x, y = zip(*rows, strict=True)
    couples = [(i, j) for i in range(len(x)) for j in range(i)]
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in couples]
    told = [0.5 if a == 0 else float(a == b) for a, b in signs if b != 0]
    assert pair_accuracy(x, y) == pytest.approx(sum(told) / len(told) if told else 0.5)
    untied = [sum(1 for s in signs if s[k] != 0) for k in (0, 1)]
    size = math.sqrt(untied[0] * untied[1])
    assert kendall(x, y) == pytest.approx(sum(a * b for a, b in signs) / size if size else 0.0, abs=1e-12)
    ranks = [[sum(v < u for v in z) + (sum(v == u for v in z) + 1) / 2 for u in z] for z in (x, y)]
    means = [sum(r) / len(r) for r in ranks]
    gaps = [[v - m for v in r] for r, m in zip(ranks, means, strict=True)]
    scale = math.sqrt(sum(v * v for v in gaps[0]) * sum(v * v for v in gaps[1]))
    rho = sum(a * b for a, b in zip(*gaps, strict=True)) / scale if scale else 0.0
    assert spearman(x, y) == pytest.approx(rho, abs=1e-12)


def test_couples_of_more_items_than_fit_at_once() -> None:
    """Without ties it is (tau + 1) / 2."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 700))
    assert pair_accuracy(x, y) == pytest.approx((kendall(x, y) + 1) / 2)


def test_metrics_on_their_scale() -> None:
    scale = Scale.of([[0.0, 10.0, 3.0], [2.0, 30.0, 3.0]], lower_better=(1,))
    found = scale([[1.0, 15.0, 3.0], [-5.0, 99.0, 7.0]])
    assert found.tolist() == [[0.5, 0.75, 0.5], [0.0, 0.0, 0.5]]
    with pytest.raises(InputError, match="2 metrics, tuned on 3"):
        scale([[1.0, 2.0]])


def test_expected_improvement_against_an_integral() -> None:
    points = np.linspace(-12, 14, 200_001)
    step = points[1] - points[0]
    for mean, deviation, best in ((0.3, 1.0, 0.5), (-1.0, 0.2, 0.0), (2.0, 1.5, 0.0)):
        density = np.exp(-((points - mean) ** 2) / 2 / deviation**2) / deviation / math.sqrt(2 * math.pi)
        integral = float((np.maximum(points - best, 0) * density).sum() * step)
        assert expected_improvement([mean], [deviation], best)[0] == pytest.approx(integral, abs=1e-8)
    assert expected_improvement([1.0, -1.0], [0.0, 0.0], 0.25).tolist() == [0.75, 0.0]


@pytest.mark.parametrize("by", sorted(AGREEMENTS))
def test_two_weights_against_a_fine_grid(by: str) -> None:
    metrics, human = some(1)
    z = Scale.of(metrics)(metrics)
    grid = [AGREEMENTS[by](z @ [math.cos(a), math.sin(a)], human) for a in np.linspace(0, math.pi / 2, 400)]
    tuned = tune(metrics, human, by=by, calls=25)
    assert tuned.agreement >= max(grid) - 0.01
    assert ((tuned.weights >= 0) & (tuned.weights <= 1)).all()
    assert tuned.agreement == pytest.approx(AGREEMENTS[by](tuned(metrics), human))


def test_never_below_a_single_metric_or_the_mean_on_its_own_split() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        metrics, human = rng.normal(size=(30, 3)), rng.normal(size=30)
        z = Scale.of(metrics)(metrics)
        tuned = tune(metrics, human, calls=4)
        assert tuned.agreement >= max(kendall(z @ w, human) for w in (*np.eye(3), np.ones(3))) - 1e-12
        assert tuned.tried == 4


def test_a_metric_of_which_less_is_better() -> None:
    metrics, human = some(2)
    metrics[:, 0] *= -5
    turned = tune(metrics, human, calls=10, lower_better=(0,))
    assert turned.agreement > 0.7
    assert turned.weights[0] > 0.5
    assert tune(metrics, human, calls=10).agreement < turned.agreement


def test_boosted_trees_drop_what_says_nothing() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(size=(120, 1))
    metrics = np.concatenate([rng.normal(size=(120, 3)), good], 1)
    human = np.where(good[:, 0] > 0, 2.0, 0.0) + good[:, 0]
    found = boost(metrics, human, folds=3, n_estimators=30)
    assert 3 in found.kept
    alone = boost(metrics, human, folds=3, fewest=1, n_estimators=30, subsample=1.0)
    assert alone.kept == (3,)
    assert kendall(alone(metrics), human) > 0.8
    assert boost(metrics, human, fewest=4, folds=2, n_estimators=5).kept == (0, 1, 2, 3)


def test_the_same_seed_gives_the_same() -> None:
    metrics, human = some(3)
    assert (
        tune(metrics, human, calls=12, seed=5).weights.tolist()
        == tune(metrics, human, calls=12, seed=5).weights.tolist()
    )


def test_ratings_all_alike() -> None:
    metrics, _ = some(4, items=8)
    tuned = tune(metrics, np.ones(8), calls=8)
    assert tuned.agreement == 0.0
    assert tune(metrics, np.ones(8), by="pairs", calls=8).agreement == 0.5


def test_what_cannot_be_used_is_refused() -> None:
    metrics, human = some(0, items=6)
    for bad, match in (
        ({"by": "kendal"}, "did you mean kendall"),
        ({"calls": 2}, "at least 3"),
    ):
        with pytest.raises(InputError, match=match):
            tune(metrics, human, **bad)
    with pytest.raises(InputError, match="one finite rating"):
        tune(metrics, human[:3])
    with pytest.raises(InputError, match="one finite rating"):
        tune(metrics, np.full(6, np.nan))
    with pytest.raises(InputError, match="finite numbers"):
        tune(metrics[:, 0], human)
    with pytest.raises(InputError, match="two or more"):
        tune(metrics[:1], human[:1])
    with pytest.raises(InputError, match="folds"):
        boost(metrics, human, folds=7)
    with pytest.raises(InputError, match="fewest"):
        boost(metrics, human, fewest=3)
