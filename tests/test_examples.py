"""`Examples` as a sequence, writing and reading back, and reading anything at all."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.data import files
from boresight.data._forms import forms
from boresight.data.example import Example, Label, Message, Pair, Response, Score, Step
from boresight.data.read import read
from boresight.data.table import BATCH, Examples
from boresight.data.write import write
from boresight.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BORESIGHT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def many() -> Examples:
    return Examples.from_list([Example(f"q{i}", (Response("a"),), id=str(i)) for i in range(2 * BATCH + 7)])


def test_examples_behave_as_a_sequence(many: Examples) -> None:
    everything = list(range(len(many)))
    assert len(many) == 2 * BATCH + 7

    def ids(examples: Examples) -> list[int]:
        return [int(e.id or -1) for e in examples]

    assert ids(many) == everything
    for index in (0, BATCH - 1, BATCH, 2 * BATCH + 6, -1, -len(many)):
        assert int(many[index].id or -1) == everything[index]
    for part in (slice(3), slice(-3, None), slice(None, None, -700), slice(5, 5), slice(990, 1010, 3)):
        assert ids(many[part]) == everything[part]
    chosen = many.select([5, 5, -1, 1000])
    assert ids(chosen) == [5, 5, 2 * BATCH + 6, 1000]
    assert ids(chosen[1:].select([2, 0])) == [1000, 5]
    for wrong in (len(many), -len(many) - 1):
        with pytest.raises(IndexError):
            many[wrong]
        with pytest.raises(IndexError):
            many.select([wrong])
    assert len(Examples.from_list([])) == 0
    assert list(many[0:0]) == []


def test_fingerprints_name_content_and_order(many: Examples) -> None:
    assert many[:].fingerprint == many.fingerprint == many.select(range(len(many))).fingerprint
    assert many[::-1][::-1].fingerprint != many[::-1].fingerprint
    prints = [many.fingerprint, many[:5].fingerprint, many[1:5].fingerprint, many[4::-1].fingerprint]
    assert len(set(prints)) == 4
    assert many[:5].fingerprint == many.select([0, 1, 2, 3, 4]).fingerprint
    one, other = (Examples.from_list([Example("q", (Response(text),))]) for text in "ab")
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == Examples.from_list([Example("q", (Response("a"),))]).fingerprint


def test_examples_can_be_pickled(tmp_path: Path) -> None:
    write([Example("q", (Response(side),)) for side in "ab"], tmp_path / "a.jsonl")
    for examples in (read(tmp_path / "a.jsonl"), Examples.from_list([Example("q", (Response("a"),))])):
        for each in (examples, examples[::-1]):
            again = pickle.loads(pickle.dumps(each))
            assert list(again) == list(each)
            assert (again.fingerprint, again.report) == (each.fingerprint, each.report)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    broken = Example("\ud800", (Response("a"),))
    for store in (Examples.from_list, read, lambda e: write(e, tmp_path / "a.jsonl")):
        with pytest.raises(InputError):
            store([broken])  # type: ignore[operator]
    assert not list(tmp_path.iterdir())


# Anything at all.

unicode = st.text(max_size=8)
maybe = st.none() | unicode
finite = st.floats(allow_nan=False, allow_infinity=False)
turn = st.builds(Message, st.sampled_from(["user", "assistant", "system", "tool"]), unicode)
conversation = st.lists(turn, min_size=1, max_size=3).map(tuple)


@st.composite
def examples_of(draw: st.DrawFn) -> Example:
    count = draw(st.integers(0, 3))
    index = st.integers(0, max(count - 1, 0))
    two = st.permutations(range(count)).map(lambda order: order[:2])
    positive = st.floats(min_value=1e-300, allow_infinity=False)
    return Example(
        draw(unicode | conversation | st.just(())),
        tuple(draw(st.builds(Response, unicode | conversation, maybe)) for _ in range(count)),
        pairs=tuple(
            Pair(*draw(two), draw(positive), draw(st.booleans()), draw(maybe))
            for _ in range(draw(st.integers(0, 2)) if count > 1 else 0)
        ),
        scores=tuple(draw(st.lists(st.builds(Score, index, finite, unicode, maybe), max_size=2 * (count > 0)))),
        labels=tuple(draw(st.lists(st.builds(Label, index, st.booleans(), maybe), max_size=2 * (count > 0)))),
        ranks=draw(st.just(()) | st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * count)),
        steps=tuple(draw(st.lists(st.builds(Step, index, st.integers(0, 99), finite), max_size=2 * (count > 0)))),
        **{key: draw(maybe) for key in ("user", "group", "domain", "id")},
        source=draw(unicode),
    )


@settings(max_examples=40)
@given(items=st.lists(examples_of(), min_size=1, max_size=4), end=st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_what_is_written_is_read_back(items: list[Example], end: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("written")
    assert write(items, folder / f"a{end}") == len(items)
    examples = read(folder / f"a{end}", cache=folder / "cache", strict=True)
    assert examples.report.format == "example"
    assert list(examples) == list(Examples.from_list(items)) == items
    first = (folder / f"a{end}").read_bytes()
    write(examples, folder / f"a{end}")
    assert (folder / f"a{end}").read_bytes() == first
    assert sorted(p.name for p in folder.iterdir()) == [f"a{end}", "cache"]


def test_writing_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.jsonl"
    write([Example("q", (Response("a"),))], path)
    before = path.read_bytes()

    def failing() -> Iterator[Example]:
        yield Example("other", (Response("a"),))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(failing(), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.jsonl"]
    with pytest.raises(InputError, match=r"let the name end in \.jsonl"):
        write([], tmp_path / "a.csv")


KEYS = sorted({key for form in forms().values() for want in form.wants for key in want.replace("|", " ").split()})
MORE = ["weight", "input", "system", "systems", "id", "annotator", "pairs", "labels", "ranks", "score_chosen", "text"]
INNER = ["role", "content", "from", "value", "text", "response", "chosen"]
odd_text = unicode | st.sampled_from(["\n\nHuman: q\n\nAssistant: a", "model_a", "tie", "1", "[1]", "\ud800", "nan"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER) | unicode, inner),
    max_leaves=6,
)
raw_turns = st.lists(turn.map(lambda m: {"role": m.role, "content": m.content}))
row_like = st.dictionaries(st.sampled_from(KEYS + MORE), anything | raw_turns, max_size=7)


@settings(max_examples=400)
@given(rows=st.lists(anything | row_like, max_size=4), format=st.none() | st.sampled_from(sorted(forms())))
def test_no_row_breaks_the_reader(rows: list[Any], format: str | None) -> None:
    try:
        # A list of nothing but strings would be taken for a list of paths.
        examples = read(iter(rows) if all(isinstance(row, str) for row in rows) else rows, format=format)
    except InputError:
        return  # none of the rows is usable; any other exception fails the test
    assert examples.report.read + examples.report.skipped == len(rows)
    assert len(list(examples)) == examples.report.read


@settings(max_examples=150)
@given(values=st.lists(anything, max_size=4), indent=st.none() | st.integers(0, 2), size=st.integers(1, 9))
def test_lists_are_decoded_alike_in_pieces_of_any_size(
    values: list[Any], indent: int | None, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("list") / "a.json"
    text = json.dumps(values, indent=indent, allow_nan=True)
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", size)
        decoded = [value for _, value in files._array(path)]
    assert repr(decoded) == repr(json.loads(text))
