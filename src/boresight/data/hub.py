"""The hub of models and data sets: asked once whether it answers, so that nobody waits for retries that cannot help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WAIT = 5.0
"""Seconds in which the hub must answer."""
VALID = 60.0
"""Seconds for which an answer, or none, is taken to hold."""

_asked: dict[str, tuple[float, str]] = {}


@contextmanager
def hub() -> Iterator[str]:
    """Within the block, hub libraries ask the hub; or, where it does not answer, look into their caches alone.

    Yields why the hub is not asked, in words; nothing where it answers. Without this, the libraries try a host that
    cannot be reached for half a minute, file by file.
    """
    import datasets
    from huggingface_hub import constants

    if constants.is_offline_mode():
        yield "HF_HUB_OFFLINE is set"
        return
    why = _silence(constants.ENDPOINT)
    if not why:
        yield ""
        return
    before: list[tuple[Any, bool]] = [(place, place.HF_HUB_OFFLINE) for place in (constants, datasets.config)]
    try:
        for place, _ in before:
            place.HF_HUB_OFFLINE = True
        yield why
    finally:
        for place, value in before:
            place.HF_HUB_OFFLINE = value


def _silence(endpoint: str) -> str:
    """Why the hub does not answer; nothing if it does, whatever it says."""
    from urllib.parse import urlsplit

    from huggingface_hub.utils import get_session

    now = time.monotonic()
    when, why = _asked.get(endpoint, (-VALID, ""))
    if now - when < VALID:
        return why
    try:
        get_session().head(endpoint, timeout=WAIT, follow_redirects=False)
        why = ""
    except Exception as error:  # of httpx, ssl, or whatever stands behind a session of one's own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        why = f"the hub ({urlsplit(endpoint).hostname}) cannot be reached: {reason}"
    _asked[endpoint] = (now, why)
    return why
