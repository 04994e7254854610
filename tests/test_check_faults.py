"""Every planted fault is found, with its exact count and rows, and nothing else is; a clean file has no finding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from boresight.cli import main
from boresight.data.check import CheckResult, check
from boresight.data.example import Example, Pair, Response
from check_faults import FAULTS, Fault, clean, labelled, voted, written


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def looked(fault: Fault, folder: Path) -> CheckResult:
    data, other = folder / "data.jsonl", folder / "other.jsonl"
    data.write_text(written(fault.plant(clean())), "utf-8")
    if fault.other is not None:
        other.write_text(written(fault.other), "utf-8")
    return check(data, against=other if fault.other is not None else None, **fault.options)


@pytest.mark.parametrize("rows", [clean(), voted(clean()), labelled(clean()), clean(1200, 3)], ids=len)
def test_a_clean_file_has_no_finding(rows: list, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(written(rows), "utf-8")
    (tmp_path / "other.jsonl").write_text(written(clean(100, 9)), "utf-8")
    result = check(tmp_path / "data.jsonl", against=tmp_path / "other.jsonl")
    assert [str(f) for f in result.findings] == []
    assert main(["check", str(tmp_path / "data.jsonl"), "--fail-on", "note", "--json"]) == 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    result = looked(fault, tmp_path)
    found = [f for f in result.findings if f.id == fault.id]
    assert len(found) == 1, [str(f) for f in result.findings]
    finding = found[0]
    if fault.count:
        assert finding.count == fault.count
    if fault.lines is not None:
        shown = [f"data.jsonl:{line}" for line in fault.lines[:3]]
        assert [source for source, _ in finding.examples][: len(shown)] == shown
        if finding.id != "unreadable-rows":  # those are no examples, and have no number
            sources = [result.examples[int(row)].source for row in finding.rows]
            assert sources == [f"data.jsonl:{line}" for line in fault.lines]
    if fault.severity:
        assert finding.severity == fault.severity
    others = {f.id for f in result.findings} - {fault.id, *fault.also}
    assert others == set(), [str(f) for f in result.findings]
    assert finding.effect
    assert finding.mend
    assert len(finding.examples) <= 3


def test_at_least_25_faults_are_planted() -> None:
    assert len({fault.id for fault in FAULTS.values()}) >= 25


def test_lone_surrogates_are_found_in_examples_in_memory() -> None:
    bad = Example("Why?", (Response("so \ud800"), Response("not so")), (Pair(0, 1),))
    result = check([bad, Example("How?", (Response("so"), Response("not so")), (Pair(0, 1),))])
    assert [(f.id, f.count, f.examples) for f in result.findings] == [
        ("lone-surrogates", 1, [("example 0", "U+D800")]),
    ]


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 0), ("note", 1)])
def test_exit_codes_follow_fail_on(fail_on: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(written(FAULTS["ties"].plant(clean())), "utf-8")
    assert main(["check", str(data), "--fail-on", fail_on]) == code
    assert main(["check", str(data), "--fail-on", "notes"]) == 2
    assert "note" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["identical sides", "copies", "a reversed copy", "an empty answer", "both labels"])
def test_fix_takes_out_what_was_planted_and_nothing_else(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    result = looked(fault, tmp_path)
    out = tmp_path / "fixed" / "clean.jsonl"
    fixed = result.fix(out)
    changes = [json.loads(line) for line in (tmp_path / "fixed" / "clean.changes.jsonl").read_text().splitlines()]
    assert {c["source"] for c in changes} == {f"data.jsonl:{line}" for line in fault.lines}
    assert {c["why"] for c in changes} == {fault.id}
    assert fixed.changed == {fault.id: len(changes)}
    assert fixed.written == 300 - len(changes)
    again = check(out)
    assert again.findings == []
    kept = {example.source: example.to_row() for example in again.examples}
    untouched = [e for i, e in enumerate(result.examples) if i not in result.findings[0].rows]
    assert all(kept[e.source] == e.to_row() for e in untouched)


def test_fix_of_everything_at_once_and_never_over_a_file(tmp_path: Path) -> None:
    rows = FAULTS["identical sides"].plant(FAULTS["broken JSON"].plant(clean()))
    rows += [rows[0], rows[1], {**rows[2 - 1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}]
    data, out = tmp_path / "data.jsonl", tmp_path / "clean.jsonl.gz"
    data.write_text(written(rows), "utf-8")
    result = check(data)
    assert {f.id for f in result.findings} == {
        "unreadable-rows", "identical-pairs", "duplicate-rows", "reversed-duplicates",
    }  # fmt: skip
    fixed = result.fix(out)
    # Row 2 stands three times: twice as it was, once reversed. The majority stays, and of it the first.
    assert fixed.changed == {
        "unreadable-rows": 2, "identical-pairs": 2, "duplicate-rows": 2, "reversed-duplicates": 1,
    }  # fmt: skip
    assert fixed.written == 300 - 2 - 2
    assert check(out).findings == []
    before = out.read_bytes()
    assert main(["check", str(data), "--fix", str(out)]) == 2
    assert out.read_bytes() == before
    assert main(["check", str(data), "--fix", str(data)]) == 2
    assert data.read_text("utf-8") == written(rows)


def test_fix_of_ranks_labels_and_several_pairs(tmp_path: Path) -> None:
    a, b, c = Response("one"), Response("two"), Response("three")
    data = [
        Example("P", (a, b, c), (Pair(0, 1), Pair(1, 2), Pair(1, 0)), source="d:1"),
        Example("Q", (a, b, c), ranks=(1, 2, 3), source="d:2"),
        Example("Q", (a, b, c), ranks=(1, 2, 3), source="d:3"),
        Example("R", (a, Response(" "), c), ranks=(1, 2, 3), source="d:4"),
        Example("S", (a, b), ranks=(1, 2), source="d:5"),
        Example("S", (b, a), ranks=(1, 2), source="d:6"),
        Example("T", (Response(""), b), (Pair(1, 0),), source="d:7"),
    ]
    result = check(data)
    fixed = result.fix(tmp_path / "out.jsonl")
    left = {e.source: e for e in check(tmp_path / "out.jsonl").examples}
    assert set(left) == {"d:1", "d:2", "d:4"}
    assert left["d:1"].pairs == (Pair(1, 2),)  # the two that contradict each other are even: both go
    assert (left["d:4"].responses, left["d:4"].ranks) == ((a, c), (1, 3))
    assert fixed.changed == {"reversed-duplicates": 4, "duplicate-rows": 1, "empty-responses": 2}
    assert check(tmp_path / "out.jsonl").findings == []


def test_near_prompts_are_those_that_brute_force_finds(tmp_path: Path) -> None:
    """MinHash against all pairs, by an independent count of three-word runs, around the threshold."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    base = [" ".join(rng.choice(words, 24)) for _ in range(60)]

    def worn(text: str, changes: int) -> str:
        parts = text.split()
        for place in rng.choice(len(parts), changes, replace=False):
            parts[place] = "x" + parts[place]
        return " ".join(parts)

    mine = [worn(text, int(rng.integers(1, 4))) for text in base]

    def runs(text: str) -> set[tuple[str, ...]]:
        parts = text.split()
        return {tuple(parts[i : i + 3]) for i in range(len(parts) - 2)}

    near = [
        i
        for i, text in enumerate(mine)
        if any(len(runs(text) & runs(o)) / len(runs(text) | runs(o)) >= 0.7 for o in base)
    ]
    assert 5 < len(near) < 55
    rows = [
        [{"prompt": p, "chosen": f"yes {k}", "rejected": f"no {k}"} for k, p in enumerate(ps)] for ps in (mine, base)
    ]
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, lines in zip(paths, rows, strict=True):
        path.write_text(written(lines), "utf-8")
    finding = next(f for f in check(paths[0], against=paths[1]).findings if f.id == "near-prompts")
    assert finding.rows.tolist() == near
