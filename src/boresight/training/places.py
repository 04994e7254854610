"""Where things are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """BORESIGHT_CACHE, or ~/.cache/boresight."""
    return Path(os.environ.get("BORESIGHT_CACHE") or Path.home() / ".cache" / "boresight")
