"""The file that `score` writes: filled as the work goes along, under its name only once it is whole."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from boresight.errors import InputError, RunError


class ScoreFile:
    """JSON lines in `.NAME.partial` beside `path`, renamed to it when the block ends well. Use it as a context.

    What a killed process left is begun anew: what it had computed lies in the store, so that this takes no time. With
    an error inside the block nothing is left.
    Raises InputError if `path` exists, is no .jsonl, cannot be written, or another process is at it; RunError if the
    disk is full on the way.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.aside = self.path.with_name(f".{self.path.name}.partial")
        if self.path.suffix != ".jsonl":
            raise InputError(f"out={path}: scores are written as JSON lines", mend="let the name end in .jsonl")
        self._refuse()

    def _refuse(self) -> None:
        if self.path.exists() or self.path.is_symlink():
            raise InputError(f"out={self.path} exists", mend="give another name, or remove it")

    def __enter__(self) -> ScoreFile:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            why = error.strerror or error
            raise InputError(f"out={self.path} cannot be written: {why}", mend="choose another folder") from None
        return self

    def _open(self) -> TextIO:
        while True:
            self._refuse()
            number = os.open(self.aside, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                self._lock(number)
                # Whoever held it may have renamed or removed it meanwhile: then it is no longer ours to write.
                with suppress(FileNotFoundError):
                    if os.fstat(number).st_ino == os.stat(self.aside).st_ino:
                        self._refuse()
                        os.ftruncate(number, 0)
                        return open(number, "w", encoding="utf-8", newline="\n")
            except BaseException:
                os.close(number)
                raise
            os.close(number)

    def _lock(self, number: int) -> None:
        """Hold the file until it is closed; the system lets go of it when this process ends, however it ends."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is writing out={self.path}", mend="wait until it ends, or give another name"
            ) from None
        except OSError as error:  # a file system without locks
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise

    def add(self, row: Mapping[str, Any]) -> None:
        """One more line."""
        self._done(lambda: self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"))

    def flush(self) -> None:
        """Let others see what was written so far."""
        self._done(self._file.flush)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._done(self._finish)
        finally:
            # Removed only while it is held, so that it is never another process's; after the renaming it is gone.
            with suppress(OSError):
                self.aside.unlink()
            with suppress(OSError):
                self._file.close()

    def _finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self.aside.replace(self.path)

    def _done(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            raise RunError(
                f"out={self.path} cannot be written: {error.strerror or error}",
                mend="free some space and call again: what was computed is kept",
            ) from None
