"""Weights of labelled responses: read, kept, and what they do to the gradient of a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import boresight as bs
from boresight.data.example import Example, Label, Pair, Response
from boresight.data.views import graded, labelled
from boresight.data.write import write
from boresight.training import coupled, step
from proofs import job_of, save_family

ROWS = [
    {"prompt": "the cat sat", "completion": "on a warm mat", "label": True},
    {"prompt": "two small", "completion": "dogs run", "label": False},
    {"prompt": "in the garden", "completion": "of my old house", "label": True},
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("base") / "model", initializer_range=0.1)


def save(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_weight_is_read_written_and_read_back(tmp_path) -> None:
    rows = [ROWS[0] | {"weight": 2.5}, ROWS[1]]
    found = bs.read(save(tmp_path / "a.jsonl", rows), cache=tmp_path / "cache")
    assert [e.labels for e in found] == [(Label(0, True, weight=2.5),), (Label(0, False),)]
    assert found.report.unused == ()
    write(found, tmp_path / "own.jsonl")
    again = bs.read(tmp_path / "own.jsonl", cache=tmp_path / "cache")
    assert [e.labels for e in again] == [e.labels for e in found]


@pytest.mark.parametrize("weight", [0, -1.5, "much"])
def test_a_weight_that_is_none_is_told(tmp_path, weight) -> None:
    rows = [ROWS[0] | {"weight": weight}, ROWS[1]]
    report = bs.read(save(tmp_path / "a.jsonl", rows), cache=tmp_path / "cache").report
    assert (report.read, report.skipped) == (1, 1)
    assert report.problems[0].key == "weight"


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_an_example_has_no_label_of_such_weight(weight: float) -> None:
    with pytest.raises(ValueError, match="label's weight"):
        Example("q", (Response("a"),), labels=(Label(0, True, weight=weight),))


def test_what_is_seen_as_labels_or_lists_keeps_the_weight() -> None:
    two = (Response("a"), Response("b"))
    pair = Example("q", two, pairs=(Pair(1, 0, 3.0, annotator="x"),))
    assert labelled(pair) == [Label(1, True, "x", 3.0), Label(0, False, "x", 3.0)]
    votes = (Label(0, True, weight=3.0), Label(0, False), Label(1, True), Label(1, False))
    assert graded(Example("q", two, labels=votes)) == [{0: 0.75, 1: 0.5}]


def gradient(base: Path, data: Path, method: str, divisor: float, **words: object) -> tuple[list[torch.Tensor], list]:
    job = job_of(base, data, method=method, batch=2, micro_batch=2, beta=0.5, **words)
    numbers = list(range(len(job.rows)))
    context = job.context(0, {"mismatched_kl": torch.tensor(0.2)} if method == "kto" else None)
    with torch.no_grad():  # away from the reference, where losses are of different steepness
        torch.manual_seed(0)
        for p in job.model.parameters():
            p.add_(0.03 * torch.randn_like(p))
    way = coupled.accumulate if job.objective.over == "batch" else step.accumulate
    way(job, numbers, context, divisor, 0, Path("never"))
    return [p.grad.clone() for p in job.model.parameters() if p.grad is not None], [row.weight for row in job.rows]


@pytest.mark.parametrize(("method", "words"), [("kto", {}), ("bco", {"shift": False}), ("pmpo", {})])
def test_weight_2_is_the_row_twice(base, tmp_path, method: str, words: dict) -> None:
    """For one divisor of both, since the loop divides by how many rows there are, and not by their weights."""
    heavy = save(tmp_path / "heavy.jsonl", [ROWS[0], ROWS[1] | {"weight": 2}, ROWS[2]])
    twice = save(tmp_path / "twice.jsonl", [ROWS[0], ROWS[1], ROWS[1], ROWS[2]])
    plain = save(tmp_path / "plain.jsonl", ROWS)
    one, weights = gradient(base, heavy, method, 3.0, **words)
    two, ones = gradient(base, twice, method, 3.0, **words)
    bare, _ = gradient(base, plain, method, 3.0, **words)
    assert (weights, ones) == ([1.0, 2.0, 1.0], [1.0] * 4)
    scale = max(float(g.abs().max()) for g in two)
    apart = max(float((a - b).abs().max()) for a, b in zip(bare, two, strict=True))
    assert apart > 0.05 * scale
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale)
