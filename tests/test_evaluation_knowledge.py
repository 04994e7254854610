"""Explanations against experts: Shapley values against all orders, graphs by hand, training, and at the limits."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.errors import InputError
from boresight.judging.knowledge import (
    edit_distance,
    expert_graph,
    linear_shapley,
    loss_weights,
    misattribution,
    shap_graph,
    shapley,
)
from boresight.judging.parts import PartClassifier, fit_parts


def bent(z: np.ndarray) -> np.ndarray:
    """Two figures with products of parts."""
    return np.stack([np.tanh(z @ np.arange(1, z.shape[1] + 1)) + z[:, 0] * z[:, -1], np.exp(-(z**2).sum(1))], 1)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_exact_values_against_all_orders(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    rows, base = rng.normal(size=(2, parts)), rng.normal(size=(3, parts))
    found = shapley(bent, rows, base)
    assert found.shape == (2, parts, 2)
    for place, row in enumerate(rows):
        total = np.zeros((parts, 2))
        for order in permutations(range(parts)):
            mixed = base.copy()
            before = bent(mixed).mean(0)
            for part in order:
                mixed[:, part] = row[part]
                total[part] += bent(mixed).mean(0) - before
                before = bent(mixed).mean(0)
        assert found[place] == pytest.approx(total / math.factorial(parts), abs=1e-12)
        assert found[place].sum(0) == pytest.approx(bent(row[None])[0] - bent(base).mean(0))


def test_a_linear_head_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    weights, rows, base = rng.normal(size=(5, 3)), rng.normal(size=(4, 5)), rng.normal(size=(6, 5))
    known = linear_shapley(weights, rows, base)
    assert shapley(lambda z: z @ weights + 7, rows, base) == pytest.approx(known)
    assert shapley(lambda z: z @ weights, rows, base, samples=1) == pytest.approx(known)
    assert known[1, 2, 0] == pytest.approx(weights[2, 0] * (rows[1, 2] - base[:, 2].mean()))


def test_sampled_orders_come_near_and_add_up() -> None:
    rng = np.random.default_rng(1)
    rows, base = rng.normal(size=(1, 5)), rng.normal(size=(4, 5))
    exact, drawn = shapley(bent, rows, base), shapley(bent, rows, base, samples=300)
    assert drawn == pytest.approx(exact, abs=0.06)
    assert drawn.sum(1) == pytest.approx(exact.sum(1))
    many = rng.normal(size=(1, 14))
    assert shapley(lambda z: z @ np.ones((14, 1)), many, many * 0, samples=2)[0, :, 0] == pytest.approx(many[0])


GRAPH = np.array([[True, False], [False, True]])


def test_what_contradicts_the_experts() -> None:
    told = np.array([[[0.5, 0.2], [-0.1, -0.3]]])
    assert misattribution(told, GRAPH).tolist() == [[[0.0, 0.2], [0.0, 0.3]]]
    absent = misattribution(told, GRAPH, [[0.9, 0.1]])
    assert absent.tolist() == [[[0.0, 0.2], [0.1, 0.0]]], "the second part is absent: the reverse"


def test_weights_of_losses() -> None:
    wrong = np.array([[[0.0, 0.2], [0.5, 0.3]], [[0.0, 0.2], [0.5, 0.3]]])
    assert loss_weights(wrong, [0, 1], h=2.0) == pytest.approx(np.array([[1.0, 2.0], [1.4, 1.6]]))
    assert loss_weights(wrong, [0, 1], form="exponential") == pytest.approx(np.exp([[0.0, 0.5], [0.2, 0.3]]))
    assert loss_weights(wrong, [0, 1], level="instance") == pytest.approx(np.array([[1.5, 1.5], [1.3, 1.3]]))
    assert (loss_weights(wrong, [0, 1], h=0.0) == 1).all()


def test_graphs_of_explanations_and_their_distance() -> None:
    told = np.array([[[0.5, 0.2], [-0.1, -0.3]], [[0.0, 0.0], [0.0, 0.0]]])
    graphs = shap_graph(told, [[1.0, 0.0], [1.0, 1.0]])
    assert graphs.tolist() == [[[True, True], [True, True]], [[False, False], [False, False]]]
    assert edit_distance(graphs, GRAPH).tolist() == [2.0, 2.0]
    assert edit_distance(GRAPH[None], GRAPH).tolist() == [0.0]
    assert shap_graph(told, [[1.0, 0.0], [1.0, 1.0]], threshold=0.25)[0].tolist() == [[True, False], [False, True]]


def test_the_graph_by_name() -> None:
    graph = expert_graph(
        {"gothic": ["rose", "arch"], "baroque": ["arch"]}, ["arch", "rose", "dome"], ["baroque", "gothic"]
    )
    assert graph.tolist() == [[True, True], [False, True], [False, False]]
    with pytest.raises(InputError, match="'tower'"):
        expert_graph({"gothic": ["tower"]}, ["arch"], ["gothic"])
    with pytest.raises(InputError, match="'modern'"):
        expert_graph({"modern": []}, ["arch"], ["gothic"])


def rows(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    parts = (rng.random((count, 2)) < np.where(GRAPH[:, y].T, 0.9, 0.1)).astype(int)
    return parts + 0.2 * rng.normal(size=(count, 2)), parts, y


def test_detectors_and_head_learn_and_agree_with_the_experts() -> None:
    x, parts, y = rows(0)
    model = fit_parts(x, parts, y, GRAPH, h=1.0, rounds=2)
    scores = model.parts(x)
    assert ((scores > 0.5) == (parts == 1)).mean() > 0.95
    assert (model(x).argmax(1) == y).mean() > 0.8
    assert model(x).sum(1) == pytest.approx(np.ones(len(x)))
    speak = shapley(model.classes, scores, scores[:20])
    assert edit_distance(shap_graph(speak, scores), GRAPH).mean() < 0.5


def test_the_detectors_are_where_the_weighted_slope_is_zero() -> None:
    """Round two minimises mean(w * log loss) + l2 / 2 |detector|^2: its slope, weights made again by hand, is 0."""
    x, parts, y = rows(1)
    l2, n = 1e-2, len(y)
    first = fit_parts(x, parts, y, GRAPH, h=0.0, l2=l2, background=n)
    second = fit_parts(x, parts, y, GRAPH, h=5.0, rounds=2, l2=l2, background=n)
    scores = first.parts(x)
    speak = shapley(first.classes, scores, scores)
    signs = np.where(GRAPH, 1, -1)
    ones = np.column_stack([x, np.ones(n)])
    for part in range(2):
        own = np.array([max(0.0, -speak[i, part, y[i]] * signs[part, y[i]]) for i in range(n)])
        miss = (second.parts(x)[:, part] - parts[:, part]) * (1 + 5 * own)
        slope = ones.T @ miss / n
        slope[:-1] += l2 * second.detectors[:-1, part]
        assert np.abs(slope).max() < 1e-4
    assert np.abs(first.detectors - second.detectors).max() > 1e-3


def test_forward_by_hand() -> None:
    model = PartClassifier(np.array([[2.0], [0.0]]), np.array([[0.0, 4.0], [1.0, -1.0]]))
    score = 1 / (1 + math.exp(-2.0))
    assert model.parts([[1.0]])[0, 0] == pytest.approx(score)
    assert model([[1.0]])[0, 1] == pytest.approx(1 / (1 + math.exp(-(4 * score - 2))))
    assert model([[1e6]])[0, 1] == pytest.approx(1 / (1 + math.exp(-2.0)))


def test_a_part_that_is_never_marked_and_a_class_that_is_never_seen() -> None:
    x, parts, y = rows(2, 40)
    parts = parts.copy()
    parts[:, 1] = 0
    graph = np.array([[True, False, True], [False, True, True]])
    model = fit_parts(x, parts, y, graph, h=1.0, rounds=2)
    assert (model.parts(x)[:, 1] < 0.1).all()
    assert (model(x)[:, 2] < 0.1).all()
    alone = fit_parts(x, parts, np.zeros(40, int), graph)
    assert (alone(x).argmax(1) == 0).all()


def test_what_cannot_be_used_is_refused() -> None:
    one, wrong = np.ones((1, 2)), np.zeros((1, 2, 2))
    for call in (
        lambda: shapley(bent, one, np.ones((1, 3))),
        lambda: shapley(bent, one, one[:0]),
        lambda: shapley(bent, np.ones((1, 13)), np.ones((1, 13))),
        lambda: shapley(bent, one, one, samples=-1),
        lambda: misattribution(wrong, GRAPH[:1]),
        lambda: misattribution(wrong, GRAPH, [[1.0]]),
        lambda: loss_weights(wrong, [0], form="square"),
        lambda: loss_weights(wrong, [0], level="box"),
        lambda: loss_weights(wrong, [0], h=-1),
        lambda: loss_weights(wrong, [2]),
        lambda: loss_weights(wrong, [0, 1]),
        lambda: shap_graph(wrong, [[1.0]]),
        lambda: edit_distance(wrong, GRAPH[:1]),
        lambda: fit_parts(one, one, [0], GRAPH, rounds=0),
        lambda: fit_parts(one, one, [2], GRAPH),
        lambda: fit_parts(one, one, [0, 1], GRAPH),
        lambda: fit_parts(one, one[:, :1], [0], GRAPH),
    ):
        with pytest.raises(InputError):
            call()
