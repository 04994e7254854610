"""log(1 - p) beside log p, exact near p = 1 and finite at it."""

from __future__ import annotations

from torch import Tensor

NEAREST_TO_CERTAIN = 1e-7
"""Odds are infinite at probability 1; a log-prob above minus this counts as minus this, in any precision."""


def log_both(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """log p, at most -NEAREST_TO_CERTAIN, and log(1 - p), both in the shape of log_p (at most 0), in nats."""
    log_p = log_p.clamp(max=-NEAREST_TO_CERTAIN)
    # Near p = 1, 1 - exp(log_p) is 0 in fp32 and its logarithm minus infinity.
    return log_p, (-log_p.expm1()).log()
