"""What a run says while it works: tables, lines and progress bars on stderr; nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from boresight.visible import visible

PLAIN_EVERY = 15.0
"""Seconds between plain progress lines where there is no terminal."""

Advance = Callable[..., None]
"""`advance(n=1, note="")`: n more done, and a few words on how it stands."""


class Reached:
    """Progress that is told as how many are done of all, for a bar that is told how many more. done: the newest."""

    def __init__(self, advance: Advance) -> None:
        self.advance, self.done = advance, 0

    def __call__(self, done: int, _all: int) -> None:
        """So many are done now."""
        self.advance(done - self.done)
        self.done = done


class Reporter:
    """Says what happens. `quiet` keeps everything but errors to itself."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, quiet=quiet, highlight=False)
        self.quiet = quiet

    def note(self, text: str, style: str = "") -> None:
        """One line."""
        self.console.print(escape(visible(text)), style=style or None)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; every cell is shown as text, never as markup."""
        table = Table(title=escape(visible(title)), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for k, column in enumerate(columns):
            table.add_column(escape(column), style="cyan" if k == 0 else None, overflow="fold")
        for row in rows:
            table.add_row(*(escape(visible(str(cell))) for cell in row))
        self.console.print(table)

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Advance]:
        """A progress bar on a terminal; elsewhere a plain line now and then."""
        if self.quiet:
            yield lambda n=1, note="": None
        elif self.console.is_terminal:
            with self._bars() as bars:
                task = bars.add_task(what, total=total, note="")
                yield lambda n=1, note="": bars.update(task, advance=n, **({"note": note} if note else {}))
        else:
            yield self._plain(what, total)

    def _bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self.console,
        )

    def _plain(self, what: str, total: int | None) -> Advance:
        done = 0
        said = start = time.monotonic()

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done, said
            done += n
            now = time.monotonic()
            if now - said >= PLAIN_EVERY or (total is not None and done == total and now - start > 1):
                said = now
                of = f"/{total}" if total is not None else ""
                self.note(f"{what}: {done}{of} after {now - start:.0f} s  {note}".rstrip())

        return advance
