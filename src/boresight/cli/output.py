"""What verbs print with. Results go to stdout; progress, settings and errors to stderr, so that pipes stay clean.

Text that comes from data or models is shown as it is: never read as markup, and control characters made visible.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from boresight.visible import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from boresight.errors import BoresightError
    from boresight.training.evaluate import Evaluation
    from boresight.training.reporter import Advance
    from boresight.training.score import Scores

COLOURS = {
    "implemented": "green",
    "holds": "green",
    "does not run": "red",
    "does not hold": "red",
    "broken": "red",
    "undecided": "yellow",
    "planned": "cyan",
}
"""Words that are shown in a colour of their own, wherever a cell of a table consists of one."""


def console(*, err: bool = False) -> Console:
    """The console for results (stdout), or with `err` for all else (stderr).

    Its width is the terminal's, or COLUMNS; it has no colours where NO_COLOR is set or no terminal is attached.
    """
    from rich.console import Console

    class Screen(Console):
        """rich leaves the program with code 1 when its reader is gone; that code is for findings."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Screen(file=sys.stderr if err else sys.stdout, highlight=False, emoji=False)


def plain(value: Any, style: str = "") -> Text:
    """A value as it is to be read: floats at 4 digits, None as a dash, true, false, control characters as a code."""
    from rich.text import Text

    if value is None:
        text = "-"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, list | tuple | set):
        text = ", ".join(str(v) for v in value) or "-"
    else:
        text = str(value)
    return Text(visible(text), style=style or COLOURS.get(text, ""))


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, keep: Sequence[str] = (), err: bool = False
) -> None:
    """Print a table. Columns of numbers stand right; columns named in `keep` are never broken over lines."""
    from rich import box
    from rich.table import Table

    lines = [list(row) for row in rows]
    shown = Table(title=plain(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        cells = [line[k] for line in lines if line[k] is not None]
        number = bool(cells) and all(isinstance(c, int | float) and not isinstance(c, bool) for c in cells)
        shown.add_column(
            plain(column),
            justify="right" if number else "left",
            no_wrap=number or column in keep,
            overflow="fold",
            style="bold" if k == 0 else "",
        )
    for line in lines:
        shown.add_row(*(plain(cell) for cell in line))
    show(shown, err=err)


def measures(found: Scores | Evaluation, *, digits: int) -> None:
    """Print what was measured of a model on data, each figure with its interval to so many digits."""
    against = f" against {found.reference}" if found.reference else ""
    rows = []
    for m in found.measures:
        low, high = (f"{end:.{digits}g}" for end in (m.interval.low, m.interval.high))
        rows.append((m.name, m.interval.value, f"{low} to {high}", m.interval.n, m.meaning))
    table(f"{found.model} on {found.data}{against}", ("figure", "value", "95% interval", "n", "what it is"), rows)


def key_values(title: str, rows: Iterable[Sequence[Any]], *, err: bool = False) -> None:
    """Print names with their values and, where a row has a third cell, where the value comes from."""
    from rich.table import Table

    lines = [list(row) for row in rows]
    shown = Table.grid(padding=(0, 2, 0, 0))
    shown.add_column(style="cyan", no_wrap=True)
    # Where it comes from may be broken over many lines; the value itself should stay in one where it is short.
    shown.add_column(overflow="fold", min_width=min(20, max((len(plain(line[1])) for line in lines), default=1)))
    if any(len(line) > 2 for line in lines):
        shown.add_column(style="dim", overflow="fold")
    for line in lines:
        shown.add_row(*(plain(cell) for cell in line))
    if title:
        say(title, "bold", err=err)
    show(shown, err=err)


def say(text: str, style: str = "", *, err: bool = False, fold: bool = True) -> None:
    """Print text as it stands; without `fold`, such as for a command to be copied, long lines are not broken."""
    if fold:
        show(plain(text, style), err=err)
    else:
        console(err=err).print(plain(text, style), soft_wrap=True)


def show(renderable: RenderableType, *, err: bool = False) -> None:
    """Print anything that rich can draw; in files and pipes without the blanks that fill lines up."""
    screen = console(err=err)
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as drawn:
        screen.print(renderable)
    for line in drawn.get().splitlines():
        screen.out(line.rstrip())


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool = False) -> Iterator[Advance]:
    """A bar on stderr for `total` pieces of work; a plain line now and then where there is no terminal.

    Yields `advance(n=1, note="")`: n more are done, and a few words on how it stands.
    """
    from boresight.training.reporter import Reporter

    with Reporter(quiet=quiet).bar(what, total) as advance:
        yield advance


def emit_json(value: Any) -> None:
    """Print `value` as JSON on stdout; NaN and infinities, which JSON lacks, become null."""
    print(json.dumps(jsonable(value), indent=2, allow_nan=False), flush=True)


def jsonable(value: Any) -> Any:
    """`value` as what JSON has: mappings, lists, texts, numbers; None for NaN and infinities."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(jsonable, value), key=str)
    if isinstance(value, Iterable) and not hasattr(value, "item"):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):  # arrays, and the scalars of numpy and torch
        return jsonable(value.tolist())
    return str(value)


def fail(error: BoresightError, *, as_json: bool = False) -> int:
    """Print what went wrong and how to mend it; the exit code to leave with."""
    from boresight.training.redact import without_secrets

    what, mend = without_secrets([error.what, error.mend])
    if as_json:
        emit_json({"error": what, "mend": mend})
        return error.exit_code
    from rich.text import Text

    screen = console(err=True)
    # Further lines are set in, so that no name of a file can pass for a line of ours.
    screen.print(Text.assemble(("error: ", "bold red"), plain(what.replace("\n", "\n       "))))
    if mend:
        screen.print(Text.assemble(("mend:  ", "bold green"), plain(mend.replace("\n", "\n       "))))
    return error.exit_code


def defect(error: Exception, *, as_json: bool = False) -> int:
    """Print a failure that no user caused, on one screen; the exit code to leave with."""
    from boresight.cli import DEFECT
    from boresight.errors import BoresightError

    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = "" if last is None else f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})"
    what = f"{type(error).__name__}: {error}{place}"
    mend = "this is a defect of Boresight's own; BORESIGHT_DEBUG=1 shows where it comes from. Please report it"
    fail(BoresightError(what, mend=mend), as_json=as_json)
    return DEFECT
