"""What the options of `boresight judge` mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from boresight.errors import InputError


def settings_of(given: Sequence[str]) -> dict[str, Any]:
    """NAME=JSON, or NAME=TEXT where that is no JSON, to a key and its value. Raises InputError without name or `=`."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--setting {item!r}", mend="write NAME=VALUE, such as max_tokens=null or top_p=0.9")
        try:
            found[name.strip()] = json.loads(value, parse_constant=_no_number)
        except ValueError:
            found[name.strip()] = value
    return found


def criteria_of(given: Sequence[str]) -> list[tuple[str, str]]:
    """NAME: MEANING to both. Raises InputError for an empty one, or a name twice."""
    found: dict[str, str] = {}
    for item in given:
        name, _, meaning = (part.strip() for part in item.partition(":"))
        if not name or not meaning or name in found:
            raise InputError(f"--criterion {item!r}", mend="write NAME: MEANING, each name once")
        found[name] = meaning
    return list(found.items())


def _no_number(text: str) -> float:
    raise ValueError(text)
