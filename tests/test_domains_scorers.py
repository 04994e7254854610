"""Scorers without target labels, and simple adaptation: against rewrites, closed forms, real digits, at the limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from boresight.domains import (
    align_subspaces,
    circular,
    coral,
    deep_embedded,
    density_ratio,
    importance_weighted,
    mixval,
    prediction_entropy,
    soft_neighbourhood_density,
)
from boresight.errors import InputError
from boresight.lab.shifts import SHIFTS, shifted

shares = st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=2, max_size=8)


@settings(max_examples=40)
@given(shares)
def test_entropies_against_rewrites(rows: list[list[float]]) -> None:
    p = [[v / sum(r) for v in r] for r in rows]
    entropy = sum(v * math.log(v) for r in p for v in r) / len(p)
    assert prediction_entropy(p) == pytest.approx(entropy)
    total = 0.0
    for i, a in enumerate(p):
        near = [
            math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) / 0.5)
            for j, b in enumerate(p)
            if j != i
        ]
        total -= sum(v / sum(near) * math.log(v / sum(near)) for v in near)
    assert soft_neighbourhood_density(p, temperature=0.5) == pytest.approx(total / len(p), abs=1e-12)


def test_entropies_at_the_limits() -> None:
    certain, even = np.eye(4), np.full((5, 4), 0.25)
    assert prediction_entropy(certain) == 0.0
    assert prediction_entropy(even) == pytest.approx(-math.log(4))
    assert soft_neighbourhood_density(even) == pytest.approx(math.log(4)), "four others, all alike"
    assert soft_neighbourhood_density(certain) == pytest.approx(math.log(3)), "three others, all as far"
    assert soft_neighbourhood_density(np.eye(2)) == 0.0
    clusters = np.repeat(np.eye(3), 4, 0)
    assert soft_neighbourhood_density(clusters, temperature=1e-3) == pytest.approx(math.log(3)), "of one's own kind"
    many = np.tile([[0.3, 0.7]], (1100, 1))
    assert soft_neighbourhood_density(many) == pytest.approx(math.log(1099)), "in more than one piece"


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_weighted_risks_against_rewrites(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss, w = rng.random(9).tolist(), (3 * rng.random(9)).tolist()
    weighted = [a * b for a, b in zip(loss, w, strict=True)]
    assert importance_weighted(loss, w) == pytest.approx(sum(weighted) / sum(w))
    means = sum(weighted) / 9, sum(w) / 9
    cov = sum((a - means[0]) * (b - means[1]) for a, b in zip(weighted, w, strict=True)) / 8
    var = sum((b - means[1]) ** 2 for b in w) / 8
    assert deep_embedded(loss, w) == pytest.approx(-(means[0] - cov / var * (means[1] - 1)))


def test_weighted_risks_at_the_limits() -> None:
    assert importance_weighted([1, 0, 1], [0, 0, 0]) == pytest.approx(2 / 3)
    assert importance_weighted([1, 0], [0, 5]) == 0.0
    assert deep_embedded([0.5, 1.5], [1, 1]) == -1.0
    # A constant loss is known whatever the weights: the control variate takes all their noise away.
    assert deep_embedded([0.7] * 4, [0.1, 3.0, 2.0, 0.5]) == pytest.approx(-0.7)


def test_density_ratio_of_two_normals() -> None:
    """N(0, 1) and N(1, 1): log ratio x - 1/2."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(4000, 1)), 1 + rng.normal(size=(2000, 1))
    at = np.array([[-1.0], [0.5], [2.0]])
    found = density_ratio(source, target, at)
    assert np.log(found) == pytest.approx(at[:, 0] - 0.5, abs=0.15)
    assert density_ratio(source, target, source).mean() == pytest.approx(1, abs=0.1)
    assert density_ratio(source, target, at, flatten=0.5) == pytest.approx(np.sqrt(found))
    assert density_ratio(source, target, at, flatten=0.0) == pytest.approx(np.ones(3))
    assert density_ratio(source, target, np.array([[100.0]]), most=7.0).tolist() == pytest.approx([7.0])


