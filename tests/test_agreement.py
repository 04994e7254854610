"""Agreement: published examples, closed forms, another way of computing it, and real annotators."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.judging.agreement import _kappa, _table, between, cohen, fleiss, interval, krippendorff

DATA = Path(os.environ.get("BORESIGHT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
PANDALM = DATA / "pandalm-human" / "pairs.jsonl.gz"
LLMBAR = DATA / "llmbar" / "natural_judge_votes.jsonl.gz"


def test_cohens_kappa_of_grants_that_two_readers_judged():
    # Two readers, 50 proposals: 20 times both yes, 15 times both no, 5 yes and no, 10 no and yes: kappa .4.
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen(a, b) == pytest.approx(0.4)


def test_fleiss_kappa_of_the_table_of_fourteen_raters():
    # The example with 10 subjects, 14 raters and 5 categories, whose kappa is told as 0.210.
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss(table) == pytest.approx(0.210, abs=5e-4)


def test_krippendorffs_alpha_of_his_own_example():
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units.
    n = np.nan
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    for distance, told in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)):
        assert krippendorff(ratings, distance) == pytest.approx(told, abs=6e-4)


def by_pairs(a, b, size, weight):
    """Weighted kappa from all pairs of verdicts, one of each annotator: no table of counts."""
    cost = [[0 if i == j else {"none": 1, "linear": abs(i - j), "quadratic": (i - j) ** 2}[weight] for j in range(size)]
            for i in range(size)]  # fmt: skip
    seen = sum(cost[x][y] for x, y in zip(a, b, strict=True)) / len(a)
    chance = sum(cost[x][y] for x in a for y in b) / len(a) ** 2
    return 1 - seen / chance if chance else float("nan")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_kappas_from_all_pairs(verdicts):
    a, b = (list(column) for column in zip(*verdicts, strict=True))
    for weights in ("none", "linear", "quadratic"):
        told = by_pairs(a, b, 4, weights)
        for own in (
            cohen(a, b, weights=weights, labels=range(4)),
            _kappa(_table(np.array(a), np.array(b), 4), weights),
        ):
            assert own == pytest.approx(told, abs=1e-9) or (np.isnan(own) and np.isnan(told))


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=25))
def test_fleiss_and_alpha_from_all_pairs(rows):
    """Alpha pairs verdicts within items against all verdicts without replacement; Fleiss with replacement."""
    values = [v for row in rows for v in row]
    seen = np.mean([row[i] != row[j] for row in rows for i in range(3) for j in range(3) if i != j])
    with_, n = np.mean([x != y for x in values for y in values]), len(values)
    without = with_ * n / (n - 1)
    table = [[row.count(v) for v in range(3)] for row in rows]
    own, alpha = fleiss(table), krippendorff(np.array(rows, float).T)
    if with_ == 0:
        assert np.isnan(own)
        assert np.isnan(alpha)
    else:
        assert own == pytest.approx(1 - seen / with_, abs=1e-9)
        assert alpha == pytest.approx(1 - seen / without, abs=1e-9)


def test_limits():
    assert cohen([0, 1, 1], [0, 1, 1]) == 1
    assert cohen([0, 1], [1, 0]) == -1
    assert np.isnan(cohen([1, 1], [1, 1]))
    assert np.isnan(fleiss([[2, 0], [2, 0]]))
    for bad, what in (
        (lambda: cohen([0], [0, 1]), "1 verdicts"), (lambda: cohen([], []), "no item"),
        (lambda: cohen([0], [2], labels=(0, 1)), "not one of"), (lambda: fleiss([[2, 0], [1, 0]]), "same number"),
        (lambda: fleiss([1, 2]), "shape"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            bad()


def test_the_interval_of_a_mean_is_as_wide_as_it_should_be():
    values = np.random.default_rng(0).normal(0, 1, 400)
    found = interval(lambda some: float(values[some].mean()), 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    # With clusters of four equal values it is twice as wide.
    four = np.repeat(values[:100], 4)
    clustered = interval(lambda some: float(four[some].mean()), 400, [k // 4 for k in range(400)])
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * values[:100].std() / 10, rel=0.12)
    assert interval(lambda some: 0.5, 1).to_dict() == {"value": 0.5, "low": -1.0, "high": 1.0, "n": 1}


def test_two_sides_and_ties():
    a, b = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 0])
    found = between(a, b, range(6))
    assert found["agree"].value == pytest.approx(4 / 6)
    assert found["decided"].value == 1
    assert found["decided"].n == 3
    assert found["kappa"].value == pytest.approx(cohen(a, b))
    order = {0: 0, 2: 1, 1: 2}
    assert found["weighted"].value == pytest.approx(by_pairs([order[v] for v in a], [order[v] for v in b], 3, "linear"))


@pytest.mark.skipif(not PANDALM.exists(), reason=f"real data are not at {DATA}")
def test_pandalm_has_the_kappas_its_authors_published():
    # README of WeOpenML/PandaLM, of all 999 rows: .85 (1, 2), .88 (1, 3), .86 (2, 3). Here are 487 of the rows.
    with gzip.open(PANDALM, "rt") as file:
        rows = [json.loads(line) for line in file]
    human = np.array([row["human"] for row in rows])
    for (i, j), told in (((0, 1), 0.85), ((0, 2), 0.88), ((1, 2), 0.86)):

        def kappa(some, i=i, j=j):
            return _kappa(_table(human[some, i], human[some, j], 3), "none")

        found = interval(kappa, len(rows), [row["instruction"] for row in rows])
        assert found.value == pytest.approx(cohen(human[:, i], human[:, j]))
        assert found.low <= told <= found.high
        assert abs(found.value - told) < 0.03


@pytest.mark.skipif(not LLMBAR.exists(), reason=f"real data are not at {DATA}")
def test_llmbar_kappas_between_orders_are_the_published_ones():
    published = json.loads((DATA / "llmbar" / "natural_published_stats.json").read_text())
    votes = {}
    with gzip.open(LLMBAR, "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        votes.setdefault(row["judge"], []).append((row["forward"], row["swapped"]))
    whole = {name: pairs for name, pairs in votes.items() if all(a and b for a, b in pairs)}
    assert len(whole) > 40
    for name, pairs in whole.items():
        one, other = zip(*pairs, strict=True)
        assert cohen(one, other) == pytest.approx(published[name]["kappa_agreement"], abs=1e-9)
