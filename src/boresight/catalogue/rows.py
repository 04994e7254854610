"""The catalogue's rows as they are stored: `papers.jsonl`, then `cited.jsonl`. README.md explains the fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

FILES = ("papers.jsonl", "cited.jsonl")


@cache
def rows() -> Mapping[str, Mapping[str, Any]]:
    """Every row by its id, in the order of the files. Read once; not to be written to."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in FILES:
        for line in (files("boresight.catalogue") / name).read_text("utf-8").splitlines():
            row = json.loads(line)
            found[row["id"]] = MappingProxyType(row)
    return MappingProxyType(found)


@cache
def names() -> Mapping[str, str]:
    """Every name a row goes by, its id and its `aka`, in lower case, with the id it stands for."""
    known = {row_id.lower(): row_id for row_id in rows()}
    for row_id, row in rows().items():
        for other in row.get("aka", ()):
            known.setdefault(other.lower(), row_id)
    return MappingProxyType(known)