def test_coral_gives_the_targets_covariance() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) + 5, rng.normal(size=(50, 3)) * [1, 2, 3]
    moved = coral(source, target, penalty=1e-9)
    assert np.cov(moved.T) == pytest.approx(np.cov(target.T), abs=1e-6)
    assert moved.mean(0) == pytest.approx(source.mean(0))
    assert coral(source, source) == pytest.approx(source)
    assert coral(source, target, penalty=1e9) == pytest.approx(source, rel=1e-5)
    line = coral(np.array([[0.0], [2.0], [4.0]]), np.array([[0.0], [6.0], [12.0]]), penalty=1e-12)
    assert line[:, 0] == pytest.approx([-4.0, 2.0, 8.0]), "thrice as wide about its own mean"


def test_subspaces_turned_onto_each_other() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 3)) * [5, 2, 0.1]
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    source, target = align_subspaces(x, x @ turn, width=2)
    assert source.shape == target.shape == (40, 2)
    # By hand, from the eigenvectors of the covariances.
    axes = [np.linalg.eigh(np.cov(z.T))[1][:, ::-1][:, :2] for z in (x, x @ turn)]
    there = (x @ turn - (x @ turn).mean(0)) @ axes[1]
    assert np.abs(target) == pytest.approx(np.abs(there))
    here = (x - x.mean(0)) @ axes[0] @ (axes[0].T @ axes[1])
    assert np.abs(source) == pytest.approx(np.abs(here))
    same, other = align_subspaces(x, x, width=3)
    assert same == pytest.approx(other)


def nearest_mean(x: np.ndarray, y: Any) -> Any:
    classes = np.unique(y)
    centres = np.array([x[y == c].mean(0) for c in classes])
    return lambda z: classes[((z[:, None] - centres) ** 2).sum(-1).argmin(1)]


def test_circular_validation_by_hand() -> None:
    source, labels = np.array([[0.0], [1.0], [9.0], [10.0], [11.0]]), np.array([0, 0, 1, 1, 1])
    target = np.array([[2.0], [3.0], [12.0]])
    assert circular(nearest_mean, source, labels, target, [0, 0, 1]) == 1.0
    assert circular(nearest_mean, source, labels, target, [1, 1, 0]) == 0.0
    # means 2 and 7.5: all but the first class's are nearer to the second
    assert circular(nearest_mean, source, labels, target, [0, 1, 1]) == 1.0
    assert circular(nearest_mean, source, labels, target, [1, 1, 1]) == 0.5, "balanced over classes"
    assert circular(nearest_mean, source, labels, target, [7, 7, 7]) == 0.0


def test_mixval_by_hand() -> None:
    x = np.array([[0.0], [1.0], [9.0], [10.0]])

    def steps(z: np.ndarray) -> np.ndarray:
        return (z[:, 0] > 5).astype(int)

    # 0.55 of the first: a mixture of two sides has 0.55 * a + 0.45 * b on either side of 5
    for seed in range(5):
        other = np.random.default_rng(seed).permutation(4)
        first, second = steps(x), steps(x[other])
        kept = [int(0.55 * a + 0.45 * b > 5) == c for a, b, c in zip(x[:, 0], x[other, 0], first, strict=True)]
        sides = [[k for k, f, s in zip(kept, first, second, strict=True) if (f == s) == alike] for alike in (1, 0)]
        known = [sum(s) / len(s) for s in sides if s]
        assert mixval(steps, x, seed=seed) == pytest.approx(sum(known) / len(known))
        if sides[0]:
            assert mixval(steps, x, seed=seed, kind="intra") == pytest.approx(sum(sides[0]) / len(sides[0]))
    assert mixval(lambda z: np.zeros(len(z)), x) == 1.0
    assert mixval(lambda z: np.zeros(len(z)), x, kind="inter") == 0.0


