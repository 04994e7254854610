"""The page about a comparison, made of what compare.json holds and nothing else; and the same as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.report import plots
from boresight.report.page import environment, page
from boresight.report.scatter import Scatter, Spot, scatter
from boresight.report.words import duration
from boresight.training.redact import last_part

Told = Mapping[str, Any]
WHISKER = 150
COLUMNS = ("gold", "accuracy", "lc_accuracy", "kl", "length", "ends", "chosen_gain", "own_accuracy")
STATED = ("gold", "accuracy", "lc_accuracy", "length", "kl", "chosen_gain")


@dataclass(frozen=True)
class Cell:
    """A figure of an arm: the value, its interval, and the standard deviation over seeds, in words."""

    value: str
    interval: str = ""
    seeds: str = ""
    best: bool = False


@dataclass(frozen=True)
class Whisker:
    """A difference: words, its interval in words, p, and where interval, value and zero lie from 0 to WHISKER."""

    arm: str
    value: str
    interval: str
    p: str
    different: bool
    low: float | None
    high: float | None
    at: float
    zero: float


def shown(told: Told, arm: Told, key: str) -> Cell:
    """A figure of an arm in words."""
    found = arm["figures"].get(key)
    if not found:
        return Cell("-")
    sd = found.get("sd")
    return Cell(
        figure(found["value"], key),
        "" if found["low"] is None else f"[{figure(found['low'], key)}, {figure(found['high'], key)}]",
        "" if sd is None else f"sd {figure(sd, key)}",
        arm["label"] in best(told, key),
    )


def best(told: Told, key: str) -> set[str]:
    """The arms with the highest value of a figure of which more is better."""
    known = {a["label"]: a["figures"][key]["value"] for a in told["arms"] if a["figures"].get(key)}
    if not known or not told["kinds"][key]["better"] or len(known) < 2:
        return set()
    return {label for label, value in known.items() if value == max(known.values())}


def figure(value: float, key: str) -> str:
    """Three places of shares and rewards, two of nats, one of tokens."""
    return f"{value:.{ {'kl': 2, 'chosen_gain': 2, 'length': 1}.get(key, 3) }f}"


def present(told: Told) -> list[str]:
    """The figures that some arm has."""
    return [k for k in COLUMNS if any(a["figures"].get(k) for a in told["arms"])]


def comparison_page(told: Told) -> str:
    """The page. Every value in it is escaped, whatever compare.json says."""
    keys = present(told)
    tones = {m: plots.tone(k) for k, m in enumerate(dict.fromkeys(a["method"] for a in told["arms"]))}
    kinds = told["kinds"]
    base = told["differences"][0]["baseline"] if told["differences"] else told["baseline"]
    rows = [
        {
            "label": a["label"],
            "tone": tones[a["method"]],
            "cells": [shown(told, a, k) for k in keys],
            "baseline": a["label"] == base,
            "frontier": a["label"] in told["frontier"],
            "runs": a["runs"],
        }
        for a in told["arms"]
    ]
    return page(
        "compare.html",
        title=" · ".join(tones) if len(tones) <= 4 else f"{len(tones)} methods compared",
        told=told,
        keys=[{"key": k, **kinds[k]} for k in keys],
        rows=rows,
        start=[_start(told, k) for k in keys],
        tones=tones,
        failed=[r | {"arm": a["label"]} for a in told["arms"] for r in a["runs"] if r["state"] == "failed"],
        forests=[f for k in STATED if (f := _forest(told, k))],
        pictures=list(pictures(told).values()),
        cost=_cost(told),
        facts=facts(told),
        whisker=WHISKER,
    )


def pictures(told: Told) -> dict[str, Scatter]:
    """What was gained against KL and against length, by a short name; those for which there are points enough."""
    tones = {m: plots.tone(k) for k, m in enumerate(dict.fromkeys(a["method"] for a in told["arms"]))}
    found = {"kl": _frontier(told, tones), "length": _lengths(told, tones)}
    return {name: picture for name, picture in found.items() if picture is not None}


def svg(picture: Scatter) -> str:
    """A picture as a file of its own."""
    tones = re.findall(r"--s\d: (#\w{6})", environment().get_template("style.css").render())
    half = len(tones) // 2
    pairs = list(zip(tones[:half], tones[half:], strict=True))
    return environment().get_template("scatter.svg").render(p=picture, tones=pairs)


def _start(told: Told, key: str) -> Cell:
    found = told["start"].get(key)
    return Cell("-") if not found else Cell(figure(found["value"], key))


def _forest(told: Told, key: str) -> dict[str, Any] | None:
    """One figure's differences from the baseline, the largest first, on one scale."""
    mine = sorted((d for d in told["differences"] if d["figure"] == key), key=lambda d: -d["value"])
    if not mine:
        return None
    times = 100.0 if key == "length" else 1.0
    ends = [v for d in mine for v in (d["low"], d["high"], d["value"]) if v is not None]
    centre = [d["value"] for d in mine] + [0.0]
    room = max(max(centre) - min(centre), 1e-12)
    low, high = max(min([*ends, 0.0]), min(centre) - room), min(max([*ends, 0.0]), max(centre) + room)

    def place(value: float) -> float:
        inside = min(max(value, low), high)
        return round(4 + (inside - low) / max(high - low, 1e-12) * (WHISKER - 8), 1)

    def words(value: float) -> str:
        return f"{value * times:+.0f}%" if key == "length" else f"{value:+.3f}" if key != "kl" else f"{value:+.2f}"

    rows = [
        Whisker(
            d["arm"],
            words(d["value"]),
            "no interval" if d["low"] is None else f"[{words(d['low'])}, {words(d['high'])}]",
            _p(d["p_holm"]),
            d["different"],
            None if d["low"] is None else place(d["low"]),
            None if d["high"] is None else place(d["high"]),
            place(d["value"]),
            place(0.0),
        )
        for d in mine
    ]
    kind = told["kinds"][key]
    unit = "relative to the baseline's" if key == "length" else kind["unit"]
    return {"title": kind["title"], "unit": unit, "baseline": mine[0]["baseline"], "rows": rows}


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _spots(told: Told, tones: Mapping[str, str], x: str, y: str) -> list[Spot]:
    found = []
    for a in told["arms"]:
        fx, fy = a["figures"].get(x), a["figures"].get(y)
        if fx and fy:
            several = sum(b["method"] == a["method"] for b in told["arms"]) > 1
            ends = (fx["low"], fx["high"], fy["low"], fy["high"])
            joined, strong = a["method"] if several else "", a["label"] in told["frontier"] and x == "kl"
            found.append(Spot(a["label"], tones[a["method"]], fx["value"], fy["value"], *ends, joined, strong))
    return found


