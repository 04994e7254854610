"""Text of others on a terminal: what would move the cursor, turn the writing round or hide is shown as its code."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and line break; a terminal obeys ESC, and \x9b likewise
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: the end of a line may be shown at its beginning
    r"\u2028\u2029\ud800-\udfff]"  # other line ends; halves of characters, as in the names of odd files
)


def visible(text: str) -> str:
    r"""The text with such characters as \x1b or \x202e; tabs and line breaks stay."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", text)
