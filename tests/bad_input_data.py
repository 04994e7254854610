"""Data that cannot be used: files, lines, cells, and what is left of them as rows."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

from bad_input import Case, Here, case, pairs, plain_case

GOOD = {"prompt": "q", "chosen": "a cat", "rejected": "a dog"}


def check(path: Path | str, *words: str) -> list[str]:
    return ["check", str(path), *words]


# Files


@case("a file that is missing, with its neighbour named")
def _(here: Here) -> Case:
    here.good()
    return Case(check(here.folder / "godo.jsonl"), ("godo.jsonl", "did you mean good.jsonl?"))


@case("a folder that is missing")
def _(here: Here) -> Case:
    return Case(here.train(data=here.folder / "no" / "x.jsonl"), ("no/x.jsonl", "nor the folder"))


plain_case("a binary file", lambda h: check(h.file("a.jsonl", bytes(range(256)) * 9)), "a.jsonl", "binary")
plain_case("text in UTF-16", lambda h: check(h.file("a.jsonl", json.dumps(GOOD).encode("utf-16"))), "UTF-16")
plain_case("an empty file", lambda h: check(h.file("a.jsonl")), "a.jsonl", "empty")
plain_case("an empty file in training", lambda h: h.train(data=h.file("a.jsonl", " \n")), "a.jsonl", "empty")
plain_case("a folder without data", lambda h: check(h.file("d/readme.txt", "x").parent), "/d:", "no data file")
plain_case(
    "a folder with several files",
    lambda h: check(h.file("d/a.csv", "x").parent if h.file("d/b.csv", "x") else ""),
    "a.csv, b.csv",
)
plain_case("a name longer than names may be", lambda h: check(h.folder / ("x" * 300 + ".jsonl")), "File name too long")


@case("a file that may not be read")
def _(here: Here) -> Case:
    path = here.good()
    if os.geteuid() == 0:  # whom permissions do not stop; reading at 0 of this one fails all the same
        path.unlink()
        path.symlink_to("/proc/self/mem")
    else:
        path.chmod(0)
    return Case(check(path), ("good.jsonl: cannot be read",))


@case("a pipe in place of a file")
def _(here: Here) -> Case:
    os.mkfifo(here.folder / "pipe.jsonl")
    return Case(check(here.folder / "pipe.jsonl"), ("pipe.jsonl", "not a regular file"))


@case("links that lead to each other")
def _(here: Here) -> Case:
    (here.folder / "a.jsonl").symlink_to(here.folder / "b.jsonl")
    (here.folder / "b.jsonl").symlink_to(here.folder / "a.jsonl")
    return Case(check(here.folder / "a.jsonl"), ("a.jsonl", "no such file"))


@case("a gzip file that breaks off")
def _(here: Here) -> Case:
    path = here.file("a.jsonl.gz", gzip.compress(here.good(500).read_bytes())[:-20])
    return Case(here.train(data=path), ("a.jsonl.gz", "gzip"))


@case("a Parquet file that breaks off")
def _(here: Here) -> Case:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(pairs(50)), sink)
    return Case(check(here.file("a.parquet", sink.getvalue()[:-300])), ("a.parquet", "Parquet"))


plain_case("a JSON list that breaks off", lambda h: check(h.file("a.json", '[{"a": 1},')), "a.json:1", "broken JSON")
plain_case("JSON without rows", lambda h: check(h.file("a.json", "3")), "a.json", "the number 3")
plain_case(
    "JSON nested without end",
    lambda h: check(h.file("a.json", "[" * 200_000)),
    "a.json:1",
    "nested too deeply",
)
plain_case(
    "JSON lines nested without end",
    lambda h: check(h.file("a.jsonl", '{"a":' * 200_000)),
    "a.jsonl:1",
    "nested too deeply",
)


# Lines and cells


@case("broken JSON on line 70,001, strict")
def _(here: Here) -> Case:
    line = json.dumps(GOOD) + "\n"
    path = here.file("a.jsonl", line * 70_000 + '{"prompt": "q", "chosen"\n' + line)
    return Case(here.train(data=path, strict="true"), ("a.jsonl:70001", "broken JSON in column 25"))


@case("broken JSON on line 70,001, counted")
def _(here: Here) -> Case:
    line = json.dumps(GOOD) + "\n"
    path = here.file("a.jsonl", line * 70_000 + '{"prompt": "q", "chosen"\n' + line)
    return Case(check(path, "--limit", "70001"), ("a.jsonl:70001", "broken JSON in column 25"), code=1)


plain_case(
    "a wrong key",
    lambda h: check(h.rows({"prompt": "q", "chosen": "a", "worse": "b"})),
    "prompt, chosen, worse",
    "lacks rejected",
)
plain_case(
    "a wrong type",
    lambda h: h.train(data=h.rows(GOOD | {"chosen": 3})),
    "data.jsonl:1: chosen",
    "the number 3",
)
plain_case(
    "one response where pairs are wanted",
    lambda h: h.train(data=h.rows({"prompt": "q", "completion": "a"})),
    "no training row is left of 1 examples",
    "use a method that takes the feedback",
)
plain_case(
    "one response in a list of them",
    lambda h: check(h.rows({"prompt": "q", "responses": ["a"], "ranks": [1]})),
    "data.jsonl:1",
    "at least 2 responses",
)
for _name, _text in (("NaN", "NaN"), ("infinite", "-Infinity"), ("endless", "1e999"), ("huge", "9" * 400)):
    plain_case(
        f"a score that is {_name}",
        lambda h, text=_text: check(
            h.file("a.jsonl", f'{{"prompt": "q", "responses": ["a", "b"], "scores": [1, {text}]}}')
        ),
        "a.jsonl:1: scores[1]",
        "a finite number",
    )
plain_case(
    "a wrong label",
    lambda h: check(h.rows({"prompt": "q", "completion": "a", "label": "maybe"})),
    "data.jsonl:1: label",
    'true or false (or 1 or 0); found the text "maybe"',
)
plain_case(
    "an empty prompt and answer", lambda h: check(h.rows(GOOD | {"prompt": "", "chosen": ""})), "chosen", "empty"
)
plain_case(
    "a negative weight",
    lambda h: check(h.rows(GOOD | {"weight": -1})),
    "data.jsonl:1: weight",
)
plain_case(
    "half a character in an escape",
    lambda h: h.train(data=h.file("a.jsonl", '{"prompt": "q", "chosen": "a \\ud83d", "rejected": "b"}')),
    "a.jsonl:1: chosen",
    "U+D83D",
)
plain_case(
    "bytes that are no UTF-8",
    lambda h: check(h.file("a.jsonl", b'{"prompt": "q", "chosen": "\xff\xfe", "rejected": "b"}')),
    "a.jsonl:1",
    "0xff in column 28",
)
plain_case(
    "bytes that are no UTF-8 in CSV",
    lambda h: check(h.file("a.csv", b"prompt,chosen,rejected\nq,\xff,b\n")),
    "a.csv:2: chosen",
    "valid Unicode",
)
plain_case("CSV without a column", lambda h: check(h.file("a.csv", "prompt,chosen\nq,a\n")), "a.csv", "lacks rejected")
plain_case(
    "CSV with too many cells",
    lambda h: h.train(data=h.file("a.csv", "prompt,chosen,rejected\nq,a,b,c\n")),
    "a.csv:2",
    "3 cells, as in the header",
)
plain_case("CSV that is a header alone", lambda h: check(h.file("a.csv", "prompt,chosen,rejected\n")), "no rows")
plain_case(
    "CSV with a column named twice",
    lambda h: check(h.file("a.csv", "prompt,chosen,rejected,chosen\nq,a,b,c\n")),
    "a.csv",
    "chosen",
    "twice",
)
plain_case(
    "rows of two schemas, strict",
    lambda h: h.train(data=h.rows(*[GOOD] * 5, {"prompt": "q", "completion": "c", "label": True}), strict="true"),
    "data.jsonl:6: chosen",
    "expected a response",
)
plain_case(
    "rows of two schemas, counted",
    lambda h: check(h.rows(*[GOOD] * 5, {"prompt": "q", "completion": "c", "label": True})),
    "data.jsonl:6",
    "chosen",
    code=1,
)
plain_case("a format that is unknown", lambda h: check(h.good(), "--format", "piared"), "piared", "did you mean paired")
plain_case(
    "a format by a path that does not import",
    lambda h: check(h.good(), "--format", "no.such"),
    "no.such",
    "No module named",
)
plain_case("a limit of nothing", lambda h: check(h.good(), "--limit", "0"), "--limit", "greater than or equal to 1")


# What is left of them as rows


plain_case(
    "pairs that are all identical",
    lambda h: h.train(data=h.rows(GOOD | {"rejected": "a cat"}, times=9)),
    "no training row is left of 9 examples",
    "look at how the data was made",
)
plain_case("identical pairs, checked", lambda h: check(h.rows(GOOD | {"rejected": "a cat"})), "data.jsonl:1", code=1)
plain_case(
    "rows that are all too long",
    lambda h: h.train(data=h.rows(GOOD | {"prompt": "on the mat " * 99}), max_length=20),
    "no training row is left of 1 examples",
    "raise max_length",
)
plain_case(
    "prompts that are all equal, for KTO",
    lambda h: h.train(data=h.rows({"prompt": "q", "completion": "a", "label": True}, times=4), method="kto"),
    "have the same prompt",
    "at least two different prompts",
)
plain_case(
    "labels where there are none",
    lambda h: h.train(data=h.rows({"prompt": "q", "completion": "a"}, times=4), method="kto"),
    "labels or scores",
)


# The hub


plain_case(
    "a name on a hub that may not be asked",
    lambda h: check("nobody/no-such-data"),
    "nobody/no-such-data",
    "HF_HUB_OFFLINE",
    env={"HF_HUB_OFFLINE": "1"},
    seconds=10,
)
plain_case(
    "an address in place of a name",
    lambda h: check("https://example.org/prefs.jsonl"),
    "https://example.org/prefs.jsonl",
    "download",
)