def _frontier(told: Told, tones: Mapping[str, str]) -> Scatter | None:
    worth = told["worth"]
    spots = _spots(told, tones, "kl", worth)
    begun = told["start"].get(worth)
    if begun and spots:
        spots.append(Spot("before training", "s7", 0.0, begun["value"], None, None, begun["low"], begun["high"]))
    title = told["kinds"][worth]["title"]
    return scatter(
        f"{title[0].upper()}{title[1:]} against KL",
        f"What each method gained ({title}) and how far it went for that (KL to the reference on its own samples, nats "
        "a response); 95% intervals over seeds and prompts. Named in bold: those that no other beats in both. Settings "
        "of one method are joined.",
        "KL",
        title,
        spots,
    )


def _lengths(told: Told, tones: Mapping[str, str]) -> Scatter | None:
    worth = told["worth"]
    spots = _spots(told, tones, "length", worth)
    begun, size = told["start"].get(worth), told["start"].get("length")
    if begun and size and spots:
        spots.append(Spot("before training", "s7", size["value"], begun["value"]))
    title = told["kinds"][worth]["title"]
    return scatter(
        f"{title[0].upper()}{title[1:]} against length",
        "Whether what was gained goes with longer samples: tokens a sample, 95% intervals over seeds and prompts.",
        "tokens a sample",
        title,
        spots,
    )


def _cost(told: Told) -> list[tuple[str, str, str, str]]:
    rows = []
    for a in told["arms"]:
        seconds, peak = a["seconds"], a["peak_bytes"]
        rows.append(
            (
                a["label"],
                "-" if not seconds else duration(seconds["median"]),
                "" if not seconds else f"{duration(seconds['low'])} to {duration(seconds['high'])}",
                "-" if not peak else f"{peak['median'] / 1e6:,.0f} MB",
            )
        )
    return rows


def facts(told: Told) -> list[tuple[str, str]]:
    """What was compared on what, in short."""
    data, asked = told["data"], told["asked"]
    options = {**asked["options"]}
    return [
        ("model", str(last_part(asked["model"]))),
        ("reference", str(last_part(told["reference"]))),
        ("training data", f"{last_part(data['train'])}, {data['examples']:,} examples ({data['fingerprint'][:12]})"),
        ("held out", f"{last_part(data['held_out'])}, {data['held_out_examples']:,} examples"),
        ("seeds", ", ".join(map(str, told["seeds"]))),
        ("budget", f"{told['steps']:,} steps of {told['batch']} rows for every run"),
        ("options", ", ".join(f"{k}={last_part(v)}" for k, v in options.items()) or "each method's own defaults"),
        ("sweep", "; ".join(asked["sweep"]) or "none"),
        ("samples", f"{asked['samples']} prompts a run, at most {asked['sample_tokens']} tokens"),
        ("gold reward", str(told["gold"] or "none given")),
        ("state", str(told["state"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted(told["versions"].items()))),
    ]


def write_page(told: Told, path: str | Path) -> Path:
    """Write the page aside and rename it. Raises InputError if it cannot be written."""
    from boresight.data.write import write_page as write

    write(comparison_page(told), path)
    return Path(path)
