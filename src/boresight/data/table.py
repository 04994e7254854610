"""`Examples`: many examples in an Arrow file that is mapped into memory, and the report of how they were read."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boresight.data.example import Example
from boresight.errors import InputError

BATCH = 1000
"""Rows in a record batch: what sits in memory while reading or writing."""


def _struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(name, kind) for name, kind in fields.items()])


_MESSAGES = pa.list_(_struct(role=pa.string(), content=pa.string()))
SCHEMA = pa.schema(
    {
        "prompt_text": pa.string(),
        "prompt_messages": _MESSAGES,
        "responses": pa.list_(
            _struct(
                text=pa.string(),
                messages=_MESSAGES,
                system=pa.string(),
                prompt_text=pa.string(),
                prompt_messages=_MESSAGES,
            )
        ),
        "pairs": pa.list_(
            _struct(chosen=pa.int32(), rejected=pa.int32(), weight=pa.float64(), tie=pa.bool_(), annotator=pa.string())
        ),
        "scores": pa.list_(_struct(response=pa.int32(), value=pa.float64(), name=pa.string(), annotator=pa.string())),
        "labels": pa.list_(
            _struct(response=pa.int32(), desirable=pa.bool_(), annotator=pa.string(), weight=pa.float64())
        ),
        "ranks": pa.list_(pa.int32()),
        "steps": pa.list_(_struct(response=pa.int32(), step=pa.int32(), value=pa.float64())),
        **dict.fromkeys(("user", "group", "domain", "id", "source"), pa.string()),
    }
)
"""`Example.to_row()` in Arrow. Every field may be null."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be read: in `file` at `line` (from 1; the row in tables), `key` held something else."""

    file: str
    line: int
    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}expected {self.expected}; found {self.found}"


@dataclass(frozen=True, slots=True)
class ReadReport:
    """How a source was read. Counts are exact; `problems` holds the first 50.

    read: examples made. skipped: rows that could not be read. partial: of the examples made, those of which some
    feedback could not be read. unused: keys of the first rows that the format makes no use of.
    """

    source: str
    format: str
    read: int
    skipped: int = 0
    problems: tuple[Problem, ...] = ()
    partial: int = 0
    unused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` is its inverse."""
        names = self.__slots__
        problems = [{n: getattr(p, n) for n in p.__slots__} for p in self.problems]
        return {name: getattr(self, name) for name in names} | {"problems": problems, "unused": list(self.unused)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> ReadReport:
        """The report that `to_dict` wrote."""
        problems = tuple(Problem(**p) for p in row["problems"])
        return cls(**{**row, "problems": problems, "unused": tuple(row["unused"])})

    def lines(self, most: int = 10) -> list[str]:
        """The report in words, one line each; the first `most` problems."""
        out = [f"{self.source}: {self.read:,} examples, read as {self.format}"]
        if self.unused:
            more = f" and {len(self.unused) - 12} more" if len(self.unused) > 12 else ""
            out.append(f"  not used: {', '.join(self.unused[:12])}{more}")
        if self.skipped:
            out.append(f"  skipped: {self.skipped:,} {'row' if self.skipped == 1 else 'rows'} that could not be read")
        if self.partial:
            out.append(f"  kept without part of their feedback: {self.partial:,}")
        out += [f"  {problem}" for problem in self.problems[:most]]
        rest = self.skipped + self.partial - min(len(self.problems), most)
        return out + ([f"  and {rest:,} more"] if rest > 0 else [])


@dataclass
class Writer:
    """Examples to an Arrow file, a record batch at a time. Use it as a context; `sink` is a path or an Arrow stream.

    Every batch but the last has exactly BATCH rows, so that a row is found by division.
    """

    sink: Any
    count: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Writer:
        sink = str(self.sink) if isinstance(self.sink, Path) else self.sink
        self._file = pa.ipc.new_file(sink, SCHEMA)
        return self

    def add(self, example: Example, source: str | None = None) -> None:
        """One more example; `source` says where it was read, if the example does not."""
        row = example.to_row()
        if row["source"] is None:
            row["source"] = source
        self._rows.append(row)
        self.count += 1
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
            self._rows.clear()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()


class Examples:
    """A sequence of examples that lies in an Arrow file (or buffer); a selection of it shares the file.

    `examples[i]` is an Example, `examples[a:b]` and `select(indices)` are Examples. `fingerprint` names the content:
    two with the same fingerprint hold the same examples in the same order. It can be pickled and forked.
    """

    def __init__(
        self, store: Path | pa.Buffer, fingerprint: str, report: ReadReport, indices: NDArray[np.int64] | None = None
    ) -> None:
        self._store, self._indices = store, indices
        self._base, self.report = fingerprint, report
        self._reader = pa.ipc.open_file(pa.memory_map(str(store)) if isinstance(store, Path) else store)
        batches = self._reader.num_record_batches
        self._total = (batches - 1) * BATCH + self._reader.get_batch(batches - 1).num_rows if batches else 0
        self._held: tuple[int, pa.RecordBatch | None] = (-1, None)

    @classmethod
    def from_list(cls, examples: Iterable[Example], source: str = "a list") -> Examples:
        """Examples held in memory. Raises InputError if a text cannot be stored as UTF-8."""
        sink = pa.BufferOutputStream()
        try:
            with Writer(sink) as writer:
                for example in examples:
                    writer.add(example)
        except (UnicodeEncodeError, pa.ArrowInvalid, OverflowError) as error:
            raise InputError(f"an example cannot be stored: {error}", mend="texts must be valid Unicode") from None
        buffer = sink.getvalue()
        report = ReadReport(source, "example", writer.count)
        return cls(buffer, hashlib.blake2b(buffer, digest_size=16).hexdigest(), report)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the content and its order."""
        if self._indices is None:
            return self._base
        return hashlib.blake2b(self._base.encode() + self._indices.astype("<i8").tobytes(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return self._total if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        place = self._place(operator.index(index))
        batch = self._batch(place // BATCH)
        return Example.from_row(batch.slice(place % BATCH, 1).to_pylist()[0])

    def select(self, indices: Iterable[int]) -> Examples:
        """The examples at these places, in this order, repetitions included. Raises IndexError outside the range."""
        places = np.fromiter((self._place(operator.index(i)) for i in indices), np.int64)
        if self._indices is None and np.array_equal(places, np.arange(self._total)):
            return self
        return Examples(self._store, self._base, self.report, places)

    def __iter__(self) -> Iterator[Example]:
        if self._indices is not None:
            yield from (self[i] for i in range(len(self)))
            return
        for number in range(self._reader.num_record_batches):
            # A copy of the batch in Python is made in slices, so that long texts do not pile up.
            batch = self._reader.get_batch(number)
            for start in range(0, batch.num_rows, 100):
                yield from map(Example.from_row, batch.slice(start, 100).to_pylist())

    def with_report(self, report: ReadReport) -> Examples:
        """The same examples under another report."""
        return Examples(self._store, self._base, report, self._indices)

    def _place(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"example {index} of {count}")
        index = index % count
        return index if self._indices is None else int(self._indices[index])

    def _batch(self, number: int) -> pa.RecordBatch:
        held, batch = self._held
        if held != number:
            batch = self._reader.get_batch(number)
            self._held = (number, batch)
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        return Examples, (self._store, self._base, self.report, self._indices)

    def __repr__(self) -> str:
        return f"Examples({len(self)} from {self.report.source}, {self.fingerprint[:8]})"


def limited(examples: Examples, limit: int | None) -> Examples:
    """The first `limit` of them, the report counting only these."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = examples[:limit]
    return chosen.with_report(replace(examples.report, read=limit))
