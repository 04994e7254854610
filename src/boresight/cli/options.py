"""The words behind a verb: `beta=0.05 lr=1e-6` becomes a dictionary with numbers in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from boresight.errors import InputError

_INT = re.compile(r"[-+]?\d+$")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?$|[-+]?\d+\.([eE][-+]?\d+)?$|[-+]?\.inf$|\.nan$")
LONGEST = 4000
"""Characters of the longest word, which is shorter than the longest number that Python reads."""
_WORDS = {"true": True, "false": False, "null": None, "~": None}


def parse_options(words: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as a dictionary; `-` in a key becomes `_`.

    Values are read as YAML 1.2 reads them: 1e-6 and 10 are numbers, true and false are what they say, null is None,
    [1, 2] and {a: 1} are a list and a mapping, "10" in quotes is text, and so is all else (on, off, yes and no too).
    Raises InputError that names the word if it has no `=`, no key, no value, a key given before, or unreadable YAML.
    """
    options: dict[str, Any] = {}
    for word in words:
        if len(word) > LONGEST:
            raise InputError(f"{_short(word)} is too long: {len(word):,} characters", mend="give a shorter value")
        key, equals, value = word.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            mend = "leave no blanks around =" if word in ("", "=") else f"write {word.lstrip('-')}=VALUE"
            raise InputError(f"{word!r} is not of the form key=value", mend=mend)
        if not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise InputError(f"{word!r} has no usable name before =", mend="a name is letters, digits, _ and .")
        if key in options:
            raise InputError(f"{key} is given twice, the second time as {word!r}", mend="give it once")
        if not value.strip():
            raise InputError(f"{word!r} has no value", mend=f"write {key}=VALUE, or {key}=null for none")
        options[key] = _value(word, value.strip())
    return options


def _short(word: str) -> str:
    return repr(word if len(word) <= 60 else word[:60] + "...")


def _value(word: str, text: str) -> Any:
    """What one value's text stands for; `word` is named in the error."""
    if text[0] not in "[{\"'":
        return _scalar(text)
    import yaml

    try:
        # The base loader leaves every scalar text, so that lists hold what words of their own would have been.
        return _resolve(yaml.compose(text, Loader=yaml.BaseLoader))
    except (yaml.YAMLError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        problem = "nested too deeply" if deep else getattr(error, "problem", None) or "unreadable"
        raise InputError(f"{_short(word)} cannot be read: {problem}", mend="check its brackets and quotes") from None


def _resolve(node: Any) -> Any:
    if isinstance(node.value, str):
        return node.value if node.style in ("'", '"') else _scalar(node.value)
    if node.id == "mapping":
        return {str(_resolve(k)): _resolve(v) for k, v in node.value}
    return [_resolve(v) for v in node.value]


def _scalar(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text == "None":
        return None
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text.lower()):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
