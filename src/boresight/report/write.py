"""`report`: one HTML file about any number of runs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.report.page import GENERATOR, Budget, report_page
from boresight.report.runs import find_runs, read_run

LARGEST = 5_000_000
"""Bytes a report may have: it is to be sent about, and to open at once."""

BUDGETS = (Budget(), Budget(120, 4, 1000, 15), Budget(60, 1, 400, 5), Budget(30, 0, 200, 2))
"""How much is shown: the first with which the page is small enough."""


@dataclass(frozen=True)
class Report:
    """A report that was written: the file, the folders of the runs in it, its size in bytes, and whether something
    was left out for its size."""

    path: Path
    runs: list[Path]
    size: int
    shortened: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "report": str(self.path),
            "runs": [str(r) for r in self.runs],
            "bytes": self.size,
            "shortened": self.shortened,
        }


def report(runs: Sequence[str | Path], out: str | Path = "report.html") -> Report:
    """Write one self-contained HTML page about these runs; it opens offline and has fewer than 5 million bytes.

    runs: folders of runs, finished or not, or folders that hold runs. out: the file; an earlier report there is
    replaced, anything else is not.
    Raises InputError if a folder is no run or is damaged, if `out` cannot be written, or if there are too many runs
    for one page.
    """
    target = Path(out)
    _check_target(target)
    records = []
    for folder in dict.fromkeys(path for given in runs for path in _runs_in(Path(given))):
        records.append(read_run(folder))
    if not records:
        raise InputError("a report needs at least one run", mend="boresight report RUN...")
    for budget in BUDGETS:
        page = report_page(records, budget).encode("utf-8", errors="replace")
        if len(page) < LARGEST:
            break
    else:
        raise InputError(
            f"{len(records)} runs do not fit into one report of {LARGEST // 1_000_000} MB", mend="name fewer of them"
        )
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")  # which nobody can have put a link at
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(page)
        aside.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}", mend="give another --out") from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return Report(target, [r.folder for r in records], len(page), budget is not BUDGETS[0])


def _runs_in(folder: Path) -> list[Path]:
    found = list(find_runs(folder).values()) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder} is not a run: it has no run.json", mend="give the folder of a run (its out=...)")
    return [path.resolve() for path in found]


def _check_target(target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{target} is a folder", mend="give a file: --out report.html")
    try:
        with target.open("rb") as file:
            ours = GENERATOR.encode() in file.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} cannot be used: {error}", mend="give another --out") from None
    if not ours:
        raise InputError(f"{target} exists and is not a report", mend="give another --out")
