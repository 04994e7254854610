"""Reading and writing: every kind of file, what is broken in it, the cache, and `Examples`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boresight.data.example import Example, Message, Pair, Response, Score
from boresight.data.read import read
from boresight.data.table import ReadReport
from boresight.errors import InputError

ODD = "\u00e9\u4e2d\U0001f600"
ROWS = [{"prompt": f"q{i} {ODD}", "chosen": f"good {i}\nmore", "rejected": f"bad, {i}"} for i in range(5)]
HEADLESS = '{"prompt": "q", "chosen": "a", "rejected": "b"}'


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BORESIGHT_CACHE", str(folder))
    return folder


def plain(examples: Any) -> list[Example]:
    return [replace(e, source=None) for e in examples]


def save_as(kind: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / f"data.{kind}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if kind in ("jsonl", "ndjson", "txt"):
        path.write_text(lines, "utf-8")
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=2), "utf-8")
    elif kind == "json.gz":
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    elif kind == "lines.json":
        path.write_text(lines, "utf-8")
    elif kind == "under.json":
        path.write_text(json.dumps({"version": 1, "data": rows}), "utf-8")
    elif kind == "columns.json":
        path.write_text(json.dumps({key: [row[key] for row in rows] for key in rows[0]}), "utf-8")
    elif kind in ("csv", "csv.gz"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
        path.write_bytes(gzip.compress(data) if kind == "csv.gz" else data)
    elif kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        from datasets import Dataset, DatasetDict

        table = Dataset.from_list(rows)
        (DatasetDict(train=table) if kind == "splits" else table).save_to_disk(path)
    return path


KINDS = ["jsonl", "jsonl.gz", "ndjson", "txt", "json", "json.gz", "lines.json", "under.json", "columns.json", "csv",
         "csv.gz", "parquet", "saved", "splits"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_examples(kind: str, tmp_path: Path) -> None:
    examples = read(save_as(kind, ROWS, tmp_path))
    assert plain(examples) == [
        Example(row["prompt"], (Response(row["chosen"]), Response(row["rejected"])), pairs=(Pair(0, 1),))
        for row in ROWS
    ]
    assert (examples.report.format, examples.report.read, examples.report.skipped) == ("paired", 5, 0)


@pytest.mark.parametrize("kind", ["parquet", "saved", "jsonl"])
def test_nested_rows(kind: str, tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "q"}]
    rows = [
        {
            "chosen": [*turn, {"role": "assistant", "content": side}],
            "rejected": [*turn, {"role": "assistant", "content": "b"}],
        }
        for side in "xy"
    ]
    examples = read(save_as(kind, rows, tmp_path))
    assert [e.responses[0].content for e in examples] == ["x", "y"]
    assert examples[0].prompt == (Message("user", "q"),)


def test_sources_name_the_line_a_row_begins_on(tmp_path: Path) -> None:
    lines = read(save_as("jsonl", ROWS, tmp_path))
    assert [e.source for e in lines] == [f"data.jsonl:{i}" for i in range(1, 6)]
    assert lines.report.source == str(tmp_path / "data.jsonl")
    # Each row of the CSV takes two lines, each object of the indented JSON five.
    assert [e.source for e in read(save_as("csv", ROWS, tmp_path))] == [f"data.csv:{i}" for i in range(2, 12, 2)]
    assert [e.source for e in read(save_as("json", ROWS, tmp_path))] == [f"data.json:{i}" for i in range(2, 27, 5)]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    for kind in ("jsonl", "json", "csv", "under.json"):
        path = save_as(kind, ROWS, tmp_path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(read(path)) == 5


def test_a_folder_with_data_files(tmp_path: Path) -> None:
    save_as("jsonl", ROWS, tmp_path).rename(tmp_path / "train.jsonl")
    (tmp_path / "README.md").write_text("not data")
    assert len(read(tmp_path)) == 5
    assert len(read(str(tmp_path), split="whatever")) == 5
    save_as("csv", ROWS[:2], tmp_path).rename(tmp_path / "test.csv")
    assert len(read(tmp_path, split="test")) == 2
    with pytest.raises(InputError, match=r"several data files: test\.csv, train\.jsonl"):
        read(tmp_path, split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data file"):
        read(tmp_path / "empty")


def test_splits_of_a_saved_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split trian\n.*did you mean train"):
        read(save_as("splits", ROWS, tmp_path), split="trian")


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, *, split: str) -> Any:
        asked.append((name, config, split))
        if name == "nobody/nothing":
            raise ConnectionError("Couldn't reach the Hub\nmore")
        if name == "stored":  # as from the hub: Arrow files in the cache of `datasets`
            data = str(save_as("jsonl", ROWS, tmp_path))
            return real("json", data_files=data, split=split, cache_dir=str(tmp_path / "datasets"))
        return datasets.Dataset.from_list(ROWS)

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load)
    examples = read("owner/name:config", split="test")
    assert (len(examples), examples.report.source, examples[1].source) == (
        5,
        "owner/name:config",
        "owner/name:config:2",
    )
    assert plain(read("name")) == plain(examples)
    assert asked == [("owner/name", "config", "test"), ("name", None, "train")]
    stored = read("stored")
    assert plain(stored) == plain(examples)
    assert read("stored").fingerprint == stored.fingerprint
    with pytest.raises(InputError, match=r"nobody/nothing: neither a file here nor .*ConnectionError: Couldn't reach"):
        read("nobody/nothing")


def test_a_list_of_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = save_as("jsonl", ROWS, tmp_path / "a"), save_as("csv", ROWS[:2], tmp_path / "b")
    both = read([first, str(second)])
    assert plain(both) == plain(read(first)) + plain(read(second))
    assert [e.source for e in both[4:6]] == ["data.jsonl:5", "data.csv:2"]
    again = read([first, save_as("jsonl", ROWS, tmp_path / "b")])
    assert again[9].source == f"{tmp_path}/b/data.jsonl:5"  # two files of one name are told apart by their paths


def test_rows_in_memory_and_from_a_generator(tmp_path: Path, cache: Path) -> None:
    own = Example("own", (Response("a"),), source="elsewhere:3")
    for rows in ([*ROWS, own], iter([*ROWS, own])):
        examples = read(rows)
        assert len(examples) == 6
        assert (examples[0].source, examples[5]) == ("row:1", own)
    assert plain(read([own])) == plain(read(iter([own]))) == [replace(own, source=None)]
    assert read(examples) is examples
    assert len(read(examples, limit=2)) == read(examples, limit=2).report.read == 2
    for nothing in ([], {}, 3, iter(())):
        with pytest.raises(InputError):
            read(nothing)  # type: ignore[arg-type]


# What is wrong with a file.

LINES: list[tuple[bytes, str, str]] = [
    (b'{"prompt": "q", "chosen"', "a JSON object", "broken JSON in column 25"),
    (b"[1, 2]", "an object with keys", "a list of 2"),
    (b"null", "an object with keys", "null"),
    (b'"text"', "an object with keys", 'the text "text"'),
    (b'{"prompt": "q\xff", "chosen": "a"}', "UTF-8 text", "the byte 0xff in column 14"),
    (b'{"prompt": "q", "chosen": "\\ud83d", "rejected": "b"}', "valid Unicode text", "half a character (U+D83D) at 0"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "a JSON object", "JSON with a number that is too long"),
    (b'{"prompt": ' * 100_000, "a JSON object", "JSON that is nested too deeply"),
]


@pytest.mark.parametrize(("line", "expected", "found"), LINES, ids=range(len(LINES)))
def test_a_broken_line_is_skipped_counted_and_named(line: bytes, expected: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(HEADLESS.encode() + b"\n\n  \n" + line + b"\n" + HEADLESS.encode())
    report = read(path).report
    assert (report.read, report.skipped) == (2, 1)
    (problem,) = report.problems
    assert (problem.file, problem.line, problem.expected) == ("data.jsonl", 4, expected)
    assert found in problem.found
    with pytest.raises(InputError, match=r"data\.jsonl:4: .*expected"):
        read(path, strict=True)  # although it is in the cache
    fresh = tmp_path / "other.jsonl"
    fresh.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"other\.jsonl:4: .*expected"):
        read(fresh, strict=True)


def test_broken_csv(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(
        b"prompt,chosen,rejected\nq,a,b\nq,a\nq,a,b,c\n\nq,\xff,b\nq,,b\n" + b'q,"' + b"x" * 200_000 + b'",b\n'
    )
    report = read(path).report
    assert report.read == 2
    assert [(p.line, p.key) for p in report.problems] == [(3, ""), (4, ""), (6, "chosen"), (7, "chosen")]
    assert report.problems[0].expected == "3 cells, as in the header"


def test_empty_cells_of_optional_numbers_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("prompt,chosen,rejected,weight,score_chosen,score_rejected\nq,a,b,,,\nq,a,b,2,1,0.5\n")
    first, second = read(path, strict=True)
    assert (first.pairs, first.scores) == ((Pair(0, 1),), ())
    assert (second.pairs, second.scores) == ((Pair(0, 1, 2.0),), (Score(0, 1.0), Score(1, 0.5)))


def test_counts_are_exact_and_problems_are_the_first_fifty(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([HEADLESS] * 21 + ["?"] * 2345))
    report = read(path).report
    assert (report.read, report.skipped, len(report.problems)) == (21, 2345, 50)
    assert [p.line for p in report.problems] == list(range(22, 72))
    assert ReadReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    lines = report.lines()
    assert lines[0] == f"{path}: 21 examples, read as paired"
    assert "2,345 rows" in lines[1]
    assert lines[2].startswith("  data.jsonl:22: expected a JSON object; found broken JSON")
    assert lines[-1] == "  and 2,335 more"


UNUSABLE: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b"", "the file is empty"),
    ("a.csv", b" \n ", "the file is empty"),
    ("a.csv", b"prompt,chosen,rejected\n", "there are no rows"),
    ("a.json", b"[]", "there are no rows"),
    ("a.json", b"[ ", "broken JSON"),
    ("a.jsonl.gz", gzip.compress(b""), "the file is empty"),
    ("a.jsonl", bytes(range(256)), "binary data"),
    ("a.jsonl", HEADLESS.encode("utf-16"), "UTF-16"),
    ("a.jsonl", b"one\ntwo\n", "none of the first 2 rows can be read; the first: a.jsonl:1: expected a JSON object"),
    ("a.jsonl", b'{"a": 1}\n{"a": 1}', "in no format that is known; they have the keys a"),
    ("a.jsonl", b'{"prompt": "q", "chosen": "a"}', "in no format that is known; they have the keys prompt, chosen"),
    ("a.jsonl", b'{"prompt": "q", "chosen": "", "rejected": "b"}', "none of its 1 rows can be read as paired"),
    ("a.jsonl.gz", gzip.compress(HEADLESS.encode() * 99)[:-20], "the gzip data is damaged"),
    ("a.parquet", HEADLESS.encode(), "it is not a Parquet file"),
    ("a.parquet", b"PAR1" + b"x" * 100, "the Parquet file is damaged"),
    ("a.json", b"[" + HEADLESS.encode() + b",\n{1}]", "a.json:2: broken JSON"),
    ("a.json", b"[" + HEADLESS.encode() + b"\n" + HEADLESS.encode() + b"]", "expected a comma"),
    ("a.json", b"[" + HEADLESS.encode() + b",", "broken JSON"),
    ("a.json", b'[{"a": ' + b"[" * 100_000, "nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "message"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_an_unusable_file(name: str, data: bytes, message: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    assert message in error.value.what
    assert str(tmp_path / name) in error.value.what
    assert error.value.mend
    assert error.value.exit_code == 2
    assert not list(cache.rglob("*.arrow"))


def test_the_nearest_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the nearest is paired \(prompt, chosen, rejected\), which lacks rejected"):
        read([{"prompt": "q", "chosen": "a", "worse": "b"}])


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    save_as("jsonl", ROWS, tmp_path)
    with pytest.raises(InputError, match=r"no such file or folder\n.*did you mean data\.jsonl"):
        read(tmp_path / "dtaa.jsonl")
    with pytest.raises(InputError, match="nor the folder"):
        read(tmp_path / "x" / "y.jsonl")


def test_options_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit 0"):
        read(ROWS, limit=0)
    with pytest.raises(InputError, match=r"no column chose to rename\n.*did you mean chosen"):
        read(ROWS, columns={"chose": "chosen"})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the cache folder .* cannot be made"):
        read(save_as("jsonl", ROWS, tmp_path), cache=tmp_path / "file")


def test_columns_and_limit(tmp_path: Path) -> None:
    path = save_as(
        "jsonl", [{"prompt": "q", "better": str(i), "worse": "b", "rejected": "?"} for i in range(9)], tmp_path
    )
    examples = read(path, columns={"better": "chosen", "worse": "rejected"}, limit=4)
    assert [[r.content for r in e.responses] for e in examples] == [[str(i), "b"] for i in range(4)]
    assert examples.report.read == 4


# The cache.


def test_the_cache_goes_by_content(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_as("jsonl", ROWS, tmp_path)
    first = read(path)
    (tmp_path / "copy").mkdir()
    copy = save_as("jsonl", ROWS, tmp_path / "copy")
    with monkeypatch.context() as patch:
        patch.setattr("boresight.data.read._Reading.run", lambda *_: pytest.fail("it was read again"))
        assert read(copy).fingerprint == first.fingerprint
        assert read(copy).report.source == str(copy)
        assert list(read(copy)) == list(first)
    text = path.read_text("utf-8")
    path.write_text(text.replace("good 3", "fine 3"), "utf-8")  # the same length
    changed = read(path)
    assert changed.fingerprint != first.fingerprint
    assert changed[3].responses[0].content == "fine 3\nmore"
    prints = {
        first.fingerprint,
        read(copy, limit=2).fingerprint,
        read(copy, columns={"prompt": "question"}).fingerprint,
    }
    assert len(prints | {read(copy, format="demonstrations", columns={"chosen": "output"}).fingerprint}) == 4
    stored = sorted(p.name for p in (cache / "data").iterdir())
    assert all(name.endswith((".arrow", ".json")) for name in stored)


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = save_as("jsonl", ROWS, tmp_path)
    expected = list(read(path))
    for stored in list((cache / "data").iterdir()):
        stored.write_bytes(b"damaged")
        assert list(read(path)) == expected


def test_what_is_interrupted_leaves_nothing(cache: Path) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield from ROWS * 500
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(rows())
    assert not list((cache / "data").iterdir())


MEMORY = """
import sys
from boresight.data.read import read

def peak():  # in KiB; not ru_maxrss, which a process inherits from the one that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

read(sys.argv[1])
before = peak()
examples = read(sys.argv[2])
after = peak()
kept = list(examples)
print(len(examples), after - before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_memory_does_not_grow_with_the_file(kind: str, tmp_path: Path) -> None:
    """80,000 rows, 84 MB: reading may cost a few record batches, where holding the examples costs them all."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    row = json.dumps({"prompt": "p" * 200, "chosen": "c" * 400, "rejected": "r" * 400})
    small, big = tmp_path / f"small.{kind}", tmp_path / f"big.{kind}"
    for path, count in ((small, 3000), (big, 80_000)):
        with path.open("w") as file:
            file.write("[" if kind == "json" else "")
            for i in range(count):
                file.write(row + (",\n" if kind == "json" and i < count - 1 else "\n"))
            file.write("]" if kind == "json" else "")
    done = subprocess.run([sys.executable, "-c", MEMORY, small, big], capture_output=True, text=True, check=True)
    count, grown, held = map(int, done.stdout.split())
    assert count == 80_000
    assert grown < 40_000, f"{grown} KiB"
    assert held > 80_000, f"{held} KiB: the measurement does not see memory"
