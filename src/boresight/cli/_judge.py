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


def _no_number(text: str) -> float:
    raise ValueError(text)
