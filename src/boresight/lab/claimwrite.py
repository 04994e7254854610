"""Recording verdicts: results.jsonl, the page and the pictures, each written aside and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boresight.catalogue.verdicts import NAME, claims_folder, recorded
from boresight.errors import InputError
from boresight.lab.claimfiles import load_claims
from boresight.lab.claimpage import page, picture
from boresight.lab.claimplot import draw
from boresight.lab.claimrun import Result
from boresight.lab.claims import Claim


def places(folder: Path) -> tuple[Path, Path]:
    """The page and the folder of pictures of a folder of claims: under docs/ for the project's own, else inside it.

    Raises InputError for the claims that came with the package, which are not to be written to.
    """
    if folder.resolve() == claims_folder().resolve():
        if folder.name == "_claims":
            raise InputError(
                "the claims that came with the package are not written to", mend="use a clone, or --from FOLDER"
            )
        docs = folder.parent / "docs"
        return docs / "claims.md", docs / "images" / "claims"
    return folder / "claims.md", folder / "images"


def write(results: Sequence[Result], folder: Path) -> Path:
    """Put `results` among the recorded ones and make the page and their pictures again. Returns the page.

    Records of claims that are gone from the folder are dropped, unless a file of it cannot be read; the words of the
    others (what they say, their docstrings) are brought up to date.
    """
    target, images = places(folder)
    with _alone(folder):
        _write(results, folder, target, images)
    return target


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time writes to a folder, where the system can see to that."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(results: Sequence[Result], folder: Path, target: Path, images: Path) -> None:
    broken: list[InputError] = []
    declared = {c.key: c for c in load_claims(folder, broken=broken)}
    new = {r.key: r.to_dict() for r in results}
    before = {_key(r): r for r in recorded(folder)}
    for key, r in new.items():
        # A sweep that was not made again stands as long as the claim comes to the very same.
        if not r["sweep"] and key in before and before[key]["values"] == r["values"]:
            r["sweep"] = before[key]["sweep"]
    known = before | new
    records = [{**r, **_words(declared.get(key))} for key, r in known.items() if broken or key in declared]
    records.sort(key=lambda r: (r["id"], r["part"]))
    _put(folder / NAME, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records).encode())
    images.mkdir(parents=True, exist_ok=True)
    for r in records:
        path = images / picture(r)
        if not r["error"] and (_key(r) in new or not path.exists()):
            _put(path, draw(r))
    for path in images.glob("*.svg"):
        if path.name not in {picture(r) for r in records}:
            path.unlink()
    _put(target, page(records, images.relative_to(target.parent).as_posix()).encode())


def _key(record: Mapping[str, Any]) -> str:
    return f"{record['id']}/{record['part']}" if record["part"] else str(record["id"])


def _words(one: Claim | None) -> dict[str, str]:
    if one is None:
        return {}
    return {"says": one.says, "treatment": one.treatment, "baseline": one.baseline, "doc": one.doc}


def _put(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    os.replace(aside, path)
