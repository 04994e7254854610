"""Properties of reading, writing, checking, options and recipes, over arbitrary text and examples."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import boresight as bs
from boresight.cli.options import LONGEST, parse_options
from boresight.data.example import Example, Label, Message, Pair, Response, Score
from boresight.data.read import read
from boresight.data.write import write
from boresight.errors import InputError
from boresight.training.recipe import Recipe
from boresight.training.recipefile import read_recipe

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAID = ANY.filter(str.strip)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def outcome(call: Any) -> tuple[Any, Any]:
    """What it returns, or the InputError that it raises."""
    try:
        return call(), None
    except InputError as error:
        return None, error


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any example: text or messages, two to four responses, every kind of feedback."""
    turns = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "system"]), ANY), min_size=1, max_size=3)
    prompt = draw(st.one_of(ANY, turns.map(tuple)))
    count = draw(st.integers(2, 4))
    responses = tuple(Response(draw(ANY), draw(st.none() | ANY)) for _ in range(count))
    who = st.none() | ANY
    sides = st.permutations(range(count)).map(lambda order: order[:2])
    weight = st.floats(0.01, 100)
    pairs = [Pair(*draw(sides), draw(weight), draw(st.booleans()), draw(who)) for _ in range(draw(st.integers(0, 2)))]
    value = st.floats(allow_nan=False, allow_infinity=False, width=32)
    scores = [Score(i, draw(value), draw(SAID), draw(who)) for i in range(draw(st.integers(0, count)))]
    labels = [Label(i, draw(st.booleans()), draw(who), draw(weight)) for i in range(draw(st.integers(0, count)))]
    ranks = tuple(draw(st.permutations(range(1, count + 1)))) if draw(st.booleans()) else ()
    about = {key: draw(st.none() | ANY) for key in ("user", "group", "domain", "id", "source")}
    return Example(prompt, responses, tuple(pairs), tuple(scores), tuple(labels), ranks, **about)


@FEW
@given(st.lists(examples(), min_size=1, max_size=4), st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
def test_what_is_written_is_read_back(tmp_path: Path, made: list[Example], name: str) -> None:
    path = tmp_path / name
    assert write(made, path) == len(made)
    back = list(read(path, strict=True, cache=tmp_path / "cache"))
    assert [e.to_row() | {"source": None} for e in back] == [e.to_row() | {"source": None} for e in made]
    for one, given_ in zip(back, made, strict=True):
        assert one.source == given_.source or given_.source is None


CELLS = st.lists(st.tuples(SAID, SAID, SAID), min_size=1, max_size=4)


@FEW
@given(CELLS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_of_any_text_is_read_to_the_letter(
    tmp_path: Path, rows: list[tuple[str, str, str]], end: str, bom: bool
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("question", "chosen", "rejected"), *rows])
    path = tmp_path / "a.csv"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + out.getvalue().encode())
    if "\0" in out.getvalue():  # which no text file holds
        with pytest.raises(InputError, match="binary"):
            read(path, cache=tmp_path / "cache")
        return
    wanted = [row for row in rows if not row[0].startswith("\n\nHuman:")]
    found = read(path, cache=tmp_path / "cache")
    assert [(e.prompt, *(r.content for r in e.responses)) for e in found] == wanted


