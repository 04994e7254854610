"""The cache of what was read: KEY.arrow with the examples and KEY.json with the report, written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from functools import cache as once
from pathlib import Path
from typing import Any

import pyarrow as pa

from boresight.data.table import Examples, ReadReport
from boresight.errors import InputError

MEND = "set BORESIGHT_CACHE to a folder that can be written, on a disk with room"


def root(given: str | Path | None = None) -> Path:
    """The folder that is given, or $BORESIGHT_CACHE, or ~/.cache/boresight."""
    return Path(given or os.environ.get("BORESIGHT_CACHE") or Path.home() / ".cache" / "boresight").expanduser()


class aside:
    """A new file name in the folder, as a context; what is still there at the end is removed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / f".{uuid.uuid4().hex}"

    def __enter__(self) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the cache folder {self.folder} cannot be made: {error.strerror}"
            raise InputError(what, mend=MEND) from None
        return self.path

    def __exit__(self, *rest: object) -> None:
        self.path.unlink(missing_ok=True)


def save(report: ReadReport, written: Path, folder: Path, key: str) -> None:
    """Put what was `written` aside, and its report, under the key."""
    try:
        with aside(folder) as note:
            note.write_text(json.dumps(report.to_dict()), "utf-8")
            os.replace(note, folder / f"{key}.json")
        os.replace(written, folder / f"{key}.arrow")
    except OSError as error:
        raise InputError(f"the cache folder {folder} cannot be written to: {error.strerror}", mend=MEND) from None


def load(folder: Path, key: str) -> Examples | None:
    """What is kept under the key; None where there is nothing, or nothing that can be read."""
    try:
        report = ReadReport.from_dict(json.loads((folder / f"{key}.json").read_text("utf-8")))
        return Examples(folder / f"{key}.arrow", key, report)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def address(parts: Any) -> str:
    """32 hexadecimal digits that name what is made from these plain values; of others what `str` makes of them."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def digest(paths: Iterable[Path]) -> str:
    """32 hexadecimal digits that name the bytes of these files, in this order."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
        except OSError as error:
            why = error.strerror or error
            raise InputError(f"{path}: cannot be read: {why}", mend="check its permissions and the disk") from None
    return total.hexdigest()


@once
def code(file: str | None) -> str:
    """The digest of a file of code."""
    return digest([Path(file)]) if file else ""


@once
def reader() -> str:
    """The version of the reader is its own code, so that nothing stale is ever found in the cache."""
    return digest(sorted(Path(__file__).parent.glob("*.py"))) + pa.__version__
