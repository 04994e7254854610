"""The index: rows of the catalogue joined with registered objectives and with verdicts on claims.

What an entry says of its state is worked out here each time and stored nowhere.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boresight.catalogue.functions import Function, functions
from boresight.catalogue.rows import names, rows
from boresight.catalogue.search import search
from boresight.catalogue.shipped import recipe_method, recipes
from boresight.catalogue.verdicts import verdict
from boresight.errors import InputError, nearest

if TYPE_CHECKING:
    from boresight.objectives import Objective

STATES = {
    "implemented": "an objective of this id is registered and runs, or a recipe trains by one, or functions are marked",
    "does not run": "its objective is registered under this id, or named by its recipe, but fails on a tiny batch",
    "planned": "to be implemented",
    "reference only": "a survey, data set, benchmark or model: there is no method to implement",
}
"""What the state of an entry may be, and what it means."""

FAMILIES = tuple(sorted({str(row["family"]) for row in rows().values()}))
"""The families of methods that rows belong to."""

_DATA = {"pairs": "prefs.jsonl", "responses": "answers.jsonl", "scored pairs": "prefs.jsonl"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One paper: its row, its state (a key of `STATES`), its registered objective if any, the verdict on its claim.

    recipe: the file of the recipe that comes with the package, for studies and for what the engine does. functions:
    marked code outside the objectives, such as what curates, judges or rewards.
    """

    row: Mapping[str, Any]
    state: str
    method: Objective | None
    verdict: str
    recipe: Path | None = None
    functions: tuple[Function, ...] = ()

    @property
    def id(self) -> str:
        """The paper's id, which is also the method's name for `--method`."""
        return str(self.row["id"])

    @property
    def title(self) -> str:
        """The paper's title."""
        return str(self.row["title"])

    @property
    def family(self) -> str:
        """The family of methods it belongs to, one of `FAMILIES`."""
        return str(self.row["family"])

    def to_dict(self) -> dict[str, Any]:
        """The row's fields with `state` and `verdict`, and how to call it: `method`, `recipe`, `functions`."""
        method = None if self.method is None else describe(self.method)
        recipe = None if self.recipe is None else describe_recipe(self.id, self.recipe)
        found = {"method": method, "recipe": recipe, "functions": [f.to_dict() for f in self.functions]}
        return {**self.row, "state": self.state, "verdict": self.verdict, **found}


def describe(method: Objective) -> dict[str, Any]:
    """How an objective is called, on what, with which defaults and from where they come; JSON-ready."""
    from boresight.objectives import NEEDS
    from boresight.objectives._registry import BATCHES

    kind = BATCHES[method.takes]
    # Annotations are kept as text by the interpreter and shown in quotes; a reader wants the bare names.
    signature = re.sub(r"(: |-> )'([\w.]+)'", r"\1\2", str(inspect.signature(method.function)))
    data = "labelled.jsonl" if "labels" in method.needs else _DATA.get(kind, "data.jsonl")
    options = "".join(f" {h.name}={h.default}" for h in list(method.hyperparameters.values())[:1])
    return {
        "signature": f"{method.function.__name__}{signature}",
        "import": f"from {method.function.__module__} import {method.function.__name__}",
        "takes": kind,
        "needs": {name: NEEDS[name] for name in method.needs},
        "per": method.per,
        "hyperparameters": {
            h.name: {"type": h.kind.__name__, "default": h.default, "source": h.source}
            for h in method.hyperparameters.values()
        },
        "lr": method.lr,
        "lr_source": method.lr_source,
        "paper": method.paper,
        "doc": inspect.getdoc(method.function) or "",
        "file": _file(method),
        "example": f"boresight train --method {method.id} --model MODEL --data {data} --out run/{options}",
    }


def describe_recipe(id: str, path: Path) -> dict[str, Any]:
    """What a recipe that comes with the package trains by, its text, and how to run it; JSON-ready."""
    return {
        "method": recipe_method(path),
        "file": _from_root(path),
        "text": path.read_text("utf-8"),
        "example": f"boresight train --method {id} --model MODEL --data prefs.jsonl --out run/",
    }


def methods(
    words: str = "", *, state: str | None = None, family: str | None = None, limit: int | None = None
) -> list[Entry]:
    """Entries that have to do with `words`, the best match first.

    Without words: every entry, what runs first. state: only entries in that state, one of `STATES`. family: only that
    family, one of `FAMILIES`. limit: at most so many. Raises InputError for an unknown state or family, or limit < 1.
    """
    for name, value, known in (("state", state, tuple(STATES)), ("family", family, FAMILIES)):
        if value is not None and value not in known:
            raise InputError(f"there is no {name} {value!r}", mend=nearest(value, known))
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}", mend="leave it out to see every entry")
    found = [e for e in map(_entry, search(words)) if state in (None, e.state) and family in (None, e.family)]
    if not words.strip():
        found.sort(key=lambda e: list(STATES).index(e.state))
    return found[:limit]


def show(id: str) -> Entry:
    """The entry of that id, or of that other name (`aka`); upper and lower case are alike.

    Raises InputError, which names the nearest ids, if nothing goes by that name.
    """
    known = names().get(id.strip().lower())
    if known is None:
        near = nearest(id.lower(), names())
        # Where nothing is near, nearest() lists all there is: hundreds of names.
        hint = f"{near} or " if near.startswith("did you mean") else ""
        raise InputError(f"no paper or method is called {id!r}", mend=f"{hint}search: boresight methods {id}")
    return _entry(known)


def _entry(id: str) -> Entry:
    from boresight.catalogue.trial import runs
    from boresight.objectives import objectives

    row, method = rows()[id], objectives().get(id)
    recipe, marked = recipes().get(id), functions().get(id, ())
    trains_by = method or (objectives().get(recipe_method(recipe)) if recipe else None)
    if method is not None or recipe is not None:
        state = "implemented" if trains_by is not None and runs(trains_by) else "does not run"
    elif marked:
        state = "implemented"
    else:
        state = "reference only" if row["runnable"] == "reference" else "planned"
    known = verdict(id) or ("not tested yet" if row["claim"] else "no claim to test")
    return Entry(row, state, method, known, recipe, marked)


def _file(method: Objective) -> str:
    """Where the function stands."""
    return _from_root(Path(inspect.getsourcefile(method.function) or ""))


def _from_root(path: Path) -> str:
    """A path from the folder that holds the package on; the whole of it where it is elsewhere."""
    root = Path(__file__).parents[2]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