@FEW
@given(CELLS)
def test_parquet_of_any_text_is_read_to_the_letter(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict(zip(("question", "chosen", "rejected"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", strict=True, cache=tmp_path / "cache")
    assert [(e.prompt, *(r.content for r in e.responses)) for e in found] == rows


ODD_COLUMNS = st.one_of(
    st.lists(st.binary(max_size=4), min_size=3, max_size=3).map(lambda v: ("binary", v)),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(lambda v: ("timestamp", v)),
    st.lists(st.floats(), min_size=3, max_size=3).map(lambda v: ("float64", v)),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3).map(lambda v: ("bool", v)),
    st.lists(st.lists(st.none() | ANY, max_size=2), min_size=3, max_size=3).map(lambda v: ("lists", v)),
)


@FEW
@given(ODD_COLUMNS, st.sampled_from(["chosen", "weight", "annotator", "extra", "prompt"]))
def test_parquet_of_any_type_is_read_or_counted(tmp_path: Path, column: tuple[str, list[Any]], key: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"binary": pa.binary(), "timestamp": pa.timestamp("us"), "lists": pa.list_(pa.string())}
    kind = kinds.get(column[0]) or getattr(pa, column[0].replace("bool", "bool_"))()
    table = {"prompt": ["q"] * 3, "chosen": ["a"] * 3, "rejected": ["b"] * 3} | {key: pa.array(column[1], kind)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    found, error = outcome(lambda: read(tmp_path / "a.parquet", cache=tmp_path / "cache"))
    if found is None:
        assert error.mend
        return
    report = found.report
    assert report.read + report.skipped == 3


@FEW
@given(st.lists(st.lists(ANY, max_size=4), max_size=5))
def test_csv_of_any_shape_is_read_or_counted(tmp_path: Path, rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("prompt", "chosen", "rejected"), ("q", "a", "b"), *rows])
    (tmp_path / "a.csv").write_text(out.getvalue(), "utf-8", newline="")
    try:
        report = read(tmp_path / "a.csv", cache=tmp_path / "cache").report
    except InputError:
        assert "\0" in out.getvalue()
        return
    filled = sum(bool(line) for line in rows)
    assert 1 <= report.read <= 1 + filled
    assert report.skipped == 1 + filled - report.read


@settings(max_examples=25)
@given(st.lists(examples(), min_size=1, max_size=6))
def test_check_of_any_examples_says_what_it_found_and_can_be_shown(made: list[Example]) -> None:
    from rich.console import Console

    found = bs.check(made)
    json.dumps(found.to_dict(), allow_nan=False)
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    screen.print(found.painted())
    assert not {c for c in screen.file.getvalue() if not (c.isprintable() or c == "\n")}  # type: ignore[attr-defined]


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False),
    st.none(),
    st.text(st.characters(categories=["L", "Nd", "Zs", "P", "S"]), min_size=1, max_size=20),
)


def spelled(value: Any) -> str:
    """A value as somebody would write it who wants to be understood: texts as JSON strings, which are YAML's, too."""
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return json.dumps(value, ensure_ascii=False)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), SCALARS, max_size=4))
def test_options_are_understood_as_they_are_spelled(values: dict[str, Any]) -> None:
    found = parse_options(f"{key}={spelled(value)}" for key, value in values.items())
    assert found == values
    assert [type(v) for v in found.values()] == [type(v) for v in values.values()]


@given(
    st.lists(st.text(max_size=30), max_size=4)
    | st.lists(st.from_regex(r"[a-c]=[\[\]{},:\"'&*!a-c0-9 .-]{0,9}"), max_size=3)
)
def test_any_words_are_options_or_a_clean_error(words: list[str]) -> None:
    found, error = outcome(lambda: parse_options(words))
    if found is None:
        assert error.mend
        assert len(error.what) < LONGEST
    else:
        assert len(found) == len(words)


@FEW
@given(st.text(max_size=60) | st.from_regex(r"([a-c]: [\[\]{},:\"'&*!a-c0-9 .<>|-]{0,9}\n){0,3}", fullmatch=True))
def test_any_recipe_is_a_mapping_or_a_clean_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found, error = outcome(lambda: read_recipe(path))
    if found is None:
        assert "recipe.yaml" in error.what
        assert error.mend
        return
    assert all(isinstance(key, str) for key in found)
    assert len(found) == len(yaml.compose(text, Loader=yaml.SafeLoader).value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"model": SAID, "data": SAID, "out": SAID},
        optional={
            "beta": st.floats(1e-6, 1e6),
            "lr": st.floats(0, 1),
            "seed": st.integers(0, 2**32 - 1),
            "epochs": st.floats(1e-3, 1e3),
            "strict": st.booleans(),
            "reference": SAID,
            "max_steps": st.integers(0, 10**6),
        },
    )
)
def test_a_recipe_that_is_written_out_is_the_same_run_again(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = Recipe.read({"method": "dpo", **values})
    (tmp_path / "recipe.yaml").write_text(recipe.dump(), "utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml").values() == recipe.values()
