"""Values as people read them."""

from __future__ import annotations

from math import isfinite
from typing import Any

from markupsafe import Markup

from boresight.data.show import escape

BACKSTOP = 50_000
"""Characters of one value on a page, whatever it is; texts of data are cut much shorter before."""


def clean(text: str, most: int = BACKSTOP) -> str:
    """At most `most` characters, what was cut counted; control and format characters as codes, line breaks kept."""
    left = len(text) - most
    shown = escape(text[:most], keep="\n\t")
    return shown if left <= 0 else f"{shown} … and {left:,} more characters"


def shown(value: Any) -> Any:
    """What becomes of every value that a template prints, before it is escaped."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return clean(str(value)) if not isinstance(value, int) else value


def number(value: float) -> str:
    """Four digits; nan and inf as words."""
    if not isfinite(value):
        return str(value)
    if abs(value) >= 10_000 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def as_number(value: Any) -> float | None:
    """A number, or None where there is none; nan and inf may be words."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def counted(n: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"
