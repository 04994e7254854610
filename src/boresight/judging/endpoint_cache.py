"""Answers of endpoints on disk, addressed by what was asked: one file an answer, written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from boresight.data.cache import MEND, aside, root
from boresight.errors import InputError

VERSION = 1
"""Part of every address; goes up when what is kept changes its meaning."""


def digest(value: Any) -> str:
    """32 hexadecimal digits that name a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Cache:
    """The folder of kept answers: `given`, or `judgements` in the cache folder."""

    def __init__(self, given: str | Path | None = None) -> None:
        self.folder = Path(given).expanduser() if given is not None else root() / "judgements"

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """What is kept under the address; None where there is nothing, or nothing that is whole."""
        try:
            kept = json.loads(self._path(key).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return kept if isinstance(kept, dict) and kept.get("key") == key else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value under the address. Raises InputError if the folder cannot be written."""
        path = self._path(key)
        with aside(path.parent) as written:
            try:
                written.write_text(json.dumps({"key": key, **value}, allow_nan=False), "utf-8")
                os.replace(written, path)
            except OSError as error:
                what = f"the cache folder {self.folder} cannot be written to: {error.strerror}"
                raise InputError(what, mend=MEND) from None

    def secret(self) -> bytes:
        """32 random bytes, made once for the folder: whoever wrote a judged text cannot know them.

        Markers are made from them, so that the same question has the same markers and is found again.
        """
        path = self.folder / "secret"
        for _ in range(2):
            with suppress(OSError):
                kept = path.read_bytes()
                if len(kept) == 32:
                    return kept
                path.unlink()  # cut short by a full disk
            with aside(self.folder) as written:
                try:
                    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                        file.write(secrets.token_bytes(32))
                    with suppress(FileExistsError):
                        os.link(written, path)  # two processes at once end up with the same one
                except OSError as error:
                    what = f"the cache folder {self.folder} cannot be written to: {error.strerror}"
                    raise InputError(what, mend=MEND) from None
        raise InputError(f"{path}: cannot be read back", mend=MEND)
