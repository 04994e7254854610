"""Finding a method by name: a registered objective, or a user's own by dotted path."""

from __future__ import annotations

import sys
from pathlib import Path

from boresight.errors import InputError, nearest
from boresight.objectives import Objective, find, objectives


def find_objective(name: str) -> Objective:
    """The objective called `name`. A dotted path is looked for in the working directory too.

    Raises InputError with the nearest known names, or with what is wrong with the path.
    """
    here = str(Path.cwd())
    if "." in name and here not in sys.path:
        sys.path.insert(0, here)
    try:
        return find(name)
    except KeyError:
        raise InputError(f"unknown method {name!r}", mend=nearest(name, objectives())) from None
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"method {name!r} does not resolve: {error}", mend="give package.module.function, importable from here"
        ) from None
    except TypeError as error:
        raise InputError(str(error), mend="put @boresight.objective('my-loss', needs=(...)) above it") from None
