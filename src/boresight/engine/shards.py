"""One shard of a reference store: an immutable safetensors file, written aside, mapped when read, checked by hash."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boresight.errors import RunError

_FORMAT = "boresight reference log-probs 1"


class Damaged(Exception):
    """A shard that cannot be believed; the message says why."""


@dataclass(frozen=True)
class Shard:
    """keys: (n,) 16-byte strings, sorted. offsets: (n + 1,) int64. values: (tokens,) float32, mapped from disk."""

    keys: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    values: NDArray[np.float32]


def _checksum(keys: NDArray[np.uint8], offsets: NDArray[np.int64], values: NDArray[np.float32]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (keys, offsets, values):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_shard(folder: Path, pending: Mapping[bytes, NDArray[np.float32]]) -> Path:
    """Write a shard named after its content; a kill at any moment leaves the whole file or none.

    Raises RunError if the folder cannot be written to.
    """
    from safetensors.numpy import save_file

    order = sorted(pending)
    keys = np.frombuffer(b"".join(order), np.uint8).reshape(-1, 16)
    offsets = np.concatenate([[0], np.cumsum([pending[key].size for key in order])]).astype(np.int64)
    values = np.concatenate([pending[key] for key in order]).astype(np.float32)
    checksum = _checksum(keys, offsets, values)
    path = folder / f"shard-{checksum}.safetensors"
    aside = folder / f".{uuid.uuid4().hex}.aside"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file(
                {"keys": keys, "offsets": offsets, "values": values},
                aside,
                metadata={"format": _FORMAT, "checksum": checksum},
            )
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except Exception as error:  # safetensors has an error of its own for a full disk
        raise RunError(
            f"the reference store {folder} cannot be written to: {error}",
            mend="free some space, or choose another folder",
        ) from error
    return path


def read_shard(path: Path) -> Shard:
    """Map a shard and check every byte of it. Raises Damaged if it is cut short, altered or no shard."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > 1 << 20:
                raise Damaged("its header is not one of ours")
            header = json.loads(file.read(size))
        about = header.pop("__metadata__")
        flat = np.memmap(path, np.uint8, "r", offset=0)[8 + size :]
        parts = {name: _array(flat, entry) for name, entry in header.items()}
        keys, offsets, values = parts["keys"], parts["offsets"], parts["values"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged(f"it cannot be read: {error}") from error
    if about.get("format") != _FORMAT:
        raise Damaged(f"its format is {about.get('format')!r}")
    if about.get("checksum") != _checksum(keys, offsets, values):
        raise Damaged("its content does not match its checksum")
    return Shard(np.array(keys).view("S16").reshape(-1), np.array(offsets), values)


_DTYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32}


def _array(flat: NDArray[np.uint8], entry: dict) -> NDArray:
    start, end = entry["data_offsets"]
    if end > flat.size:
        raise Damaged(f"it ends after {flat.size} of {end} bytes")
    return flat[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
