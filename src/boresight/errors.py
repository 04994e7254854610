"""Errors that say what is wrong, where, and how to mend it.

Every error that a user can cause is one of these. The command line prints them on one screen and
leaves with `exit_code`: 2 for input that cannot be used, 1 for a run that found something wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BoresightError(Exception):
    """Something went wrong and the user can do something about it.

    `what` is one sentence that names the file, row, key or option; `mend` says what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what if not mend else f"{what}\n  mend: {mend}")
        self.what = what
        self.mend = mend


class InputError(BoresightError):
    """Input that cannot be used: a file, a key, an option. Exit code 2."""

    exit_code = 2


class RunError(BoresightError):
    """A run that must not go on: a failed verification, NaN, an altered store. Exit code 1."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A phrase that names the known words nearest to `word`, or all of them when none is near.

    >>> nearest("dop", ["dpo", "ipo", "kto"], count=1)
    'did you mean dpo?'
    """
    names = sorted(known)
    close = get_close_matches(word, names, n=count, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}"
