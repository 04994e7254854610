"""Curation: dataset -> dataset. Each is one function on Examples that returns Examples."""

from __future__ import annotations

from boresight.curation.degrade import degrade, degraded

__all__ = ["degrade", "degraded"]
