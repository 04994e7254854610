"""Writing examples: our own format, which `read` takes back."""

from __future__ import annotations

import gzip
import io
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from boresight.data.example import Example
from boresight.errors import InputError


def write(examples: Iterable[Example], path: str | Path) -> int:
    """Write examples as JSON lines, one `Example.to_row()` a line; returns how many.

    `path` ends in .jsonl or .jsonl.gz. The file is written aside and renamed, so that it is there whole or not at all;
    the same examples give the same bytes. Raises InputError if the path or a text cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: examples are written as JSON lines", mend="let the name end in .jsonl or .jsonl.gz")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = aside.open("wb")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}", mend="choose another folder") from None
    count = 0
    try:
        with raw:
            # mtime 0 and no name in the header: the bytes depend on the examples alone.
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.name.endswith(".gz") else raw
            with io.TextIOWrapper(packed, "utf-8", newline="\n") as out:
                for example in examples:
                    out.write(json.dumps(example.to_row(), ensure_ascii=False, allow_nan=False) + "\n")
                    count += 1
        os.replace(aside, path)
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: example {count} holds text that is not valid Unicode: {error.reason}") from None
    finally:
        aside.unlink(missing_ok=True)
    return count


def write_page(text: str, path: str | Path) -> None:
    """Write a page aside and rename it, over an older one too.

    Raises InputError if it cannot be written, or if the name does not end in .html, lest it fall on data.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: a page is to be written there", mend="let the name end in .html")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, "utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}", mend="choose another folder") from None
    finally:
        aside.unlink(missing_ok=True)
