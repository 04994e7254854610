"""Which versions of which packages are installed: what a run writes down, and what a bug report needs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import boresight

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Name and version of Boresight, Python and the packages that decide results; those absent are left out."""
    found = {"boresight": boresight.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
