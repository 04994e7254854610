"""The tables of a report: methods with intervals and cost, settings, data, proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePath
from typing import Any

from boresight.data.rowreport import RowsReport
from boresight.data.table import ReadReport
from boresight.report.runs import Record
from boresight.report.series import Group, newest
from boresight.report.words import as_number, clean, duration, number
from boresight.stats import Interval, mean
from boresight.training.card import MEANINGS
from boresight.training.redact import last_part

MOST = 80
"""Rows of any one table."""
WHISKER = 100


@dataclass(frozen=True)
class Cell:
    """A figure, its interval in words, and where interval and figure lie in the row's own scale from 0 to 100."""

    value: str
    interval: str = ""
    low: float | None = None
    high: float | None = None
    at: float | None = None


@dataclass(frozen=True)
class Row:
    """One figure of every method."""

    name: str
    meaning: str
    cells: list[Cell]


@dataclass(frozen=True)
class Section:
    """Rows under a heading. more: said already, in another way, by a section before."""

    title: str
    rows: list[Row]
    note: str = ""
    more: bool = False


def figures(groups: Sequence[Group]) -> list[Section]:
    """What came of each method: evaluated, held out in training, of its samples, in training; and what it cost."""
    evaluated = _evaluated(groups)
    known = list(MEANINGS)
    there = dict.fromkeys(k for g in groups for r in g.records for k in r.last())
    names = sorted(there, key=lambda n: known.index(_bare(n)) if _bare(n) in known else len(known))
    held_out = [n for n in names if n.startswith("eval_")]
    sampled = [n for n in names if n.startswith("sample_")]
    training = [n for n in names if n not in held_out and n not in sampled and n not in ("lr", "epoch", "grad_norm")]
    several = any(len(g.records) > 1 for g in groups)
    note = "" if several else "one seed each, so no intervals" if len(groups) > 1 else "one seed, so no intervals"
    sections = [
        Section("Evaluated on held-out data", evaluated),
        Section("Held out, at the last look in training", _metrics(groups, held_out), note, bool(evaluated)),
        Section("Samples, at the last look", _metrics(groups, sampled), note, bool(evaluated)),
    ]
    if not evaluated and not held_out:
        sections.append(Section("On training data: nothing was held out", _metrics(groups, training), note))
    sections.append(Section("Cost", _cost(groups)))
    return [s for s in sections if s.rows]


def _bare(name: str) -> str:
    return name.removeprefix("eval_")


def _evaluated(groups: Sequence[Group]) -> list[Row]:
    meanings: dict[str, str] = {}
    for record in (r for g in groups for r in g.records):
        for name, one in _measures(record).items():
            meanings.setdefault(name, str(one.get("meaning", "")))
    return [
        _row(name, meaning, [_over_seeds([_interval(r, name) for r in g.records]) for g in groups])
        for name, meaning in list(meanings.items())[:MOST]
    ]


def _measures(record: Record) -> dict[str, Mapping[str, Any]]:
    measures = record.evaluation.get("measures")
    if not isinstance(measures, Mapping):
        return {}
    return {str(k): v for k, v in measures.items() if isinstance(v, Mapping) and as_number(v.get("value")) is not None}


def _interval(record: Record, name: str) -> Interval | None:
    one = _measures(record).get(name)
    if one is None:
        return None
    value, low, high = (as_number(one.get(k)) for k in ("value", "low", "high"))
    n = as_number(one.get("n")) or 0
    if value is None:
        return None
    unknown = low is None or high is None or not low <= value <= high
    inf = float("inf")
    return Interval(value, -inf if unknown or low is None else low, inf if unknown or high is None else high, int(n))


def _metrics(groups: Sequence[Group], names: Sequence[str]) -> list[Row]:
    rows = []
    for name in names[:MOST]:
        inf = float("inf")
        values = [[newest(r, name) for r in g.records] for g in groups]
        lists = [[None if v is None else Interval(v, -inf, inf, 1) for v in of] for of in values]
        title = _bare(name).removeprefix("sample_").replace("_", " ")
        rows.append(_row(title, MEANINGS.get(_bare(name), ""), [_over_seeds(x) for x in lists]))
    return rows


def _over_seeds(found: Sequence[Interval | None]) -> tuple[Interval, str] | None:
    """Of one run its own interval; of several the mean over seeds with a t interval."""
    there = [i for i in found if i is not None and isfinite(i.value)]
    if len(there) > 1:
        return mean([i.value for i in there]), f"{len(there)} seeds"
    return (there[0], f"n={there[0].n:,}") if there else None


