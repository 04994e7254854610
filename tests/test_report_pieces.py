"""Pieces of reports: curves, charts, differences of texts."""

from __future__ import annotations

import math
import random
import re
import time

import pytest

from boresight.report import plots, samples
from boresight.report.charts import HEIGHT, LEFT, WIDTH, Drawn, chart, ticks
from boresight.report.runs import read_run
from boresight.report.series import Curve, groups, thin
from report_runs import facts, make_run


def test_thinning_keeps_ends_spikes_and_gaps():
    values = [math.sin(i / 50) for i in range(5000)]
    values[1234], values[4321], values[3000] = 50.0, -50.0, math.nan
    kept = thin(values, 240)
    assert len(kept) <= 242
    assert kept == sorted(set(kept))
    assert {0, 4999, 1234, 4321, 3000} <= set(kept)
    assert thin(values[:100], 240) == list(range(100))


def test_ticks_are_round_inside_and_few():
    draw = random.Random(0)
    for _ in range(500):
        low = draw.uniform(-1, 1) * 10 ** draw.randint(-8, 8)
        high = low + draw.uniform(1e-4, 10) * 10 ** draw.randint(-3, 3) * abs(low)
        found = ticks(low, high, 5)
        assert 1 <= len(found) <= 6
        slack = 1e-6 * (high - low)
        assert low - slack <= found[0]
        assert found[-1] <= high + slack
        if len(found) > 1:
            step = found[1] - found[0]
            leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
            assert min(abs(leading - m) for m in (1, 2, 5, 10)) < 1e-3


def test_chart_places_values_where_a_ruler_would():
    drawn = chart("t", "n", [Drawn("a", Curve([(0.0, 0.0), (50.0, 5.0), (100.0, 10.0)]), "s0")])
    assert drawn is not None
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = drawn.lines[0].dots
    assert (x0, x2) == (LEFT, WIDTH - 20)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert 0 < y2 < y0 < HEIGHT
    assert drawn.lines[0].paths == [f"M{x0} {y0}L{x1} {y1}L{x2} {y2}"]
    at = {label: place for place, label in drawn.y_ticks}
    assert at["0"] == y0
    assert at["10"] == y2


def test_chart_breaks_at_values_that_are_not_finite():
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 3.0), (4.0, 1.0)]
    drawn = chart("t", "n.", [Drawn("a", Curve(points, lost=1), "s0")])
    assert drawn is not None
    assert len(drawn.lines[0].paths) == 2
    assert "1 values were not finite" in drawn.note
    assert chart("t", "n", [Drawn("a", Curve([(0.0, math.nan), (1.0, 1.0)]), "s0")]) is None


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-320, 3e-320], [1e308, -1e308], [5.0, 5.0], [-3.0, -3.0]])
def test_chart_of_extreme_values_has_finite_places(values):
    drawn = chart("t", "n", [Drawn("a", Curve([(float(i), v) for i, v in enumerate(values)]), "s0")])
    assert drawn is not None
    places = re.findall(r"[-\d.e+a-z]+", " ".join(drawn.lines[0].paths).replace("M", " ").replace("L", " "))
    assert all(math.isfinite(float(p)) for p in places)


def test_margin_split_shades_between_chosen_and_rejected(tmp_path):
    (group,) = groups([read_run(make_run(tmp_path / "run"))])
    margin = next(c for c in plots.charts([group], 100) if c.title == "The margin, split")
    assert [line.label for line in margin.lines] == ["chosen", "rejected"]
    chosen, rejected = (line.dots for line in margin.lines)
    corners = [f"{x} {y}" for x, y, _ in [*chosen, *reversed(rejected)]]
    assert margin.area == "M" + "L".join(corners) + "Z"


def test_methods_without_reference_are_split_by_log_probs(tmp_path):
    looks = [{"step": s, "chosen_logp_token": -1.0 - s, "rejected_logp_token": -2.0 - s, "loss": 1.0} for s in (1, 2)]
    (group,) = groups([read_run(make_run(tmp_path / "run", facts(method="simpo"), looks))])
    titles = [c.title for c in plots.charts([group], 100)]
    assert "The margin, split (no reference)" in titles
    assert "The margin, split" not in titles


def test_differences_are_complete_and_right():
    draw = random.Random(1)
    words = ["a", "b", "cat", "dog", " ", "  ", "\n", ".", "日本", "x1"]
    for _ in range(300):
        a = "".join(draw.choices(words, k=draw.randint(0, 30)))
        b = "".join(draw.choices(words, k=draw.randint(0, 30)))
        gone, come = samples.differences(a, b)
        assert "".join(t for t, _ in gone) == a
        assert "".join(t for t, _ in come) == b
        # What is not marked is common to both, in order.
        assert [t for t, new in gone if not new] == [t for t, new in come if not new]


def test_differences_of_texts_that_go_in_circles_take_no_time():
    started = time.perf_counter()
    samples.differences("x! " * 600, "!x " * 600)
    samples.differences("一二三" * 600, "三二一" * 600)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        ("p\n\n---\n\na", "p\n\n---\n\nb", ("p", "a", "b")),
        ("p\n\n---\n\nq\n\n---\n\na", "p\n\n---\n\nq\n\n---\n\nb", ("p\n\n---\n\nq", "a", "b")),
        ("p\n\n---\n\na\n\n---\n\n", "p\n\n---\n\nb", ("p", "a\n\n---\n\n", "b")),
        ("no mark", "none here", ("", "no mark", "none here")),
        ("p\n\n---\n\n", "p\n\n---\n\nb", ("p", "", "b")),
    ],
)
def test_prompt_ends_where_both_texts_still_agree(first, last, wanted):
    assert samples.split(first, last) == wanted
