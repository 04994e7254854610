"""Verdicts on claims as they were recorded: `claims/results.jsonl`, one line for each claim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from boresight.errors import InputError

WORST_FIRST = ("broken", "does not hold", "undecided", "holds")
"""The verdicts; of several claims of one paper the worst counts."""
NAME = "results.jsonl"


def claims_folder() -> Path:
    """Where the claims are: `claims/` beside `src/` in a clone, else those that came with the package."""
    package = Path(__file__).parents[1]
    beside = package.parents[1] / "claims"
    return beside if package.parent.name == "src" and beside.is_dir() else package / "_claims"


def recorded(folder: Path | None = None) -> list[Mapping[str, Any]]:
    """The recorded results of a folder of claims, in the order of the file; none where nothing was recorded.

    Raises InputError that names the line if one is no result.
    """
    path = (folder or claims_folder()) / NAME
    try:
        return list(_read(path, path.stat().st_mtime_ns))
    except FileNotFoundError:
        return []


def verdict(id: str) -> str | None:
    """The recorded verdict on the claims of a paper, the worst of them; None where none was tested."""
    found = [str(r["verdict"]) for r in recorded() if r["id"] == id]
    return min(found, key=WORST_FIRST.index, default=None)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> tuple[Mapping[str, Any], ...]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            result = json.loads(line)
            fits = isinstance(result["id"], str) and result["verdict"] in WORST_FIRST
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError(f"{path}:{number}: not the result of a claim", mend="boresight claims --write makes it")
        found.append(result)
    return tuple(found)
