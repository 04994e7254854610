"""Counterfactuals: mixtures against all mixtures, prototypes against rewrites, baselines on lines, at the limits."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.judging.counterfactuals import (
    Counterfactuals,
    by_gradient,
    mixed,
    nearest_instance,
    one_each,
    prototype_rows,
    proximity,
    t_col,
    validity,
)


def local_score(sample: list[float], other: list[float], row: list[float], score: str) -> float:
    size = math.hypot(*other) * math.hypot(*row)
    close = sum(a * b for a, b in zip(other, row, strict=True)) / size if size else 0.0
    apart = math.dist(sample, row)
    if score == "rss":
        return math.exp(close) / (1 / (1 + math.exp(-apart)))
    if score == "ncs":
        return close / math.exp(apart)
    return 1 / (1 + math.exp(-close)) + sum(a == b for a, b in zip(sample, row, strict=True)) / len(row)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(["rss", "ncs", "fcs"]), st.integers(1, 4), st.integers(1, 7))
def test_each_block_is_the_best_of_all_its_mixtures(seed: int, score: str, depth: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    sample, other = rng.normal(size=(2, width)).tolist()
    found = mixed(sample, other, depth=depth, score=score)
    for start in range(0, width, depth):
        here = slice(start, min(start + depth, width))
        a, b = sample[here], other[here]
        ways = [[q if t else p for p, q, t in zip(a, b, way, strict=True)] for way in product((0, 1), repeat=len(a))]
        best = max(local_score(a, b, row, score) for row in ways)
        assert list(found[here]) in ways
        assert local_score(a, b, list(found[here]), score) == pytest.approx(best)


def test_what_each_score_is_for() -> None:
    sample, other = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.1, 0.0])
    assert mixed(sample, sample).tolist() == sample.tolist()
    assert mixed(sample, other, score="rss").tolist() == other.tolist(), "cosine 1, whatever the distance"
    assert mixed(sample, other, score="ncs").tolist() == [1.0, 3.0, 0.0, 0.0], "nearer to the sample"
    assert mixed(np.zeros(3), np.zeros(3), score="fcs").tolist() == [0.0, 0.0, 0.0]
    # One feature a block: cosine is 1 or -1
    assert mixed([1.0, -1.0], [2.0, 2.0], depth=1).tolist() == [1.0, 2.0]


def test_prototypes_against_rewrites() -> None:
    rng = np.random.default_rng(3)
    pool, sample = rng.integers(-3, 4, size=(30, 4)).astype(float) + 0.25, rng.integers(-3, 4, size=4) + 0.25
    rows = pool.tolist()
    near = sorted(rows, key=lambda r: math.dist(r, sample))[:3]
    assert [math.dist(r, sample) for r in prototype_rows(pool, sample, count=3)] == [math.dist(r, sample) for r in near]
    few = prototype_rows(pool, sample, kind="few")[0]
    assert sum(few == sample) == max(sum(a == b for a, b in zip(r, sample, strict=True)) for r in rows)
    cosine = prototype_rows(pool, sample, kind="cosine")[0]
    angles = [float(np.dot(r, sample)) / math.hypot(*r) / math.hypot(*sample) for r in rows]
    assert cosine.tolist() == rows[int(np.argmax(angles))]
    sure = prototype_rows(pool, sample, kind="sure", chance=lambda z: z[:, 1])[0]
    assert sure[1] == pool[:, 1].max()
    assert len(prototype_rows(pool, sample, count=99)) == 30


def test_centres_are_rows_next_to_clusters() -> None:
    pool = np.array([[0.0, 0.0], [0.0, 2.0], [0.0, 1.1], [10.0, 0.0], [10.0, 2.0], [10.0, 0.9]])
    found = prototype_rows(pool, [5.0, 5.0], kind="centre", count=2)
    assert sorted(found.tolist()) == [[0.0, 1.1], [10.0, 0.9]]


def line(z: np.ndarray) -> np.ndarray:
    return (z.sum(1) > 4).astype(int)


DATA = np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0], [5.0, 0.0], [0.0, 9.0]])


def test_only_rows_that_the_model_puts_into_the_class_are_shown() -> None:
    samples = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = t_col(line, DATA, line(DATA), samples, 1, count=3, depth=2)
    assert found.tried == 6
    assert (line(found.rows) == 1).all()
    assert (found.changed == (found.rows != samples[found.of])).all()
    for row, of in zip(found.rows, found.of, strict=True):
        made = [
            mixed(samples[of], p, depth=2).tolist() for p in prototype_rows(DATA[line(DATA) == 1], samples[of], count=3)
        ]
        assert row.tolist() in made
    first = one_each(found)
    assert first.of.tolist() == sorted(set(found.of.tolist()))
    for row, of in zip(first.rows, first.of, strict=True):
        assert row.tolist() == found.rows[found.of == of][0].tolist()


def test_nearest_instances() -> None:
    samples = np.array([[0.0, 0.0], [0.0, 8.0]])
    found = nearest_instance(line, DATA, samples, 1)
    assert found.rows.tolist() == [[3.0, 3.0], [0.0, 9.0]]
    assert proximity(found, samples) == pytest.approx([math.sqrt(18), 1.0])
    assert not len(nearest_instance(line, DATA[:2], samples, 1).rows)


def test_a_gradient_goes_straight_to_the_line() -> None:
    samples = np.array([[0.0, 0.0], [1.0, -1.0]])

    def chance(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(z.sum(1) - 4)))

    found = by_gradient(line, chance, samples, 1, step=0.01, steps=500)
    assert proximity(found, samples) == pytest.approx([4 / math.sqrt(2)] * 2, abs=0.02)
    assert found.rows[0] == pytest.approx([2.0, 2.0], abs=0.02)
    further = by_gradient(line, chance, samples, 1, step=0.01, steps=900, reach=[5.0, 0.1])
    assert proximity(further, samples) == pytest.approx([5.0, 4 / math.sqrt(2)], abs=0.02)
    assert not len(by_gradient(line, chance, samples, 1, steps=3).rows)
    assert not len(by_gradient(line, lambda z: np.full(len(z), 0.5), samples, 1).rows), "nowhere to go"


def test_validity_is_a_share() -> None:
    found = Counterfactuals(DATA, np.arange(5), DATA != 0, 5)
    assert validity(found, line, 1) == pytest.approx(3 / 5)
    none = t_col(lambda z: np.zeros(len(z)), DATA, line(DATA), DATA[:1], 1)
    assert len(none.rows) == 0
    assert math.isnan(validity(none, line, 1))
    assert len(proximity(none, DATA[:1])) == 0
    assert t_col(line, DATA, line(DATA), DATA[:0], 1).tried == 0


def test_what_cannot_be_used_is_refused() -> None:
    y = line(DATA)
    for call, match in (
        (lambda: t_col(line, DATA, y, DATA[:1], 7), "class 7"),
        (lambda: t_col(line, DATA, y[:2], DATA[:1], 1), "samples"),
        (lambda: t_col(line, DATA, y, DATA[:1, :1], 1), "samples"),
        (lambda: t_col(line, DATA, y, DATA[:1], 1, prototypes="neer"), "did you mean near"),
        (lambda: t_col(line, DATA, y, DATA[:1], 1, prototypes="sure"), "chance"),
        (lambda: t_col(line, DATA, y, DATA[:1], 1, count=0), "1 or more"),
        (lambda: mixed([1.0], [1.0, 2.0]), "twice"),
        (lambda: mixed([1.0], [1.0], score="best"), "score"),
        (lambda: mixed([1.0], [1.0], depth=13), "depth"),
    ):
        with pytest.raises(InputError, match=match):
            call()
