"""What a dotted path stands for: the way to code of one's own, wherever a name is asked for."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from boresight.errors import InputError


def resolve(path: str, what: str) -> Any:
    """The object that `package.module.name` names; it is looked for in the working directory too.

    Importing it runs its code: whoever names it trusts it. Raises InputError that says what is wrong with the `what`,
    and for an error in the code itself in which line.
    """
    module, _, name = path.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        mend = "give package.module.function, importable from here"
        raise InputError(f"{what} {path!r} does not resolve: {error}", mend=mend) from None
    except AttributeError as error:
        if error.name == name:
            mend = "give package.module.function, importable from here"
            raise InputError(f"{what} {path!r} does not resolve: {error}", mend=mend) from None
        raise _broken(path, what, error) from None
    except (Exception, SystemExit) as error:  # it is the user's own code, which may raise anything
        raise _broken(path, what, error) from None


def _broken(path: str, what: str, error: BaseException) -> InputError:
    return InputError(f"{what} {path!r} cannot be imported: {told(error)}", mend="mend the code")


def told(error: BaseException) -> str:
    """What an error in somebody's own code is, and where it was raised."""
    why = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:300]}"
    if isinstance(error, SyntaxError):
        return f"{why} ({error.filename}, line {error.lineno})" if str(error.filename) not in why else why
    frames = traceback.extract_tb(error.__traceback__)
    return f"{why} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else why