def test_shifts_are_what_they_say() -> None:
    for kind in SHIFTS:
        one, again = shifted(kind, 3, rows=50), shifted(kind, 3, rows=50)
        assert np.array_equal(one.target, again.target)
        assert one.source.shape == one.target.shape == (50, 4)
        assert set(one.labels.tolist()) == {0, 1}
    big = shifted("covariate", 0, rows=4000)
    assert big.target[:, 0].mean() - big.source[:, 0].mean() == pytest.approx(2, abs=0.1)
    rule = [
        (x[:, 1] > 0.5 * x[:, 0] ** 2 - 1) == y for x, y in ((big.source, big.labels), (big.target, big.target_labels))
    ]
    assert all(r.mean() > 0.9 for r in rule), "one rule for both"
    share = shifted("target", 0, rows=4000).target_labels.mean()
    assert share == pytest.approx(1 / (1 + math.e**2), abs=0.02)
    stretched = shifted("conditional", 0, rows=4000).target
    assert np.var(stretched @ [0.6, 0.8, 0, 0]) / np.var(
        shifted("conditional", 0, rows=4000).source @ [0.6, 0.8, 0, 0]
    ) == (pytest.approx(16, rel=0.1))
    turned = shifted("subspace", 0, rows=4000)
    gaps = [
        x[y == 1].mean(0) - x[y == 0].mean(0)
        for x, y in ((turned.source, turned.labels), (turned.target, turned.target_labels))
    ]
    assert gaps[0][:2] == pytest.approx([6, 2], abs=0.3)
    assert gaps[1][:2] == pytest.approx([6, -2], abs=0.3)
    for bad in ({"kind": "covariat"}, {"kind": "target", "rows": 2}, {"kind": "target", "size": -1}):
        with pytest.raises(InputError):
            shifted(**{"seed": 0, **bad})


def digits(images: np.ndarray, stretched: bool) -> np.ndarray:
    """MNIST at 16x16 and binary: its middle 20x20, or each digit's bounding box."""
    out = []
    for image in images > 100:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if stretched else image[4:24, 4:24]
        at = [((np.arange(16) + 0.5) * n / 16).astype(int) for n in part.shape]
        out.append(part[np.ix_(*at)].ravel())
    return np.array(out, float)


def test_real_digits_without_their_labels(real_data: Path) -> None:
    """MNIST to Semeion, whose digits fill their box: entropy, the way back and mixtures find that stretching helps."""
    mnist, semeion = np.load(real_data / "digits" / "mnist.npz"), np.load(real_data / "digits" / "semeion.npz")
    y = mnist["y_train"][:800]
    target, truth = semeion["x_train"].reshape(800, -1)[:400].astype(float), semeion["y_train"][:400]

    def fit(x: np.ndarray, classes: Any) -> LogisticRegression:
        return LogisticRegression(C=0.1, max_iter=300).fit(x, classes)

    found = []
    for stretched in (False, True):
        x = digits(mnist["x_train"][:800], stretched)
        model = fit(x, y)
        given = model.predict(target)
        back = circular(lambda a, b: fit(a, b).predict, x, y, target, given)
        scores = prediction_entropy(model.predict_proba(target)), back, mixval(model.predict, target)
        found.append(((given == truth).mean(), *scores))
    plain, box = found
    assert plain[0] < 0.4
    assert box[0] > 0.55
    assert all(b > p for p, b in zip(plain, box, strict=True))


def test_what_cannot_be_used_is_refused() -> None:
    some = np.ones((3, 2))
    for call in (
        lambda: importance_weighted([1.0], [1.0, 2.0]),
        lambda: importance_weighted([], []),
        lambda: importance_weighted([1.0], [-1.0]),
        lambda: importance_weighted([math.nan], [1.0]),
        lambda: deep_embedded([1.0], [1.0]),
        lambda: prediction_entropy([[0.5, 0.6]]),
        lambda: prediction_entropy([0.5, 0.5]),
        lambda: prediction_entropy([[1.5, -0.5]]),
        lambda: soft_neighbourhood_density([[1.0, 0.0]]),
        lambda: soft_neighbourhood_density(np.eye(2), temperature=0),
        lambda: circular(nearest_mean, some, [0, 1], some, [0, 1, 1]),
        lambda: circular(nearest_mean, some[:0], [], some, [0, 1, 1]),
        lambda: mixval(lambda z: z[:, 0], some, kind="neither"),
        lambda: mixval(lambda z: z[:, 0], some, mix=0.5),
        lambda: mixval(lambda z: z[:, 0], some[:0]),
        lambda: density_ratio(some, some[:, :1], some),
        lambda: density_ratio(some, some, some, flatten=2),
        lambda: coral(some, some, penalty=0),
        lambda: coral(some[:1], some),
        lambda: coral(some, some * math.nan),
        lambda: align_subspaces(some, some, width=3),
    ):
        with pytest.raises(InputError):
            call()
