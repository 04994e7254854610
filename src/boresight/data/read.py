"""Reading: any common form of feedback data to `Examples`, with every row that cannot be read counted and named."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from boresight.data.cache import aside, code, digest, load, reader, root, save
from boresight.data.cells import Bad, Partly, plain, show
from boresight.data.plan import Plan, plan
from boresight.data.sources import Part, from_iterable, locate
from boresight.data.table import Examples, Problem, ReadReport, Writer, limited
from boresight.errors import InputError

KEPT = 50
"""How many problems a report holds; all are counted."""


def read(
    source: str | Path | Examples | Iterable[Any],
    *,
    format: str | None = None,
    split: str = "train",
    strict: bool = False,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
) -> Examples:
    """Read feedback data of any common form.

    source: a file (JSON, JSON lines, CSV, each also .gz; Parquet), a folder saved by `datasets` or with one data file
    (or one named as the split), a hub name (owner/name, owner/name:config), a list of these, or rows (Examples,
    Example objects, dictionaries) in memory.
    format: what the rows are, see `boresight.data.formats`; told from the first rows if not given.
    strict: raise at the first row that cannot be read, instead of skipping and counting it.
    limit: read so many examples and stop. columns: your names for keys, to ours: {"better": "chosen"}.
    cache: the folder of Arrow files; by default $BORESIGHT_CACHE or ~/.cache/boresight. What is read from files is
    found there again by the content of the files, these options, and the code that reads.

    Rows are streamed, so that memory does not grow with their number. The report of what was read and skipped is
    `.report` of the result. Raises InputError if the source or all of its rows are unusable.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: nothing would be read", mend="give a number from 1, or none")
    if isinstance(source, Examples):
        return limited(source, limit)
    title, parts = _parts(source, split)
    plans = [plan(part, format, columns or {}) for part in parts]
    reading = _Reading(title, strict, limit)
    folder = root(cache) / "data"
    if all(step.part.files for step in plans):
        key = _key(plans, columns or {}, limit)
        kept = load(folder, key)
        if kept is None:
            with aside(folder) as written:
                save(reading.run(plans, written), written, folder, key)
            kept = load(folder, key)
        if kept is None:
            raise InputError(f"{folder}: what was written there cannot be read back", mend="set BORESIGHT_CACHE")
        if strict and kept.report.problems:
            raise _at_first(kept.report.problems[0])
        return kept.with_report(replace(kept.report, source=title))
    if isinstance(source, Sequence):  # it is in memory already, and may stay there
        sink = pa.BufferOutputStream()
        report = reading.run(plans, sink)
        buffer = sink.getvalue()
        return Examples(buffer, hashlib.blake2b(buffer, digest_size=16).hexdigest(), report)
    with aside(folder) as written:
        report = reading.run(plans, written)
        key = digest([written])
        save(report, written, folder, key)
    return Examples(folder / f"{key}.arrow", key, report)


def _parts(source: Any, split: str) -> tuple[str, list[Part]]:
    """What to call the source, and its parts."""
    if isinstance(source, str | Path):
        part = locate(source, split)
        return plain(str(part.path or source)), [part]
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        parts = [locate(item, split) for item in source]
        if len({part.label for part in parts}) < len(parts):
            parts = [replace(part, label=str(part.path or part.label)) for part in parts]
        return ", ".join(str(item) for item in source), parts
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return "rows in memory", [from_iterable(source)]
    raise InputError(f"cannot read {show(source)}", mend="give a path, a hub name, a list of paths, or rows")


def _key(plans: list[Plan], columns: Mapping[str, str], limit: int | None) -> str:
    """The address of what will be read: the code, the options, and the bytes of every file that has a part in it."""
    parts = [
        {
            "label": step.part.label,
            "form": step.form.id if step.form else None,
            "code": code(sys.modules[step.form.read.__module__].__file__) if step.form else None,
            "bytes": digest([*step.part.files, *([step.beside] if step.beside else [])]),
        }
        for step in plans
    ]
    options = {"parts": parts, "columns": sorted(columns.items()), "limit": limit, "reader": reader()}
    return hashlib.blake2b(json.dumps(options).encode(), digest_size=16).hexdigest()


@dataclass
class _Reading:
    """One pass over the rows: writes the examples, counts the rest."""

    title: str
    strict: bool
    limit: int | None
    skipped: int = 0
    partial: int = 0
    problems: list[Problem] = field(default_factory=list)

    def run(self, plans: list[Plan], sink: Any) -> ReadReport:
        """Write all examples to the sink. Raises InputError if there is none, or, if strict, at the first problem."""
        unused: dict[str, None] = {}
        try:
            with Writer(sink) as writer:
                for step in plans:
                    self._part(step, writer)
                    unused |= dict.fromkeys(step.unused)
        except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"{self.title}: an example cannot be stored: {error}", mend="shorten it") from None
        except OSError as error:
            raise InputError(f"{sink}: cannot be written: {error}", mend="set BORESIGHT_CACHE to a folder") from None
        formats = ", ".join(dict.fromkeys(step.form.id if step.form else "example" for step in plans))
        if not writer.count:
            first = self.problems[0]
            raise InputError(
                f"{self.title}: none of its {self.skipped} rows can be read as {formats}; the first: {first}",
                mend="mend the rows, rename with columns, or force another format",
            )
        return ReadReport(
            self.title, formats, writer.count, self.skipped, tuple(self.problems), self.partial, tuple(unused)
        )

    def _part(self, step: Plan, writer: Writer) -> None:
        for line, value in step.part.rows():
            if writer.count == self.limit:
                return
            try:
                example = step.example(value)
            except Bad as bad:
                self.skipped += 1
                self._note(bad, step, line)
                continue
            except Partly as partly:
                self.partial += 1
                self._note(partly.bad, step, line)
                example = partly.example
            writer.add(example, f"{step.part.label}:{line}")

    def _note(self, bad: Bad, step: Plan, line: int) -> None:
        problem = Problem(step.part.label, line, bad.key, bad.expected, bad.found)
        if self.strict:
            raise _at_first(problem)
        if len(self.problems) < KEPT:
            self.problems.append(problem)


def _at_first(problem: Problem) -> InputError:
    return InputError(str(problem), mend="mend the row, or read without strict to skip and count such rows")
