"""The rows of a file, as a stream: JSON lines, a JSON list or object, CSV, Parquet; plain or gzip.

Each gives (line, value): the line it begins on (the row's number in Parquet and in a JSON object), and the raw value
that stands there, or a `Bad` that says why there is none. A file that breaks off raises InputError, because what
is lost cannot be counted.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO, cast

from boresight.data.cells import Bad, plain, said
from boresight.errors import InputError

Rows = Iterator[tuple[int, Any]]

KINDS = (".jsonl", ".json", ".csv", ".parquet")
CHUNK = 1 << 20
LONGEST = 1 << 28
"""Bytes of the longest row, and of the longest file that must be read whole: a small gzip file can hold any number."""
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"\s*")
_AFTER = set(" \t\r\n,]")


def kind(path: Path) -> str | None:
    """The ending that says what a file holds, compressed or not; None where it says nothing."""
    stem = path.name.removesuffix(".gz").lower()
    return next((ending for ending in (*KINDS, ".ndjson") if stem.endswith(ending)), None)


def rows(path: Path) -> Rows:
    """The rows of a file, whatever kind it is. Raises InputError if it is empty, binary, damaged or unreadable."""
    if not path.is_file():
        raise InputError(
            f"{path}: not a regular file", mend="write what a pipe or device gives into a file: it is read twice"
        )
    with _whole(path, packed=False) as raw:
        parquet = raw.read(4) == b"PAR1"
    with _whole(path) as stream:
        start = stream.read(8192)
    if parquet:
        return _parquet(path)
    if not start.strip():
        raise InputError(f"{path}: the file is empty", mend="give a file with at least one row")
    if kind(path) == ".parquet":
        raise InputError(f"{path}: named .parquet, but it is not a Parquet file", mend="write it again, or rename it")
    if b"\0" in start:
        raise InputError(f"{path}: not text but binary data (or UTF-16)", mend=f"give {', '.join(KINDS)} in UTF-8")
    if kind(path) == ".csv":
        return _csv(path)
    mark = start.removeprefix(_BOM).lstrip()[:1]
    if mark == b"[" and not _is_lines(path):
        return _array(path)
    if mark == b"{" and kind(path) == ".json" and not _is_lines(path):
        return _document(path)
    return _lines(path)


@contextmanager
def _whole(path: Path, *, packed: bool = True) -> Iterator[BinaryIO]:
    """The file's bytes, if they are gzip and `packed` unpacked, whatever the name says.

    Raises InputError if they break off or cannot be read.
    """
    try:
        with path.open("rb") as raw:
            packed = packed and raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                yield raw
            else:
                with gzip.open(raw) as stream:
                    yield cast(BinaryIO, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip data is damaged: {said(error)}", mend="copy or download it again") from None
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{path}: cannot be read: {why}", mend="check its permissions and the disk") from None


def _bounded(stream: Any, path: Path) -> Iterator[Any]:
    """The lines of a binary or text stream. Raises InputError at one that is longer than any row can be."""
    number = 1
    while line := stream.readline(LONGEST):
        if len(line) >= LONGEST:
            raise _too_long(path, number)
        yield line
        number += 1


def _too_long(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}:{line}: more than {LONGEST >> 20} MiB in one piece", mend="write one object a line (.jsonl)"
    )


def _decoded(line: bytes) -> Any:
    """One JSON value, or a Bad."""
    try:
        return json.loads(line.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        return Bad("", "UTF-8 text", f"the byte 0x{line[error.start]:02x} in column {error.start + 1}")
    except json.JSONDecodeError as error:
        return Bad("", "a JSON object", f"broken JSON in column {error.colno}: {error.msg}")
    except RecursionError:
        return Bad("", "a JSON object", "JSON that is nested too deeply")
    except ValueError:  # Python refuses to read thousands of digits
        return Bad("", "a JSON object", "JSON with a number that is too long")


def _lines(path: Path) -> Rows:
    with _whole(path) as stream:
        for number, line in enumerate(_bounded(stream, path), 1):
            if not line.isspace():
                yield number, _decoded(line.rstrip(b"\r\n"))


def _is_lines(path: Path) -> bool:
    """One JSON value a line: the first line is one, and more follows."""
    with _whole(path) as stream:
        first = _decoded(stream.readline(64 * CHUNK))
        return not isinstance(first, Bad) and any(not line.isspace() for line in _bounded(stream, path))


def _document(path: Path) -> Rows:
    """One JSON object: an object of columns, rows under one of its keys, or a single row."""
    with _whole(path) as stream:
        held = stream.read(LONGEST)
        if len(held) == LONGEST:
            raise _too_long(path, 1)
        value = _decoded(held)
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list) and v]
        tables = [v for v in lists if all(isinstance(row, dict) and not {"role", "from"} & set(row) for row in v)]
        if len(tables) == 1:
            yield from enumerate(tables[0], 1)
            return
        if 1 < len(lists) == len(value) and len({len(v) for v in lists}) == 1:
            yield from enumerate((dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)), 1)
            return
    yield 1, value


class _Window:
    """What has been read of a text and not yet been used; counts lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.buffer, self.at, self.line, self.ended = stream, "", 0, 1, False
        self.decoder = json.JSONDecoder()

    def grow(self, size: int) -> None:
        more = self.stream.read(size)
        self.ended = not more
        self.buffer, self.at = self.buffer[self.at :] + more, 0

    def move(self, end: int) -> None:
        self.line += self.buffer.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            self.move(_SPACE.match(self.buffer, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.buffer) or self.ended:
                return self.buffer[self.at : self.at + 1]
            self.grow(CHUNK)

    def value(self) -> Any:
        """The next JSON value. Raises ValueError or RecursionError if there is none."""
        size = CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
                if self.ended or self.buffer[end : end + 1] in _AFTER:  # else it may go on after what has been read
                    self.move(end)
                    return value
            except ValueError:
                if self.ended:
                    raise
            if len(self.buffer) - self.at > LONGEST:
                raise ValueError(f"a value of more than {LONGEST >> 20} MiB")
            self.grow(size)
            size *= 2


def _array(path: Path) -> Rows:
    """The elements of a JSON list, decoded one after the other, so that the list never lies in memory."""
    with _whole(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape") as text:
        window = _Window(text)

        def broken(why: str) -> NoReturn:
            raise InputError(
                f"{path}:{window.line}: broken JSON ({why}), and the rest of the list is lost with it",
                mend="mend it, or write one object a line (.jsonl): there a broken line is skipped and counted",
            ) from None

        window.peek()
        window.move(window.at + 1)  # the opening bracket
        mark = ","
        while mark != "]":
            if mark != ",":
                broken("expected a comma or the end of the list")
            if window.peek() == "]":
                break
            line = window.line
            try:
                value = window.value()
            except (ValueError, RecursionError) as error:
                broken("nested too deeply" if isinstance(error, RecursionError) else str(getattr(error, "msg", error)))
            yield line, value
            mark = window.peek()
            window.move(window.at + 1)


def _csv(path: Path) -> Rows:
    csv.field_size_limit(LONGEST)  # for the whole process; the default refuses a text of 128 KiB
    with _whole(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(_bounded(text, path))
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise InputError(f"{path}:1: the header cannot be read: {said(error)}", mend="mend its quotes") from None
        twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
        if twice is not None:
            raise InputError(f"{path}:1: the column {plain(twice)!r} is there twice", mend="rename one of them")
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Bad("", "a CSV row", str(error))
                continue
            if len(cells) == len(header):
                yield line, dict(zip(header, cells, strict=True))
            elif cells:
                yield line, Bad("", f"{len(header)} cells, as in the header", f"{len(cells)}")


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                raise InputError(f"{path}: the column {plain(twice)!r} is there twice", mend="rename one of them")
            batches = file.iter_batches(batch_size=500)
            yield from enumerate((row for batch in batches for row in values(batch)), 1)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        why = said(error)
        raise InputError(f"{path}: the Parquet file is damaged: {why}", mend="copy or download it again") from None


def values(batch: Any) -> Iterator[Any]:
    """The rows of an Arrow batch or table as dictionaries; a Bad for each that Python has no values for."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # bytes that are no UTF-8, a date outside Python's years
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield Bad("", "values that can be read", said(error))
