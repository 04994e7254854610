"""`Rows`: tokenised training rows in one Arrow file, memory-mapped, so that five million of them need no memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from boresight.data.cache import MEND as CACHE_MEND
from boresight.data.cache import root
from boresight.data.rowreport import RowsReport
from boresight.data.tokens import Row, Tokens
from boresight.errors import InputError

BATCH = 256
"""Rows of one Arrow record batch: what is parsed together when one of them is read."""


def cache_folder() -> Path:
    """Where made rows are kept."""
    return root() / "rows"


class Rows:
    """A sequence of `Row`, read from disk as they are asked for.

    fingerprint: hash of all that the rows were made from; equal fingerprints mean equal rows.
    report: what was made, left out and cut.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches: list[Any] = [None] * self._reader.num_record_batches
        meta = self._reader.schema.metadata
        self.fingerprint = meta[b"fingerprint"].decode()
        full = self._reader.num_record_batches - 1  # all but the last have BATCH rows
        self._length = full * BATCH + self._reader.get_batch(full).num_rows
        self.report = RowsReport.from_dict(json.loads(path.with_suffix(".json").read_text("utf-8")))

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.path,)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number, within = divmod(place, BATCH)
        if self._batches[number] is None:
            self._batches[number] = self._reader.get_batch(number)
        batch = self._batches[number]
        ids, mask, ends = (batch.column(name)[within].values for name in ("ids", "mask", "ends"))
        return Row(
            sequences=tuple(  # copies, since a mapped file is read-only
                Tokens(_ints(i.values).copy(), _bits(m.values), e.as_py())
                for i, m, e in zip(ids, mask, ends, strict=True)
            ),
            weight=batch.column("weight")[within].as_py(),
            desirable=batch.column("desirable")[within].as_py(),
            index=batch.column("index")[within].as_py(),
            source=batch.column("source")[within].as_py(),
            **Row.read_more(batch.column("more")[within].as_py()),
        )

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row's longest sequence, (rows,) int64; no token is read for it."""
        found = []
        for number in range(self._reader.num_record_batches):
            ids = self._reader.get_batch(number).column("ids")
            each = np.diff(_ints(ids.values.offsets))
            found.append(np.maximum.reduceat(each, _ints(ids.offsets)[:-1]))
        return np.concatenate(found).astype(np.int64)

    def shapes(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens, and response tokens, of all sequences, (sequences, 2) int32, row after row; and where each row's
        begin, with the end of the last, (rows + 1,) int64. No id is read for it.
        """
        found, sizes = [], []
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            ids, mask = batch.column("ids"), batch.column("mask")
            ends = _ints(ids.values.offsets)
            inside = np.concatenate([[0], np.cumsum(_bits(mask.values.values))])
            both = np.stack([np.diff(ends), np.diff(inside[ends])], axis=1)
            found.append(both.astype(np.int32))
            sizes.append(np.diff(_ints(ids.offsets)))
        return np.concatenate(found), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


def _ints(array: Any) -> NDArray[np.int32]:
    """An int32 Arrow array as numpy sees its memory: pyarrow's own way there imports pandas."""
    return np.frombuffer(array.buffers()[1] or b"", np.int32, len(array), 4 * array.offset)


def _bits(array: Any) -> NDArray[np.bool_]:
    """A copy of a boolean Arrow array."""
    first, last = array.offset, array.offset + len(array)
    packed = np.frombuffer(array.buffers()[1] or b"", np.uint8)[first // 8 : -(-last // 8)]
    start = first % 8
    return np.unpackbits(packed, bitorder="little")[start : start + len(array)].view(np.bool_)


def write_rows(rows: Iterable[Row], path: Path, *, fingerprint: str, report: RowsReport) -> int:
    """Stream rows to an Arrow file and its report beside it; both appear whole or not at all. Returns the count.

    `report` is read when the last row has been taken, since whoever makes the rows fills it while they are made.
    Nothing is written where there is no row.
    """
    import pyarrow as pa

    schema = pa.schema(
        [
            ("ids", pa.list_(pa.list_(pa.int32()))),
            ("mask", pa.list_(pa.list_(pa.bool_()))),
            ("ends", pa.list_(pa.bool_())),
            ("weight", pa.float64()),
            ("desirable", pa.bool_()),
            ("index", pa.int64()),
            ("source", pa.string()),
            ("more", pa.string()),
        ],
        metadata={"fingerprint": fingerprint},
    )
    aside, note = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("rows", "report"))
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in _parts(rows):
                writer.write_batch(pa.record_batch(_columns(part), schema=schema))
                count += len(part)
        if count:
            note.write_text(json.dumps(report.to_dict(), ensure_ascii=False), "utf-8")
            os.replace(note, path.with_suffix(".json"))
            os.replace(aside, path)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"the cache folder {path.parent} cannot be written to: {why}", mend=CACHE_MEND) from None
    finally:
        for rest in (aside, note):
            with suppress(OSError):
                rest.unlink(missing_ok=True)
    return count


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == BATCH:
            yield part
            part = []
    if part:
        yield part


def _columns(rows: list[Row]) -> list[Any]:
    import pyarrow as pa

    sequences = [s for row in rows for s in row.sequences]
    outer = pa.array(np.cumsum([0, *(len(row.sequences) for row in rows)]), pa.int32())
    inner = pa.array(np.cumsum([0, *(len(s) for s in sequences)]), pa.int32())
    ids = pa.array(np.concatenate([s.ids for s in sequences]), pa.int32())
    mask = pa.array(np.concatenate([s.mask for s in sequences]), pa.bool_())
    return [
        pa.ListArray.from_arrays(outer, pa.ListArray.from_arrays(inner, ids)),
        pa.ListArray.from_arrays(outer, pa.ListArray.from_arrays(inner, mask)),
        pa.ListArray.from_arrays(outer, pa.array([s.ends for s in sequences], pa.bool_())),
        pa.array([row.weight for row in rows], pa.float64()),
        pa.array([row.desirable for row in rows], pa.bool_()),
        pa.array([row.index for row in rows], pa.int64()),
        pa.array([row.source for row in rows], pa.string()),
        pa.array([row.more() for row in rows], pa.string()),
    ]
