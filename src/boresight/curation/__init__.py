"""Curation: dataset -> dataset. Each is one function on Examples that returns Examples."""

from __future__ import annotations

from boresight.curation.degrade import degrade, degraded
from boresight.curation.quote_tuning import Quotes, quote_tuning

__all__ = ["Quotes", "degrade", "degraded", "quote_tuning"]
