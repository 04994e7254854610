"""Runs as curves: seeds of one method together, thinned so that no spike is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

from boresight.report.runs import Record
from boresight.training.redact import last_part

FREE = {"seed", "out", "save_every", "keep", "trackers", "store", "log_every"}
"""Options in which seeds of one method may differ."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. label: unlike that of any other group."""

    label: str
    records: list[Record]

    @property
    def seeds(self) -> list[str]:
        """Their seeds, as they were written down."""
        return [str(r.facts.get("seed", "not recorded")) for r in self.records]


@dataclass(frozen=True)
class Curve:
    """Values over steps. points: (step, value), nan where a value was not finite. band: (step, lowest, highest) over
    seeds, empty for one run. lost: values that were not finite. n: runs it is the mean of."""

    points: list[Point]
    band: list[tuple[float, float, float]] = field(default_factory=list)
    lost: int = 0
    n: int = 1


def groups(records: Sequence[Record]) -> list[Group]:
    """The runs, those of equal method, options and data together; the same seed twice makes two groups."""
    found: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        key, place = _identity(record), 0
        seed = record.facts.get("seed")
        while any(r.facts.get("seed") == seed for r in found.get((key, place), [])):
            place += 1
        found.setdefault((key, place), []).append(record)
    lists = list(found.values())
    return [Group(label, rows) for label, rows in zip(_labels(lists), lists, strict=True)]


def _identity(record: Record) -> str:
    options = {k: v for k, v in record.recipe.items() if k not in FREE}
    data = (record.facts.get("data") or {}).get("fingerprint")
    return json.dumps([record.method, options, data, record.facts.get("reference")], sort_keys=True, default=str)


def _labels(lists: Sequence[list[Record]]) -> list[str]:
    """The method; what sets it apart where there are several of it; the run's name where nothing else does."""
    labels = []
    for rows in lists:
        rivals = [other for other in lists if other[0].method == rows[0].method]
        label = rows[0].method
        if len(rivals) > 1:
            every = [r[0].recipe for r in rivals]
            keys = _unlike(every)
            label += "".join(f" {k}={_short(rows[0].recipe.get(k))}" for k in keys[:3])
        labels.append(label)
    unlike: list[str] = []
    for label, rows in zip(labels, lists, strict=True):
        named = f"{label} ({rows[0].name})" if labels.count(label) > 1 else label
        unlike.append(f"{named} [{len(unlike) + 1}]" if named in unlike else named)
    return unlike


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(last_part(value))
    return text if len(text) <= 24 else f"…{text[-23:]}"


def curve(group: Group, key: str, most: int) -> Curve | None:
    """One metric of a group, at most about `most` points; None where no run has it.

    With several runs: their mean at the steps that most of them have, and the band from the lowest to the highest.
    """
    runs = [{row["step"]: row[key] for row in r.metrics if key in row} for r in group.records]
    runs = [r for r in runs if r]
    if not runs:
        return None
    lost = sum(not isfinite(v) for r in runs for v in r.values())
    if len(runs) == 1:
        points = [(float(s), v if isfinite(v) else nan) for s, v in sorted(runs[0].items())]
        return Curve([points[i] for i in thin([y for _, y in points], most)], lost=lost)
    counts: dict[float, int] = {}
    for run in runs:
        for step in run:
            counts[step] = counts.get(step, 0) + 1
    steps = sorted(s for s, c in counts.items() if c == max(counts.values()))
    rows = [(float(s), [r[s] for r in runs if s in r]) for s in steps]
    means = [(s, sum(v) / len(v) if all(map(isfinite, v)) else nan) for s, v in rows]
    kept = thin([y for _, y in means], most)
    band = [(rows[i][0], min(rows[i][1]), max(rows[i][1])) for i in kept if isfinite(means[i][1])]
    return Curve([means[i] for i in kept], band, lost, len(runs))


def thin(values: Sequence[float], most: int) -> list[int]:
    """Places of at most `most` + 2 values: the first, the last, and of each stretch the lowest and the highest.

    A stretch that holds a value that is not finite keeps its place too, so that the gap stays.
    """
    n = len(values)
    if n <= most:
        return list(range(n))
    kept = {0, n - 1}
    stretches = max(1, most // 3)
    for k in range(stretches):
        inside = range(k * n // stretches, (k + 1) * n // stretches)
        finite = [i for i in inside if isfinite(values[i])]
        if finite:
            kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
        if len(finite) < len(inside):
            kept.add(next(i for i in inside if not isfinite(values[i])))
    return sorted(kept)


def newest(record: Record, key: str) -> float | None:
    """The last finite value of a metric."""
    for row in reversed(record.metrics):
        if key in row and isfinite(row[key]):
            return row[key]
    return None


def differing(all_groups: Sequence[Group]) -> Mapping[str, list[Any]]:
    """Options in which groups differ, with the value of each group."""
    recipes = [g.records[0].recipe for g in all_groups]
    return {k: [r.get(k) for r in recipes] for k in _unlike(recipes)}


def _unlike(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(k for r in recipes for k in r if k not in FREE)
    return [k for k in keys if len({json.dumps(r.get(k), default=str, sort_keys=True) for r in recipes}) > 1]
