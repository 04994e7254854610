"""What a source is: a file, a folder, a data set saved by `datasets`, a name on the hub, or rows in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.data import files
from boresight.data.cells import plain, said
from boresight.data.files import KINDS, Rows, kind
from boresight.data.hub import hub
from boresight.errors import InputError, nearest


@dataclass(frozen=True)
class Part:
    """One source of rows. `label` is what messages call it; `files` are those whose bytes it consists of."""

    label: str
    rows: Callable[[], Rows]
    path: Path | None = None
    files: tuple[Path, ...] = ()


def locate(source: str | Path, split: str) -> Part:
    """What a path or hub name stands for. Raises InputError where there is nothing to read."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _folder(path, split)
        if path.exists():
            return _file(path)
    except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be entered, no such ~user
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{source}: cannot be read: {why}", mend="check the path and its permissions") from None
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(source)):
        raise InputError(f"{source}: an address, not a path", mend="download it, and give the path of the file")
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", source) and not kind(path):
        return _hub(source, split)
    if not path.parent.is_dir():
        raise InputError(f"{source}: no such file, nor the folder {path.parent}", mend="check the path")
    beside = [p.name for p in path.parent.iterdir() if kind(p) or p.is_dir()]
    mend = nearest(path.name, beside) if 0 < len(beside) <= 20 else "check the path"
    raise InputError(f"{source}: no such file or folder", mend=mend)


def from_iterable(items: Iterable[Any]) -> Part:
    """Rows or examples that are in memory, or come one after the other."""
    return Part("row", lambda: iter(enumerate(items, 1)))


def _file(path: Path) -> Part:
    return Part(plain(path.name), lambda: files.rows(path), path, (path,))


def _folder(path: Path, split: str) -> Part:
    """A folder saved by `datasets`, or one with data files: the one named as the split, or the only one."""
    saved = path
    if (path / "dataset_dict.json").exists():
        try:
            names = [str(n) for n in json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}/dataset_dict.json: not a list of splits: {error}", mend="save it again") from None
        if split not in names:
            raise InputError(f"{path}: no split {split}", mend=nearest(split, names))
        saved = path / split
    if (saved / "state.json").exists():
        inside = tuple(sorted(p for p in saved.rglob("*") if p.is_file()))
        return Part(saved.name, lambda: _saved(saved), saved, inside)
    found = sorted(p for p in path.iterdir() if p.is_file() and kind(p))
    named = [p for p in found if p.name.lower().split(".")[0] == split]
    if len(named) == 1 or len(found) == 1:
        return _file((named or found)[0])
    names = ", ".join(p.name for p in found[:8])  # type: ignore[assignment]
    if found:
        raise InputError(f"{path}: several data files: {names}", mend="name one, or a split that is a file's name")
    endings = ", ".join(KINDS)
    raise InputError(f"{path}: no data file", mend=f"one ends in {endings} (or .gz), or the folder is by save_to_disk")


def _saved(path: Path) -> Rows:
    from datasets import load_from_disk

    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
        outside = [f["filename"] for f in state["_data_files"] if Path(f["filename"]).name != f["filename"]]
        if outside:
            raise ValueError(f"it lists a file outside its folder, {outside[0]}")
        table = load_from_disk(str(path))
    except Exception as error:  # whatever pyarrow or datasets make of a damaged folder
        raise InputError(f"{path}: the saved data set cannot be read: {said(error)}", mend="save it again") from None
    yield from _table(table)


def _table(table: Any) -> Rows:
    batches = table.with_format("arrow").iter(500)  # so that nothing is decoded: paths of images are never opened
    yield from enumerate((row for batch in batches for row in files.values(batch)), 1)


def _hub(source: str, split: str) -> Part:
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        with hub() as silent:
            table = load_dataset(name, config or None, split=split)
    except Exception as error:  # datasets, huggingface_hub, httpx: each has its own, and all mean the same here
        why = f"{silent}; " if silent else ""
        why += f"{type(error).__name__}: {said(error)}"
        raise InputError(
            f"{source}: neither a file here nor a data set that the hub gave (split {split}): {why}",
            mend="check the path or name (owner/name, owner/name:config), the split, the network, and HF_HUB_OFFLINE",
        ) from None
    stored = tuple(Path(entry["filename"]) for entry in table.cache_files)
    return Part(source, lambda: _table(table), None, stored)
