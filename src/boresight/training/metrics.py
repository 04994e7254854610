"""Metrics as exact sums over counts: never a mean of batch means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.objectives import LogProbs, PairLogProbs, PairScores, ResponseLogProbs
from boresight.training.distributed import add_up

Counted = tuple[Tensor, Tensor | None]
"""Values (examples,) and what each counts as (None: one each)."""


class Meter:
    """Named sums and counts, kept in double precision; `reduce` adds up all processes and starts afresh."""

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None) -> None:
        self._sums = {n: torch.tensor(both, dtype=torch.float64) for n, both in (sums or {}).items()}

    def add(self, values: dict[str, Counted], counts: Tensor) -> None:
        """Add per-example values; `counts` (examples,) is False for rows that only fill a batch."""
        for name, (value, weight) in values.items():
            weight = torch.ones_like(value) if weight is None else weight
            live = counts.to(value.device)
            both = torch.stack([value.detach()[live].double().sum(), weight[live].double().sum()]).cpu()
            self._sums[name] = self._sums[name] + both if name in self._sums else both

    def merge(self, other: Meter) -> None:
        """Add what another meter holds."""
        for name, both in other._sums.items():
            self._sums[name] = self._sums[name] + both if name in self._sums else both

    def sums(self, accelerator: Any) -> dict[str, list[float]]:
        """Sum and count of each name over all processes, as they stand."""
        names = sorted(self._sums)
        if not names:
            return {}
        total = torch.stack([self._sums[n] for n in names])
        total = add_up(accelerator, total)
        return {n: both.tolist() for n, both in zip(names, total, strict=True)}

    def reduce(self, accelerator: Any) -> dict[str, float]:
        """Sum over count of each name, over all processes; then empty."""
        total = self.sums(accelerator)
        self._sums = {}
        return {n: s / c if c > 0 else float("nan") for n, (s, c) in total.items()}


def measure(batch: PairLogProbs | ResponseLogProbs | PairScores) -> dict[str, Counted]:
    """What is worth knowing of a batch, per example; ties in the accuracy count half.

    Gains are policy minus reference in nats, summed over a response's tokens.
    """
    values: dict[str, Counted] = {}
    if isinstance(batch, PairScores):
        return values | {"margin": (batch.margin(), None), "accuracy": (_wins(batch.margin()), None)}
    if isinstance(batch, ResponseLogProbs):
        values |= _side("", batch.policy)
        if batch.has_reference:
            gain = batch.policy.sum() - batch.reference.sum()
            values["gain"] = (gain, None)
            if batch.has_labels:
                good = batch.desirable.to(gain.dtype)
                values["chosen_gain"] = (gain * good, good)
                values["rejected_gain"] = (gain * (1 - good), 1 - good)
        return values
    values |= _side("chosen_", batch.policy.chosen) | _side("rejected_", batch.policy.rejected)
    margin = batch.policy.margin()
    values["accuracy_mean"] = (_wins(batch.policy.mean_margin()), None)
    if batch.has_reference:
        margin = batch.margin()
        values["chosen_gain"] = (batch.policy.chosen.sum() - batch.reference.chosen.sum(), None)
        values["rejected_gain"] = (batch.policy.rejected.sum() - batch.reference.rejected.sum(), None)
    return values | {"margin": (margin, None), "accuracy": (_wins(margin), None)}


def _side(prefix: str, side: LogProbs) -> dict[str, Counted]:
    lengths = side.lengths().to(side.values.dtype)
    return {f"{prefix}logp_token": (side.sum(), lengths), f"{prefix}length": (lengths, None)}


def _wins(margin: Tensor) -> Tensor:
    return (margin > 0).to(margin.dtype) + 0.5 * (margin == 0).to(margin.dtype)


def words(metrics: dict[str, float], names: Iterable[str]) -> str:
    """Some metrics on one line, for people."""
    return "  ".join(f"{n} {metrics[n]:.4g}" for n in names if n in metrics)
