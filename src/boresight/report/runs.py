"""Run folders as a report reads them: what is missing is empty, what is damaged is an InputError."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.training.alarms import Alarms
from boresight.training.redact import without_secrets
from boresight.training.trackers import read_metrics

KINDS: dict[str, type | tuple[type, ...]] = {
    "state": str,
    "method": str,
    "paper": (str, type(None)),
    "recipe": dict,
    "settings": list,
    "data": dict,
    "rows": dict,
    "template": dict,
    "versions": dict,
    "metrics": dict,
    "alarms": list,
    "seconds": (int, float),
    "steps": (int, float),
}
"""What the keys of run.json hold; others are shown as they are."""

DEPTH = 3
"""How many folders deep runs are looked for."""
MOST = 500
"""Runs that one folder shows."""

_ALARM = re.compile(r"step (\d+), (\w+), ([^:\n]+): (.*?)(?:\n  mend: (.*))?", re.DOTALL)


@dataclass(frozen=True)
class Told:
    """An alarm in words. severity: note, warning or fatal; step and mend may be unknown."""

    step: int | None
    severity: str
    name: str
    sentence: str
    mend: str = ""


@dataclass(frozen=True)
class Record:
    """One run, read. facts: run.json without secrets. texts: tag to (step, text), of the first and the last step.

    touched: when the folder's files were last written, in seconds since 1970. stopped: the step at which a number
    was not finite, if the run ended there.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    metrics: list[dict[str, float]] = field(default_factory=list)
    texts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    alarms: list[Told] = field(default_factory=list)
    touched: float = 0.0
    stopped: int | None = None

    @property
    def method(self) -> str:
        """The objective's name, as the run wrote it down."""
        return str(self.facts["method"])

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.facts["state"] == "finished"

    @property
    def steps(self) -> int:
        """Steps that were planned; 0 where that is not known."""
        return int(self.facts.get("steps") or 0)

    @property
    def step(self) -> int:
        """The last step that was written down."""
        return max((int(row["step"]) for row in self.metrics), default=0)

    @property
    def recipe(self) -> dict[str, Any]:
        """Every option of the run."""
        return dict(self.facts.get("recipe") or {})

    def last(self) -> dict[str, float]:
        """The newest value of each metric."""
        newest: dict[str, float] = {}
        for row in self.metrics:
            newest |= row
        newest.pop("step", None)
        return newest


