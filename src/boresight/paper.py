"""Marking the code of a paper that is no objective: what curates, diagnoses, judges, decodes, merges, rewards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def paper(id: str) -> Callable[[T], T]:
    """Say that a function or class is the code of the paper of that id: `boresight methods` finds it by this mark.

    The mark is read from the source (`catalogue/functions.py`), so that nothing is imported to list what there is:
    write `@paper("ID")` with the id as it stands in the catalogue. A paper may have several; a function several marks.
    """

    def mark(made: T) -> T:
        made.__papers__ = (*getattr(made, "__papers__", ()), id)  # type: ignore[attr-defined]
        return made

    return mark
