"""The folder of a run: locked while a process trains into it, never overwritten, everything in it written whole."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from boresight.errors import InputError, RunError
from boresight.training.recipe import Recipe

LOCK = ".lock"
FREE = {"out", "save_every", "keep", "trackers", "store", "gradient_checkpointing", "shard", "proof"}
FREE |= {"micro_tokens", "micro_batch"}
"""Options that a resumed run may change: they decide how it runs, not what it computes (but for rounding)."""
UNTRAINED = {"failed": "stopped by the proof", "alone": "proof only"}
"""`state` in run.json of what went no further than the step-zero proof; its folder may be used again."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class RunFolder:
    """A run's folder, held by this process from `claim` to `release`. Only the main process of a run has one.

    A folder belongs to a run as soon as `recipe.yaml` lies in it: from then on the run is resumed, never begun anew.
    known: what `run.json` says of the run that is resumed; empty for a new one.
    """

    def __init__(self, path: Path, made: list[Path], lock: int | None) -> None:
        self.path, self._made, self._lock = path, made, lock
        self._fresh = False
        self.known: dict[str, Any] = {}

    @classmethod
    def claim(cls, path: Path, recipe: Recipe, *, resume: bool) -> RunFolder:
        """Make or open the folder, lock it, and write the recipe of a new run down.

        Raises InputError if it holds something else, a run that is not to be resumed or that was started with other
        options; if another process trains into it; or if it cannot be written to. Then nothing was changed.
        """
        if resume and not path.exists():
            raise InputError(f"no run in {path} to resume", mend="leave --resume away to start one")
        if path.exists() and not path.is_dir():
            raise InputError(f"out={path} is a file", mend="give a new folder")
        made: list[Path] = []
        try:
            _make(path, made)
            folder = cls(path, made, _lock(path))
        except OSError as error:
            _unmake(made)
            raise InputError(
                f"out={path} cannot be written to: {error.strerror or error}", mend="choose a folder that can be"
            ) from None
        try:
            folder._admit(recipe, resume)
            if not (path / "recipe.yaml").exists():
                folder._fresh = not (path / "run.json").exists()
                with writing(path):
                    write_whole(path / "recipe.yaml", recipe.dump())
        except BaseException:
            folder.discard()
            raise
        return folder

    def _admit(self, recipe: Recipe, resume: bool) -> None:
        path = self.path
        if not (path / "recipe.yaml").exists() and not (path / "run.json").exists():
            strangers = sorted(p.name for p in path.iterdir() if p.name not in (LOCK, ".recipe.yaml.partial"))
            if strangers:
                raise InputError(
                    f"out={path} exists and is not a run: it holds {strangers[0]}", mend="give a new folder"
                )
            if resume:
                raise InputError(
                    f"{path} holds no recipe: the run was broken off before it had begun",
                    mend="start it again without --resume; nothing is lost",
                )
            return
        if not resume and _facts(path).get("state") in UNTRAINED.values():
            for name in ("run.json", "recipe.yaml"):
                (path / name).unlink(missing_ok=True)
            return
        if not resume:
            begun = "a run" if (path / "run.json").exists() else "a run that was broken off before its first step"
            raise InputError(f"out={path} holds {begun}", mend="give a new folder, or --resume to go on with it")
        self.known = _facts(path)
        before = self.known.get("recipe") or Recipe.read(path / "recipe.yaml").values()
        for key, value in recipe.values().items():
            if key in before and key not in FREE and before[key] != value:
                raise InputError(
                    f"{path} was started with {key}={before[key]!r}, not {value!r}",
                    mend="resume with the options it was started with, or start a new run",
                )

    def write(self, facts: Mapping[str, Any]) -> None:
        """Put these facts into `run.json`, in place of the ones before."""
        with writing(self.path):
            write_whole(self.path / "run.json", json.dumps(facts, indent=1, ensure_ascii=False, default=str))

    def discard(self) -> None:
        """Let go of a run that did not come to begin: what `claim` wrote goes away again."""
        if self._fresh and not (self.path / "run.json").exists():
            (self.path / "recipe.yaml").unlink(missing_ok=True)
        self.release()
        _unmake(self._made)

    def release(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            with suppress(OSError):
                (self.path / LOCK).unlink()
            os.close(self._lock)
            self._lock = None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What fails inside for want of space or rights becomes a RunError that says where."""
    try:
        yield
    except Exception as error:
        number, said = getattr(error, "errno", None), str(error)
        # safetensors has an error of its own, whose words carry the system's.
        full = number in _FULL or "No space left" in said or "File too large" in said
        gone = number == errno.ENOENT and str(getattr(error, "filename", "")).startswith(str(path))
        if not (full or gone or number in _REFUSED or type(error).__name__ == "SafetensorError"):
            raise
        raise RunError(
            f"{path} cannot be written to: {getattr(error, 'strerror', None) or said}",
            mend=f"{'free some space' if full else 'mend that'}, then go on with --resume; what was written is whole",
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a file aside, put it on disk, and rename it: a kill at any moment leaves the old one or the new one."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _facts(path: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path / 'run.json'} cannot be read: {error}",
            mend="delete it to resume by recipe.yaml and the checkpoints alone",
        ) from None
    return known


def _make(path: Path, made: list[Path]) -> None:
    """Make a folder with its parents; `made` takes those that were not there, the deepest first."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        made.insert(0, folder)


def _unmake(made: list[Path]) -> None:
    with suppress(OSError):  # somebody has put something there: then it stays, and all above it
        for folder in made:
            folder.rmdir()


def _lock(path: Path) -> int | None:
    """An open, locked file in the folder; the system lets go of it when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return None
    while True:
        file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise InputError(
                f"another process is training into out={path}", mend="wait until it ends, or give a new folder"
            ) from None
        except OSError as error:  # a file system without locks
            os.close(file)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                return None
            raise
        with suppress(FileNotFoundError):  # whoever held it may have removed it meanwhile
            if os.fstat(file).st_ino == os.stat(path / LOCK).st_ino:
                return file
        os.close(file)