def _row(name: str, meaning: str, found: Sequence[tuple[Interval, str] | None]) -> Row:
    ends = [v for i in found if i for v in (i[0].low, i[0].high, i[0].value) if isfinite(v)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)

    def place(value: float) -> float:
        return round(4 + (value - low) / (high - low) * (WHISKER - 8), 1)

    cells = []
    for one in found:
        if one is None:
            cells.append(Cell("-"))
            continue
        i, of = one
        bounded = isfinite(i.low) and isfinite(i.high)
        words = f"[{i.low:.3g}, {i.high:.3g}] {of}" if bounded else ""
        drawn = high > low and bounded
        cells.append(
            Cell(number(i.value), words, *(place(v) for v in (i.low, i.high, i.value)))
            if drawn
            else Cell(number(i.value), words)
        )
    return Row(name, meaning, cells)


def _cost(groups: Sequence[Group]) -> list[Row]:
    rows = []
    for name, meaning, of in (
        ("time", "wall clock, from start to end; for several seeds their mean", _seconds),
        ("steps", "optimizer steps done", lambda r: float(r.step)),
        ("rows", "training rows made of the data", lambda r: as_number((r.facts.get("rows") or {}).get("made"))),
    ):
        cells = []
        for group in groups:
            values = [v for v in map(of, group.records) if v is not None]
            average = sum(values) / len(values) if values else None
            shown = "-" if average is None else duration(average) if name == "time" else number(average)
            cells.append(Cell(shown))
        rows.append(Row(name, meaning, cells))
    seeds = [Cell(", ".join(clean(s, 12) for s in g.seeds[:12])) for g in groups]
    return [*rows, Row("seeds", "what decides order and samples", seeds)]


def _seconds(record: Record) -> float | None:
    return as_number(record.facts.get("seconds"))


def settings(record: Record) -> list[tuple[str, Any, str]]:
    """Name, value and where it comes from; a local path by its last part. Those that were given come first."""
    rows = [s for s in record.facts.get("settings") or [] if isinstance(s, Mapping) and "name" in s]
    return [(str(s["name"]), last_part(s.get("value")), str(s.get("source") or "not recorded")) for s in rows[:MOST]]


def recipe(record: Record) -> str:
    """The recipe as YAML, local paths by their last part."""
    import yaml

    values = {k: last_part(v) for k, v in record.recipe.items() if v is not None}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False)


def data_facts(record: Record) -> list[str]:
    """How the data was read and what became of it, in the words of the reports that were written down."""
    lines: list[str] = []
    for key, kind in (("data", ReadReport), ("rows", RowsReport)):
        facts = {k: v for k, v in (record.facts.get(key) or {}).items() if k != "fingerprint"}
        if not facts:
            continue
        try:
            lines += kind.from_dict(facts).lines()
        except (TypeError, KeyError, ValueError, AttributeError):
            # Written by another version, whose words are not ours: its facts as they stand.
            lines += [f"{k}: {v}" for k, v in facts.items() if isinstance(v, str | int | float)]
    folder = str(PurePath(str((record.facts.get("data") or {}).get("source") or "")).parent)
    hide = folder if folder not in ("", ".", "/") else None
    return [(line.replace(f"{hide}/", "") if hide else line).strip() for line in lines[:MOST]]


@dataclass(frozen=True)
class Proof:
    """The lines of the step-zero proof as they were written down, and in words what there is no line for."""

    lines: list[dict[str, Any]]
    words: str = ""


def proof(record: Record) -> Proof:
    """What was proved before the first step; lines that the run had no use for are only named."""
    found = record.facts.get("proof")
    if found is None:
        return Proof([], "The step-zero proof was not recorded.")
    if not isinstance(found, list):
        return Proof([], f"No step-zero proof: {clean(str(found), 500)}.")
    lines = [one for one in found if isinstance(one, Mapping)][:MOST]
    idle = [str(one.get("name")) for one in lines if one.get("verdict") == IDLE]
    kept = [{k: one.get(k) for k in ("name", "residual", "tolerance", "verdict", "words")} for one in lines]
    for one in kept:
        if isinstance(one["residual"], float):
            one["residual"] = brief(one["residual"])
    return Proof(
        [one for one in kept if one["verdict"] != IDLE], f"Of no use to this run: {', '.join(idle)}." if idle else ""
    )


def brief(residual: float) -> str:
    """Three digits of what is of the order of one, the order of magnitude of what is smaller."""
    return f"{residual:.3g}" if residual == 0 or not abs(residual) < 0.1 else f"{residual:.0e}"


IDLE = "not applicable"
VERDICTS = {"holds": "good", "fails": "bad"}


def verdict_class(verdict: Any) -> str:
    """good, bad or neither."""
    return VERDICTS.get(str(verdict), "")
