"""The order of the data: a pure function of seed, step and batch, so that a resumed run sees the same rows."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray


class Order:
    """Which rows each step sees: the epochs' permutations laid end to end, cut into global batches.

    Every row comes exactly once an epoch; only the very last batch may be short.
    rows: number of rows. batch: rows a step over all processes. Raises ValueError if there are none.
    """

    def __init__(self, rows: int, *, batch: int, epochs: float = 1.0, max_steps: int | None = None, seed: int = 0):
        if rows < 1 or batch < 1:
            raise ValueError("an order needs at least one row and a batch of at least one")
        self.rows = rows
        self.batch = batch
        self.seed = seed
        if max_steps is None:
            self.total = max(1, round(epochs * rows))
            self.steps = ceil(self.total / batch)
        else:
            self.total = max_steps * batch
            self.steps = max_steps

    def step(self, step: int) -> list[int]:
        """Row numbers of one global batch."""
        first, last = step * self.batch, min((step + 1) * self.batch, self.total)
        return [int(self._epoch(at // self.rows)[at % self.rows]) for at in range(first, last)]

    def epoch_at(self, step: int) -> float:
        """Passes over the data done before this step."""
        return min(step * self.batch, self.total) / self.rows

    @lru_cache(maxsize=2)  # noqa: B019 - one Order per run, two permutations at most
    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)


def lr_at(step: int, steps: int, *, peak: float, warmup: float, schedule: str) -> float:
    """Learning rate of a step (counted from 0): a linear rise over `warmup` of the steps, then the schedule to 0."""
    rise = round(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "constant":
        return peak
    done = (step - rise) / max(1, steps - rise)
    return float(peak * (1 - done) if schedule == "linear" else peak * 0.5 * (1 + np.cos(np.pi * done)))
