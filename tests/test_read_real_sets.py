"""The real data sets are read as they lie: exact counts, texts to the letter, and the authors' own figures."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from boresight.data.example import Message, Pair
from boresight.data.read import read
from boresight.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if ".csv" in path.name else [json.loads(line) for line in file]


@pytest.mark.parametrize(("split", "count", "skipped"), [("train", 3138, [478, 1282]), ("test", 797, [])])
def test_hh_helpful(real_data: Path, split: str, count: int, skipped: list[int]) -> None:
    examples = read(real_data / "hh-helpful", split=split)
    assert (examples.report.format, examples.report.read + examples.report.skipped) == ("paired", count)
    assert [p.line for p in examples.report.problems] == skipped  # their rejected sides end in an empty answer
    raw = rows_of(real_data / "hh-helpful" / f"{split}.jsonl.gz")
    several = 0
    for example in examples:
        line = int(example.source.split(":")[1])  # type: ignore[union-attr]
        several += any(not isinstance(r.content, str) for r in example.responses)
        assert example.pairs == (Pair(0, 1),)
        assert not isinstance(example.prompt, str)
        for response, side in zip(example.responses, ("chosen", "rejected"), strict=True):
            after = (Message("assistant", response.content),) if isinstance(response.content, str) else response.content
            said = (("Human" if m.role == "user" else "Assistant", m.content) for m in (*example.prompt, *after))
            assert "".join(f"\n\n{who}: {text}" for who, text in said) == raw[line - 1][side]
    assert several == {"train": 9, "test": 3}[split]  # SOURCE.md: in 12 rows the sides part before the last turn


@pytest.mark.parametrize(("name", "count"), [("human", 6194), ("gpt4", 1483), ("gpt3", 1483)])
def test_llmfao_votes(real_data: Path, name: str, count: int) -> None:
    folder = real_data / "llmfao-arena"
    examples = read(folder / f"{name}_votes.csv.gz")
    assert (len(examples), examples.report.skipped, examples.report.format) == (count, 0, "llmfao")
    texts = {row["id"]: row for row in rows_of(folder / "pairs.jsonl.gz")}
    for example, row in zip(examples, rows_of(folder / f"{name}_votes.csv.gz"), strict=True):
        there = texts[int(row["id"])]
        left, right = example.responses
        assert (left.content, left.system) == (there["result_x"], row["left"])
        assert (right.content, right.system) == (there["result_y"], row["right"])
        assert (example.prompt, example.id) == (there["text"], row["id"])
        (pair,) = example.pairs
        assert pair.tie == (row["winner"] == "tie")
        assert pair.tie or pair.chosen == ("left", "right").index(row["winner"])
        assert pair.annotator == row.get("worker")


def test_llmfao_pairs_alone_have_no_feedback(real_data: Path) -> None:
    examples = read(real_data / "llmfao-arena" / "pairs.jsonl.gz")
    assert len(examples) == 1483
    assert not any(e.pairs or e.scores or e.labels for e in examples)


def test_llmfao_votes_without_their_texts(real_data: Path, tmp_path: Path) -> None:
    votes = tmp_path / "human_votes.csv.gz"
    votes.write_bytes((real_data / "llmfao-arena" / votes.name).read_bytes())
    with pytest.raises(InputError, match=r"put pairs\.jsonl\.gz into the same folder"):
        read(votes)
    # The file beside it is part of the content: with it there, and then with another, the result is another.
    texts = rows_of(real_data / "llmfao-arena" / "pairs.jsonl.gz")
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts if row["id"] != 0))
    some = read(votes)
    gone = sum(row["id"] == "0" for row in rows_of(votes))
    assert (some.report.read, some.report.skipped) == (6194 - gone, gone)
    assert "in pairs.jsonl" in some.report.problems[0].expected
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    assert len(read(votes)) == 6194


def test_pandalm(real_data: Path) -> None:
    examples = read(real_data / "pandalm-human" / "pairs.jsonl.gz")
    assert (len(examples), examples.report.skipped) == (487, 0)
    for example, row in zip(examples, rows_of(real_data / "pandalm-human" / "pairs.jsonl.gz"), strict=True):
        assert [0 if p.tie else p.chosen + 1 for p in example.pairs] == row["human"]
        assert [p.annotator for p in example.pairs] == ["human-1", "human-2", "human-3"]
        assert [(r.text, r.system) for r in example.responses] == [
            (row[f"response{i}"], row[f"system{i}"]) for i in (1, 2)
        ]
        assert example.prompt == row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")


@pytest.mark.parametrize(("name", "count", "votes"), [("natural", 100, 6500), ("neighbor", 134, 8710)])
def test_llmbar_reproduces_the_published_counts(real_data: Path, name: str, count: int, votes: int) -> None:
    folder = real_data / "llmbar"
    gold = read(folder / f"{name}.jsonl.gz")
    judged = read(folder / f"{name}_judge_votes.jsonl.gz")
    assert (len(gold), len(judged), judged.report.skipped) == (count, votes, 0)
    raw = rows_of(folder / f"{name}_judge_votes.jsonl.gz")
    assert judged.report.partial == sum(row["forward"] is None or row["swapped"] is None for row in raw)
    assert len({row["judge"] for row in raw}) == 65
    better = {e.id: e.pairs[0].chosen for e in gold}
    right: dict[str, Counter[str]] = defaultdict(Counter)
    for example in judged:
        for pair in example.pairs:
            judge, swapped, _ = (pair.annotator or "").partition(", swapped")
            right[judge]["correct_True" if swapped else "correct_False"] += pair.chosen == better[example.id]
    published = json.loads((folder / f"{name}_published_stats.json").read_text())
    assert set(right) == set(published)
    for judge, stats in published.items():
        for key in ("correct_False", "correct_True"):
            assert right[judge][key] == int(stats[key].split(" / ")[0]), (judge, key)


def test_persona(real_data: Path) -> None:
    files = sorted((real_data / "persona-statements").glob("*.jsonl.gz"))
    examples = read(files)
    assert (len(files), len(examples), examples.report.skipped) == (7, 7000, 0)
    sides = Counter((e.responses[0].content, e.responses[1].content) for e in examples)
    assert sides == {(" Yes", " No"): 3500, (" No", " Yes"): 3500}
    assert examples[6999].source == f"{files[-1].name}:1000"


def test_icai(real_data: Path) -> None:
    examples = read(real_data / "icai-synthetic" / "aligned_vqvtb.csv")
    with (real_data / "icai-synthetic" / "aligned_vqvtb.csv").open(newline="") as file:
        raw = list(csv.DictReader(file))
    assert len(examples) == len(raw) == 30
    for example, row in zip(examples, raw, strict=True):
        best = example.responses[example.pairs[0].chosen]
        assert f"Instruction: {example.prompt}\n\nOutput: {best.text}" == row[row["preferred_text"]]


@pytest.mark.parametrize("file", ["clinc-domains/utterances.jsonl.gz", "mt-bench-questions/question.jsonl.gz"])
def test_sets_without_feedback_are_refused_by_their_keys(real_data: Path, file: str) -> None:
    with pytest.raises(InputError, match="no format that is known; they have the keys") as error:
        read(real_data / file)
    assert all(key in error.value.what for key in rows_of(real_data / file)[0])
    assert "paired (prompt, chosen, rejected)" in error.value.mend
