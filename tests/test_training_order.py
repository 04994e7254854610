"""The order of the data, the learning rate."""

from __future__ import annotations

from math import ceil, cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boresight.training.order import Order, lr_at


@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 4), st.integers(0, 5))
def test_every_row_once_an_epoch(rows, batch, epochs, seed):
    order = Order(rows, batch=batch, epochs=epochs, seed=seed)
    steps = [order.step(k) for k in range(order.steps)]
    seen = [i for step in steps for i in step]
    assert len(seen) == rows * epochs
    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert all(len(step) == batch for step in steps[:-1])
    assert order.steps == ceil(rows * epochs / batch)


def test_order_is_a_function_of_seed_and_step():
    one, two, other = (Order(50, batch=8, epochs=3, seed=s) for s in (1, 1, 2))
    assert two.step(11) == one.step(11)  # asked for out of order: no hidden state
    assert [one.step(k) for k in range(5)] == [two.step(k) for k in range(5)]
    assert one.step(0) != other.step(0)


def test_each_row_is_equally_likely_in_each_batch():
    """Placement by length comes after this and drops nothing, so the expected gradient is that of uniform sampling."""
    seeds = 3000
    for step in (0, 2):
        drawn = [i for seed in range(seeds) for i in Order(6, batch=2, seed=seed).step(step)]
        counts = [drawn.count(i) for i in range(6)]
        spread = (seeds * (1 / 3) * (2 / 3)) ** 0.5
        assert all(abs(c - seeds / 3) < 5 * spread for c in counts)


def test_max_steps_counts_beyond_the_data():
    order = Order(5, batch=4, max_steps=3)
    assert [len(order.step(k)) for k in range(order.steps)] == [4, 4, 4]
    drawn = [i for k in range(3) for i in order.step(k)]
    assert sorted(drawn[:10]) == sorted([*range(5), *range(5)])
    assert order.epoch_at(3) == pytest.approx(12 / 5)


def test_max_steps_zero_takes_no_step():
    assert Order(5, batch=4, max_steps=0).steps == 0


def test_learning_rate_closed_forms():
    kwargs = {"peak": 2.0, "warmup": 0.2, "schedule": "cosine"}
    assert [lr_at(k, 10, **kwargs) for k in (0, 1)] == [1.0, 2.0]
    assert lr_at(2, 10, **kwargs) == pytest.approx(2.0)
    assert lr_at(6, 10, **kwargs) == pytest.approx(2 * 0.5 * (1 + cos(pi * 4 / 8)))
    assert lr_at(6, 10, peak=2.0, warmup=0.2, schedule="linear") == pytest.approx(1.0)
    assert lr_at(9, 10, peak=2.0, warmup=0.0, schedule="constant") == 2.0
    assert lr_at(0, 1, peak=2.0, warmup=0.1, schedule="cosine") == 2.0
