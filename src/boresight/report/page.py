"""Pages out of templates: escaping is on for every value, and there is no way around it."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boresight
from boresight.report import plots, samples, tables
from boresight.report.runs import Record, Told
from boresight.report.series import Group, differing, groups
from boresight.report.words import counted, duration
from boresight.training.redact import last_part

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = "Boresight report"
"""What a page says of its origin; a file without it is not overwritten."""
QUIET = 600.0
"""Seconds without a word after which a run that says it is running is thought to have broken off."""


@dataclass(frozen=True)
class Budget:
    """How much of everything a page shows. points: of a curve. samples: of a run. characters: of one text."""

    points: int = 240
    samples: int = 8
    characters: int = 2000
    alarms: int = 30


@cache
def environment() -> Environment:
    """The templates. Every value is made readable (`words.shown`), then escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from boresight.report.words import shown

    made = Environment(
        loader=PackageLoader("boresight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"duration": duration, "verdict": tables.verdict_class, "last_part": last_part}
    return made


@cache
def policy() -> str:
    """The content security policy of every page: our own style, and nothing else from anywhere."""
    style = environment().get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'"


def page(template: str, **values: Any) -> str:
    """A page from its template; the same values give the same page."""
    common = {"policy": policy(), "generator": GENERATOR, "version": boresight.__version__, "refresh": None}
    return environment().get_template(template).render(common | values)


def report_page(records: Sequence[Record], budget: Budget | None = None, **more: Any) -> str:
    """The report on these runs. more: values for the template that the live view sets."""
    budget = budget or Budget()
    found = groups(records)
    sections = tables.figures(found)
    return page(
        "report.html",
        title=" · ".join(g.label for g in found[:4]) + (" …" if len(found) > 4 else ""),
        groups=[{"label": g.label, "tone": plots.tone(k), "n": len(g.records)} for k, g in enumerate(found)],
        runs=[about(r, budget) for r in records],
        figures=sections,
        differing={k: [last_part(v) for v in row] for k, row in differing(found).items()} if len(found) > 1 else {},
        fair=_fair(found),
        alarms=_alarms(records, budget.alarms),
        charts=plots.charts(found, budget.points),
        intervals=any(c.interval for s in sections for row in s.rows for c in row.cells),
        whisker=tables.WHISKER,
        made=_date(time.time()),
        **({"live": None} | more),
    )


def about(record: Record, budget: Budget) -> dict[str, Any]:
    """What the template says of one run."""
    facts, words = record.facts, record.evaluation.get("words")
    return {
        "name": record.name,
        "method": record.method,
        "state": state(record),
        "look": look(record),
        "facts": _facts(record),
        "evaluation": [w for w in words if isinstance(w, str)][:5] if isinstance(words, list) else [],
        "settings": tables.settings(record),
        "recipe": tables.recipe(record),
        "versions": sorted((str(k), v) for k, v in (facts.get("versions") or {}).items())[: tables.MOST],
        "data": tables.data_facts(record),
        "proof": tables.proof(record),
        "samples": samples.pairs(record, budget.samples, budget.characters),
        "sampled": len(record.texts),
    }


@dataclass(frozen=True)
class Alarmed:
    """One alarm and the runs that raised it, with their steps."""

    told: Told
    where: list[str]


def _alarms(records: Sequence[Record], most: int) -> tuple[list[Alarmed], int]:
    """Every alarm once, the worst first, with the runs that raised it; and how many are left out."""
    found: dict[tuple[str, str, str], Alarmed] = {}
    for record in records:
        for told in record.alarms:
            at = record.name + ("" if told.step is None else f", step {told.step:,}")
            found.setdefault((told.severity, told.name, told.sentence), Alarmed(told, [])).where.append(at)
    order = {"fatal": 0, "warning": 1, "": 1}
    worst = sorted(found.values(), key=lambda a: order.get(a.told.severity, 2))
    return worst[:most], len(worst) - len(worst[:most])


def state(record: Record) -> str:
    """How the run stands, in a sentence."""
    of = f" of {record.steps:,}" if record.steps else ""
    if record.finished:
        took = record.facts.get("seconds")
        return f"finished: {record.step:,}{of} steps" + (f" in {duration(took)}" if took is not None else "")
    at = f"at step {record.step:,}{of}"
    if record.stopped is not None:
        return (
            f"stopped at step {record.stopped:,}{of}: a number was not finite; the rows in question are in the run's "
            f"folder (offending-rows-step-{record.stopped}.jsonl)"
        )
    if record.facts["state"] != "running":
        return f"{record.facts['state']}, {at}"
    quiet = time.time() - record.touched
    if quiet < QUIET:
        return f"running, {at}; last word {duration(quiet)} ago"
    return (
        f"not finished: it says that it is running, {at}, but its last word is of {_date(record.touched)}. If no "
        f"process is at work on it, it broke off: boresight train --resume --out {record.folder.name} goes on with it"
    )


def look(record: Record) -> str:
    """good for a run that finished, bad for one that broke off or was stopped, else nothing."""
    if record.finished:
        return "good"
    state = str(record.facts["state"])
    broken = state == "running" and time.time() - record.touched >= QUIET
    return "bad" if broken or record.stopped is not None or state.startswith("stopped") else ""


def _facts(record: Record) -> list[tuple[str, Any]]:
    """The identity of a run, in short."""
    facts, recipe = record.facts, record.recipe
    data, rows, template = (facts.get(k) or {} for k in ("data", "rows", "template"))
    chosen = [
        ("method", record.method),
        ("equation", facts.get("paper")),
        ("model", last_part(recipe.get("model"))),
        ("adapter", recipe.get("adapter")),
        ("data", last_part(recipe.get("data"))),
        ("fingerprint of the data", data.get("fingerprint")),
        ("fingerprint of the rows", rows.get("fingerprint")),
        ("held out", last_part(recipe.get("eval_data") or "nothing")),
        ("evaluated on", last_part(record.evaluation.get("data"))),
        ("reference, by its weights", facts.get("reference")),
        ("template", _template(template)),
        ("seed", facts.get("seed")),
        ("processes", facts.get("processes")),
        ("state", state(record)),
    ]
    return [(name, value) for name, value in chosen if value not in (None, "", "none")]


def _template(facts: dict[str, Any]) -> str | None:
    if not facts:
        return None
    ends = facts.get("end_of_turn")
    tokens = f"; a turn ends in {ends.get('token')!r}" if isinstance(ends, dict) else ""
    return f"{facts.get('template')}, identity {facts.get('identity')}{tokens}"


def _fair(found: Sequence[Group]) -> list[str]:
    """What stands in the way of comparing the methods as if nothing but the method differed."""
    told = []
    records = [r for g in found for r in g.records]
    for key, what in (("data", "data"), ("rows", "training rows")):
        prints = {str((r.facts.get(key) or {}).get("fingerprint")) for r in records}
        kinds = {str((r.facts.get("rows") or {}).get("kind")) for r in records}
        if len(prints) > 1 and not (key == "rows" and len(kinds) > 1):
            told.append(f"These runs were trained on different {what}: differences are not the methods' alone.")
            break
    if len({r.step for r in records if r.finished}) > 1:
        told.append("They took different numbers of steps: their budgets are not equal.")
    if any(not r.finished for r in records):
        told.append(f"{counted(sum(not r.finished for r in records), 'run')} of {len(records)} did not finish.")
    evaluated = {str(r.evaluation.get("data")) for r in records if r.evaluation}
    if len(evaluated) > 1:
        told.append("They were evaluated on different data.")
    if len(found) > 1 and all(len(g.records) == 1 for g in found):
        told.append("One seed each: intervals are over held-out rows or prompts, not over seeds.")
    return told if len(records) > 1 else []


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
