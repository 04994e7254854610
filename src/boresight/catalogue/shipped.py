"""Recipes that come with the package: `recipes/ID.yaml`, for studies and for what the engine does without a loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parents[1] / "recipes"


@cache
def recipes() -> Mapping[str, Path]:
    """The file of each recipe by its id, sorted."""
    return MappingProxyType({path.stem: path for path in sorted(FOLDER.glob("*.yaml"))})


def recipe_method(path: Path) -> str:
    """The objective that a recipe trains by; "" where it names none."""
    found = re.search(r"^method:[ \t]*([\w.-]+)", path.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""
