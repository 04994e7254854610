"""The register of formats, and telling which one a file is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boresight.data.cells import Cells, has
from boresight.data.example import Example
from boresight.dotted import resolve
from boresight.errors import InputError, nearest


@dataclass(frozen=True)
class Form:
    """A format. `beside(file)` names another file it needs and the key that joins the two, if it needs one."""

    id: str
    wants: tuple[str, ...]
    read: Callable[[Cells], Example]
    beside: Callable[[Path], tuple[Path, str] | None] | None = None

    def fit(self, row: Cells) -> int:
        """How many keys of its fullest set the row has; 0 if it lacks one in every set."""
        sets = [[any(has(row, key) for key in word.split("|")) for word in want.split()] for want in self.wants]
        return max((len(words) for words in sets if all(words)), default=0)

    def lacks(self, row: Cells) -> tuple[float, str]:
        """The share of keys missing in the set that the row is nearest to, and what that set is and lacks."""
        shares = []
        for want in self.wants:
            words = want.split()
            missing = [word for word in words if not any(has(row, key) for key in word.split("|"))]
            shares.append((len(missing) / len(words), f"{self.id} ({_names(words)}), which lacks {_names(missing)}"))
        return min(shares)


def _names(words: list[str]) -> str:
    return ", ".join(word.split("|")[0] for word in words)


_FORMS: dict[str, Form] = {}


def form(
    id: str, *wants: str, beside: Callable[[Path], tuple[Path, str] | None] | None = None
) -> Callable[[Callable[[Cells], Example]], Callable[[Cells], Example]]:
    """Register a function from row to Example as a format; see the head of `formats`. Raises ValueError if taken."""

    def register(function: Callable[[Cells], Example]) -> Callable[[Cells], Example]:
        if id in _FORMS and _FORMS[id].read.__module__ != function.__module__:
            raise ValueError(f"format {id} is registered already, by {_FORMS[id].read.__module__}")
        _FORMS[id] = function.__form__ = Form(id, wants, function, beside)  # type: ignore[attr-defined]
        return function

    return register


def forms() -> dict[str, Form]:
    """Every format by id, in the order in which they were defined."""
    from boresight.data import formats, published  # noqa: F401  (they register their formats)

    return dict(_FORMS)


def find(word: str) -> Form:
    """The format of this id, or behind this dotted path. Raises InputError if there is none."""
    known = forms()
    if word in known:
        return known[word]
    if "." not in word:
        raise InputError(f"no format is called {word}", mend=nearest(word, known))
    found_form = getattr(resolve(word, "format"), "__form__", None)
    if not isinstance(found_form, Form):
        raise InputError(f"no format is called {word}", mend=nearest(word, known))
    return found_form


def sniff(rows: Sequence[Cells]) -> Form | None:
    """The format most rows fit best: the one with most of its keys there; the earlier defined one of equals."""
    votes: Counter[str] = Counter()
    known = forms()
    for row in rows:
        fits = {id: candidate.fit(row) for id, candidate in known.items()}
        best = max(fits, key=lambda id: fits[id])
        votes[best] += fits[best] > 0
    best = max(votes, key=lambda id: votes[id], default="")
    return known[best] if votes[best] else None


def nearest_form(row: Cells) -> str:
    """The format that the row lacks least of, and what it lacks; where it lacks most of each, all that there are."""
    share, near = min(candidate.lacks(row) for candidate in forms().values())
    known = "; ".join(f"{form.id} ({_names(form.wants[0].split())})" for form in forms().values())
    return f"the nearest is {near}" if share <= 0.5 else f"known are {known}"
