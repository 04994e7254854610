"""Finding a method by name: a registered objective, or a user's own by dotted path."""

from __future__ import annotations

from boresight.dotted import resolve
from boresight.errors import InputError, nearest
from boresight.objectives import Objective, find, objectives


def find_objective(name: str) -> Objective:
    """The objective called `name`. A dotted path is looked for in the working directory too.

    Raises InputError with the nearest known names, or with what is wrong with the path.
    """
    if "." in name and name not in objectives():
        resolve(name, "method")
    try:
        return find(name)
    except KeyError:
        raise InputError(f"unknown method {name!r}", mend=nearest(name, objectives())) from None
    except TypeError as error:
        raise InputError(str(error), mend="put @boresight.objective('my-loss', needs=(...)) above it") from None