def find_runs(folder: str | Path) -> dict[str, Path]:
    """The runs in a folder (itself, or below it) by their path within it, sorted; links are not followed.

    Raises InputError if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", mend="give the folder of a run, or one that holds runs")
    if (root / "run.json").is_file():
        return {root.resolve().name or "run": root}
    found: dict[str, Path] = {}
    for path in _below(root, DEPTH):
        if len(found) == MOST:
            break
        found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items()))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            inner = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    except OSError:
        return  # a folder that may not be read holds nothing that could be shown
    for name in inner:
        path = folder / name
        if (path / "run.json").is_file():
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def read_run(folder: str | Path, *, name: str | None = None, root: Path | None = None) -> Record:
    """One run. root: a folder that no file of the run may lie outside of, by way of a link.

    Raises InputError if there is no run, or if one of its files is not what a run writes.
    """
    path = Path(folder)
    facts = _facts(_file(path / "run.json", root))
    metrics_file, samples_file = _file(path / "metrics.jsonl", root), _file(path / "samples.jsonl", root)
    evaluation_file = _file(path / "evaluation.json", root)
    metrics = _metrics(path) if metrics_file.is_file() else []
    evaluation = _object(evaluation_file) if evaluation_file.is_file() else {}
    touched = [p.stat().st_mtime for p in (path / "run.json", metrics_file, samples_file) if p.is_file()]
    return Record(
        folder=path,
        name=name or path.resolve().name,
        facts=facts,
        metrics=metrics,
        texts=_texts(samples_file) if samples_file.is_file() else {},
        evaluation=without_secrets(evaluation),
        alarms=_alarms(facts, metrics),
        touched=max(touched),
        stopped=_stopped(path),
    )


def _file(path: Path, root: Path | None) -> Path:
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{path.name} of {path.parent.name} is a link that leads elsewhere", mend="put the file there")
    return path


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} is not a run: it has no {path.name}", mend="give the folder of a run"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", mend="the file is damaged; the run itself may not be"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no facts of a run", mend="give the folder of a run")
    return value


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = without_secrets(_object(path))
    for key in ("state", "method"):
        if key not in facts:
            raise InputError(f"{path}: no key {key!r}", mend="give the folder of a run; this one is damaged")
    for key, kind in KINDS.items():
        if key in facts and (not isinstance(facts[key], kind) or isinstance(facts[key], bool)):
            found = type(facts[key]).__name__
            raise InputError(f"{path}: {key} holds a {found}, which no run writes there", mend="the file is damaged")
    return facts


def _metrics(folder: Path) -> list[dict[str, float]]:
    try:
        rows = read_metrics(folder)
        for row in rows:
            row["step"] = int(row["step"])
        return rows
    except (OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        raise InputError(
            f"{folder / 'metrics.jsonl'}{_first_bad(folder / 'metrics.jsonl')} is not what a run writes",
            mend="take the line out, or move the file away",
        ) from None


def _first_bad(path: Path) -> str:
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
            int(row["step"])
            [float(v) for v in row.values()]
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
            return f":{number}"
    return ""


def _lines(path: Path) -> Iterator[str]:
    """Whole lines; one that is still being written is left out."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from (line for line in file if line.endswith("\n"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", mend="see who may read it") from None


def _texts(path: Path) -> dict[str, list[tuple[int, str]]]:
    """The first and the last text of each tag; those between are left in the file."""
    texts: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
            step, tag, text = int(row["step"]), str(row["tag"]), str(row["text"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise InputError(f"{path}:{number} is not what a run writes", mend="take the line out") from None
        kept = texts.setdefault(tag, [])
        if len(kept) == 2:
            kept.pop()
        kept.append((step, without_secrets(text)))
    return texts


def _alarms(facts: Mapping[str, Any], metrics: list[dict[str, float]]) -> list[Told]:
    """What the run told, and what its metrics tell: a run under way has not written its alarms down yet.

    The method is looked up among those that are known and never imported by a path: a run folder may be anybody's.
    """
    told: dict[tuple[int | None, str], Told] = {}
    for text in facts.get("alarms") or []:
        found = _ALARM.fullmatch(str(text))
        one = (
            Told(int(found[1]), found[2], found[3], found[4], found[5] or "")
            if found
            else Told(None, "", "", str(text))
        )
        told.setdefault((one.step, one.name or one.sentence), one)
    from boresight.objectives import objectives

    objective = objectives().get(str(facts["method"]))
    options = facts.get("recipe") or {}
    chosen = {k: options[k] for k in objective.hyperparameters if k in options} if objective else {}
    try:
        watch = Alarms(objective, chosen)
    except (ValueError, TypeError, ArithmeticError):
        watch = Alarms()  # options that the method of today refuses
    for row in metrics:
        for alarm in watch.look(int(row["step"]), {k: v for k, v in row.items() if k != "step"}):
            one = Told(alarm.step, alarm.severity, alarm.name, alarm.sentence, alarm.mend)
            told.setdefault((one.step, one.name), one)
    return sorted(told.values(), key=lambda t: -1 if t.step is None else t.step)


def _stopped(folder: Path) -> int | None:
    steps = (
        re.fullmatch(r"offending-rows-step-(\d{1,12})\.jsonl", p.name) for p in folder.glob("offending-rows-step-*")
    )
    return max((int(found[1]) for found in steps if found), default=None)
