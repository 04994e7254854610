"""Checks of hyperparameters: each takes `name=value` and raises a ValueError that names what was wrong."""

from __future__ import annotations

from math import inf


def positive(**values: float) -> None:
    """Raise ValueError unless every value is a finite number above 0."""
    for name, value in values.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} must be positive and finite, not {value}")


def not_negative(**values: float) -> None:
    """Raise ValueError unless every value is a finite number, 0 or above."""
    for name, value in values.items():
        if not 0 <= value < inf:
            raise ValueError(f"{name} must be 0 or more, and finite, not {value}")


def flip_rate(**values: float) -> None:
    """Raise ValueError unless every value is in [0, 0.5): labels that are wrong half the time say nothing."""
    for name, value in values.items():
        if not 0 <= value < 0.5:
            raise ValueError(f"{name} must be in [0, 0.5), not {value}")
