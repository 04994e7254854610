"""What a comparison trains on, and what it measures on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.data.read import read
from boresight.data.table import Examples
from boresight.data.write import write
from boresight.errors import InputError
from boresight.training.compare_run import named

HELD_OUT = 0.2
"""Share of the prompts that is held out where no other data is named."""
LEAST = 10
"""Fewest prompts that may be held out."""


def read_as(data: str, options: Mapping[str, Any], limit: str) -> Examples:
    """The examples of a file as the options say; limit: the name of the option that limits them."""
    strict = bool(options.get("strict", False))
    return read(data, format=options.get("format"), strict=strict, limit=options.get(limit))


def sides(asked: Mapping[str, Any], examples: Examples, folder: Path) -> tuple[Path | str, Examples, Examples]:
    """Where the training data is, the training examples, and the held-out ones.

    Where no held-out data is named, a fifth of the prompts is held out, told by their own hash, and both parts are
    written below `folder`. Raises InputError if that would be too few.
    """
    if asked["eval_data"] is not None:
        return asked["data"], examples, read_as(asked["eval_data"], asked["options"], "eval_limit")
    away = [int(named(e.prompt_text), 16) % 1000 < 1000 * HELD_OUT for e in examples]
    prompts = {e.prompt_text for e, out in zip(examples, away, strict=True) if out}
    if len(prompts) < LEAST or all(away):
        raise InputError(
            f"{len(prompts)} prompts would be held out of {len(examples)} examples, which is too few",
            mend="name held-out data: --eval-data FILE",
        )
    paths = [folder / "data" / name for name in ("train.jsonl", "held-out.jsonl")]
    for path, side in zip(paths, (False, True), strict=True):
        write((e for e, out in zip(examples, away, strict=True) if out is side), path)
    return paths[0], read(paths[0]), read(paths[1])
