"""Cells of a raw row: take one out as text, a number or messages, or say exactly what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

from boresight.data.example import Example, Message

T = TypeVar("T")

Cells = Mapping[str, Any]
"""A raw row: the keys of the user's file and whatever stood there."""

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
"""The names that data sets use for who speaks, and ours."""


class Bad(Exception):
    """A row cannot be read: `key` should hold what `expected` says, and holds what `found` says."""

    def __init__(self, key: str, expected: str, found: str) -> None:
        super().__init__(key, expected, found)
        self.key, self.expected, self.found = plain(key)[:200], plain(expected)[:500], plain(found)[:500]


def plain(text: str) -> str:
    """The text with everything escaped that a terminal would not show as it stands."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def said(error: BaseException) -> str:
    """What an error of a library says, on one line that can be shown."""
    return plain(" ".join(str(error).split()) or type(error).__name__)[:300]


class Partly(Exception):
    """A row can be read as `example`, but the part of it that `bad` names cannot."""

    def __init__(self, example: Example, bad: Bad) -> None:
        super().__init__(example, bad)
        self.example, self.bad = example, bad


def show(value: Any) -> str:
    """A short description of what stood in a cell, for people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        if not value.strip():
            return "an empty text"
        short = value if len(value) <= 40 else value[:40] + "..."
        return f'the text "{plain(short)}"'
    if isinstance(value, int | float):
        return f"the number {value!r}" if abs(value) < 1e30 or isinstance(value, float) else "a huge number"
    if isinstance(value, Mapping):
        return f"an object with {keys_of(value)}"
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def keys_of(row: Cells, most: int = 12) -> str:
    """The keys of a row in words."""
    keys = [plain(str(key))[:60] or "(no name)" for key in row]
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"the keys {', '.join(keys[:most])}{more}" if keys else "no keys"


def has(row: Cells, key: str) -> bool:
    """The row has the key, and not null under it."""
    return row.get(key) is not None


def filled(row: Cells, key: str) -> bool:
    """As `has`, and not an empty text, which is what CSV has for null. For optional numbers."""
    return row.get(key) not in (None, "")


def first_of(row: Cells, *keys: str) -> str:
    """The first of the keys that the row has; the first of all where it has none."""
    return next((key for key in keys if has(row, key)), keys[0])


def found(row: Cells, key: str) -> str:
    """What stands under the key, in words; also that there is no such key."""
    return show(row[key]) if key in row else f"no such key among {keys_of(row)}"


def unicode(value: str, key: str) -> str:
    """The text itself. Raises Bad if it cannot be written as UTF-8 (half of a surrogate pair, stray bytes)."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Bad(
                key, "valid Unicode text", f"half a character (U+{ord(value[error.start]):04X}) at {error.start}"
            ) from None
    return value


def text(row: Cells, key: str, *, blank: bool = False) -> str:
    """The text under `key`; it may be empty or nothing but spaces only with `blank`."""
    value = row.get(key)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise Bad(key, "text" if blank else "text that is not empty", found(row, key))
    return unicode(value, key)


def name(row: Cells, *keys: str) -> str | None:
    """The name (text or whole number) under the first of the keys that is there, or None."""
    key = first_of(row, *keys)
    value = row.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and abs(value) > 2**63):
        raise Bad(key, "a name: text or a whole number", show(value))
    return unicode(str(value), key)


def number(row: Cells, key: str) -> float:
    """The finite number under `key`; text that spells one counts (CSV knows nothing else)."""
    value = row.get(key)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        result = float(value)
        if not isfinite(result):
            raise ValueError
    except (ValueError, OverflowError):
        raise Bad(key, "a finite number", found(row, key)) from None
    return result


def whole(row: Cells, key: str, least: int, most: int = 2**31 - 1) -> int:
    """The whole number under `key`, from `least` to `most`; text or a float that spells one counts."""
    span = f"a whole number from {least}" + (f" to {most}" if most < 2**31 - 1 else "")
    try:
        value = number(row, key)
    except Bad as bad:
        raise Bad(key, span, bad.found) from None
    if not value.is_integer() or not least <= value <= most:
        raise Bad(key, span, found(row, key))
    return int(value)


def flag(row: Cells, key: str) -> bool:
    """True or false under `key`; 1 and 0 count, and so do these words as text."""
    value = row.get(key)
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise Bad(key, "true or false (or 1 or 0)", found(row, key))


def listing(row: Cells, key: str, length: int | None = None, what: str = "") -> list[Any]:
    """The list under `key`; text that spells a JSON list counts. With `length`, exactly so many."""
    value = row.get(key)
    expected = f"a list of {what or 'values'}" + (f", {length} of them" if length is not None else "")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Bad(key, expected, show(value)) from None
    if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
        raise Bad(key, expected, found(row, key))
    return list(value)


def each(row: Cells, key: str, build: Callable[[Cells], T]) -> tuple[T, ...]:
    """What `build` makes of every object in the list under `key`; nothing where there is no list."""
    out = []
    for place, item in enumerate(listing(row, key, what="objects") if has(row, key) else ()):
        if not isinstance(item, Mapping):
            raise Bad(f"{key}[{place}]", "an object", show(item))
        try:
            out.append(build(item))
        except Bad as bad:
            raise Bad(f"{key}[{place}].{bad.key}", bad.expected, bad.found) from None
    return tuple(out)


def messages(value: Any, key: str) -> tuple[Message, ...]:
    """Messages from a list of them, or from a single one: role and content, or (ShareGPT) from and value."""
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple) or not items:
        raise Bad(key, "a list of messages", show(value))
    return tuple(_message(item, f"{key}[{place}]") for place, item in enumerate(items))


def _message(item: Any, key: str) -> Message:
    if not isinstance(item, Mapping):
        raise Bad(key, "a message: an object with role and content", show(item))
    who, what = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    role = item.get(who)
    ours = ROLES.get(role.lower()) if isinstance(role, str) else None
    if ours is None:
        raise Bad(f"{key}.{who}", "user, assistant, system or tool", found(item, who))
    content = item.get(what)
    if isinstance(content, list | tuple):
        content = _joined(content, f"{key}.{what}")
    if not isinstance(content, str):
        raise Bad(f"{key}.{what}", "text", found(item, what))
    return Message(ours, unicode(content, f"{key}.{what}"))


def _joined(parts: Sequence[Any], key: str) -> str:
    """The text of a content that is given in parts; anything but text among them cannot be read."""
    for place, part in enumerate(parts):
        if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise Bad(f"{key}[{place}]", "a part of type text", show(part))
    return "".join(part["text"] for part in parts)
