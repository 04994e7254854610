"""How the rows of a source become examples: which format they are in, under which names, joined with which file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from boresight.data._forms import Form, find, nearest_form, sniff
from boresight.data.cells import Bad, Cells, keys_of, plain, show
from boresight.data.example import Example
from boresight.data.files import Rows, rows
from boresight.data.sources import Part
from boresight.errors import InputError, nearest

SNIFFED = 20
"""How many readable rows are looked at to tell the format."""
LOOKED_AT = 1000
"""How many lines are looked at to find those rows."""


@dataclass
class Plan:
    """How the rows of one part become examples."""

    part: Part
    form: Form | None
    columns: Mapping[str, str]
    beside: Path | None = None
    join_key: str = ""
    _joined: dict[str, dict[str, Any]] | None = None
    _watched: int = 0
    _seen: dict[str, None] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def example(self, value: Any) -> Example:
        """The example that a raw value is. Raises Bad or Partly."""
        if isinstance(value, Example):
            return value
        if self.form is None:
            raise Bad("", "an Example, like the first", show(value))
        row = self.row(value)
        if self._watched < SNIFFED:
            self._watched += 1
            self._seen |= dict.fromkeys(str(key) for key in row)
            row = _Watched(row, self._used)
        try:
            return self.form.read(row)
        except ValueError as error:
            raise Bad("", "feedback that agrees with the responses", str(error)) from None

    def row(self, value: Any) -> Cells:
        """The row with our names for its keys, joined with what the file beside it says."""
        if isinstance(value, Bad):
            raise value
        if not isinstance(value, Mapping):
            raise Bad("", "an object with keys", show(value))
        if self.columns:
            value = _renamed(value, self.columns)
        if self.beside is None:
            return value
        if self._joined is None:
            self._joined = _by_key(self.beside, self.join_key)
            self._used.add(self.join_key)
        more = self._joined.get(str(value.get(self.join_key)))
        if more is None:
            raise Bad(self.join_key, f"one that is in {self.beside.name}", show(value.get(self.join_key)))
        return {**more, **value}

    @property
    def unused(self) -> list[str]:
        """The keys of the first rows that the format did not ask for."""
        return [plain(key)[:80] for key in self._seen if key and key not in self._used]


def _renamed(row: Cells, columns: Mapping[str, str]) -> Cells:
    taken = {ours for mine, ours in columns.items() if mine in row}
    kept = {key: cell for key, cell in row.items() if key not in columns and key not in taken}
    return {**kept, **{ours: row[mine] for mine, ours in columns.items() if mine in row}}


class _Watched(dict[str, Any]):
    """A row that remembers which of its keys were asked for."""

    def __init__(self, row: Cells, used: set[str]) -> None:
        super().__init__(row)
        self.used = used

    def get(self, key: str, default: Any = None) -> Any:
        self.used.add(key)
        return super().get(key, default)


def plan(part: Part, format: str | None, columns: Mapping[str, str]) -> Plan:
    """Look at the first rows: which format they are in, and what of them it uses."""
    rows = part.rows()
    head = list(_head(rows))
    if part.files:
        getattr(rows, "close", lambda: None)()
    else:  # it may not be possible to begin again
        part = replace(part, rows=lambda: chain(head, rows))
    where = part.path or part.label
    raw = [value for _, value in head if isinstance(value, Mapping)]
    if not raw and not any(isinstance(value, Example) for _, value in head):
        raise _no_rows(part, head)
    missing = next((mine for mine in columns if raw and not any(mine in row for row in raw)), None)
    if missing is not None:
        raise InputError(f"{where}: no column {missing} to rename", mend=nearest(missing, {str(k) for k in raw[0]}))
    named = [_renamed(row, columns) for row in raw]
    form = find(format) if format else sniff(named)
    if form is None and named:
        raise InputError(
            f"{where}: these rows are in no format that is known; they have {keys_of(named[0])}",
            mend=f"rename with columns, or force a format; {nearest_form(named[0])}",
        )
    made = Plan(part, form, columns)
    beside = form.beside(part.path) if form and form.beside and part.path else None
    if beside:
        made.beside, made.join_key = beside
        if not made.beside.is_file():
            raise InputError(f"{where}: the texts are not in it", mend=f"put {made.beside.name} into the same folder")
    return made


def _head(rows: Rows) -> Iterator[tuple[int, Any]]:
    """From the start of the rows as many as hold SNIFFED readable ones."""
    readable = 0
    for line, value in islice(rows, LOOKED_AT):
        yield line, value
        readable += isinstance(value, Mapping | Example)
        if readable == SNIFFED:
            return


def _no_rows(part: Part, head: list[tuple[int, Any]]) -> InputError:
    where = part.path or part.label
    if not head:
        return InputError(f"{where}: there are no rows", mend="give at least one")
    line, value = head[0]
    bad = value if isinstance(value, Bad) else Bad("", "an object with keys", show(value))
    first = f"{part.label}:{line}: expected {bad.expected}; found {bad.found}"
    return InputError(
        f"{where}: none of the first {len(head)} rows can be read; the first: {first}", mend="is it the right file?"
    )


def _by_key(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """The rows of a file by one of their keys, all in memory. Raises InputError if one has no such key."""
    table: dict[str, dict[str, Any]] = {}
    for line, value in rows(path):
        if not isinstance(value, dict) or key not in value:
            raise InputError(f"{path}:{line}: expected an object with the key {key}", mend="mend the row")
        table[str(value[key])] = value
    return table
