"""Finding claims: a folder of Python files, each imported by its path, and what a user calls some of them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from boresight.catalogue import rows
from boresight.catalogue.verdicts import claims_folder
from boresight.errors import InputError, nearest
from boresight.lab.claims import Claim


def load_claims(folder: Path | None = None, *, broken: list[InputError] | None = None) -> list[Claim]:
    """Every claim of a folder, the project's own by default, by id and part.

    broken: where given, what is wrong with files that cannot be imported is put there.
    Raises InputError if there is no such folder, a file cannot be imported, or two claims have one name.
    """
    folder = folder or claims_folder()
    if not folder.is_dir():
        raise InputError(f"no claims in {folder}", mend="give a folder of claims: boresight claims --from FOLDER")
    found: dict[str, Claim] = {}
    for path in sorted(folder.glob("[!_.]*.py")):
        try:
            claims = load_file(path)
        except InputError as error:
            if broken is None:
                raise
            broken.append(error)
            continue
        for one in claims:
            if one.key in found:
                raise InputError(f"{path}: claim {one.key} is declared twice", mend="name them apart by part=...")
            found[one.key] = one
    if not found and not broken:
        raise InputError(f"no claims in {folder}", mend="a claim is a function under @claim or @identity")
    return sorted(found.values(), key=lambda c: (c.id, c.part))


def load_file(path: Path) -> list[Claim]:
    """The claims of one file, in its order. Raises InputError with what it raised if it cannot be imported."""
    path = path.resolve()
    # A file of the same name in another folder is another module.
    name = f"boresight_claims_{hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look themselves up there
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a folder of claims is read, and not written to
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{path}: {type(error).__name__}: {error}", mend="mend the file") from error
    finally:
        sys.dont_write_bytecode = kept
    made = [getattr(value, "__claim__", None) for value in vars(module).values()]
    return [c for c in made if isinstance(c, Claim) and c.function.__module__ == name]


def select(claims: Sequence[Claim], words: Sequence[str], *, smoke: bool = False) -> list[Claim]:
    """The claims that `words` name: ids (or ID/PART) each, else words that a claim must hold all; all for no words.

    smoke: only those marked so. Raises InputError with the nearest ids if there is none.
    """
    names = {name: c for c in claims for name in (c.id, c.key)}
    if not words:
        found = list(claims)
    elif all(w in names for w in words):
        found = [c for c in claims if c.id in words or c.key in words]
    else:
        found = [c for c in claims if all(w.lower() in _text(c) for w in words)]
    found = [c for c in found if c.smoke or not smoke]
    if not found:
        said = " ".join(words)
        near = nearest(said, names)
        if smoke:
            what = f"no claim of {said!r} is marked smoke" if words else "no claim is marked smoke"
        else:
            known = " yet" if said in rows() else ""
            what = f"there is no claim {said!r}{known}"
        raise InputError(what, mend=near if near.startswith("did you mean") else "boresight claims --help")
    return found


def _text(one: Claim) -> str:
    title = str(rows()[one.id]["title"]) if one.id in rows() else ""
    return " ".join((one.key, one.says, one.treatment, one.baseline, title)).lower()
