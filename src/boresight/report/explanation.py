"""The page about an explanation, made of what `boresight explain --json` says and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boresight.judging.explain_said import LEVEL, probability
from boresight.report.page import page
from boresight.training.redact import last_part

Told = Mapping[str, Any]
WIDTH = 150


@dataclass(frozen=True)
class Bar:
    """A value and its interval as words, and where they lie from 0 to WIDTH; p in words; whether it is told apart."""

    value: str
    interval: str
    p: str
    sure: bool
    low: float
    high: float
    at: float
    zero: float


def explanation_page(told: Told) -> str:
    """The page. Every value in it is escaped, whatever the JSON says."""
    features = list(told["features"])
    joint = _bars([(f["coefficient"], f["low"], f["high"], f["p_holm"]) for f in features], 0.0, "{:+.2f}")
    alone = _bars(
        [(f["share"]["value"], f["share"]["low"], f["share"]["high"], f["share_p_adjusted"]) for f in features],
        0.5,
        "{:.2f}",
    )
    return page(
        "explanation.html",
        title=str(last_part(told["source"])),
        told=told,
        rows=[
            {
                "id": f["id"], "does": f["more"], "meaning": f["meaning"], "joint": j, "alone": a,
                "n": f["share"]["n"], "tau": f"{f['tau']:+.2f}",
                "boot": "" if told["rounds"] == 0 else f"[{f['bootstrap_low']:+.2f}, {f['bootstrap_high']:+.2f}]",
            }
            for f, j, a in zip(features, joint, alone, strict=True)
        ],
        held=_held(told["held_out"]),
        words=_words(told["words"]),
        by=None if told["by"] is None else _groups(told["by"]),
        shown=[{**one, "chance": f"{one['probability']:.2f}", "because": _because(one)} for one in told["shown"]],
        facts=_facts(told),
        width=WIDTH,
    )  # fmt: skip


def _bars(values: Sequence[tuple[float, float, float, float]], zero: float, form: str) -> list[Bar]:
    """Bars on one scale, which shows all values, and intervals as far as they reach no farther than thrice those."""
    reach = max([abs(v - zero) for v, *_ in values] + [1e-9])
    widest = max([min(max(abs(low - zero), abs(high - zero)), 3 * reach) for _, low, high, _ in values] + [reach])

    def place(value: float) -> float:
        inside = min(max(value, zero - widest), zero + widest)
        return round(4 + (inside - zero + widest) / (2 * widest) * (WIDTH - 8), 1)

    return [
        Bar(
            form.format(v), f"[{form.format(low)}, {form.format(high)}]", probability(p), p < LEVEL,
            place(low), place(high), place(v), place(zero),
        )
        for v, low, high, p in values
    ]  # fmt: skip


def _held(held: Sequence[Told]) -> list[dict[str, Any]]:
    def words(interval: Told, signed: bool = False) -> str:
        form = "{:+.3f}" if signed else "{:.3f}"
        return f"{form.format(interval['value'])} [{form.format(interval['low'])}, {form.format(interval['high'])}]"

    return [
        {
            "model": h["model"],
            "loss": words(h["log_loss"]),
            "accuracy": words(h["accuracy"]),
            "less": "" if h["less_than_length"] is None else words(h["less_than_length"], signed=True),
            "p": "" if h.get("p_holm") is None else probability(h["p_holm"]),
        }
        for h in held
    ]


def _words(words: Told | None) -> list[dict[str, Any]]:
    if words is None:
        return []
    rows = [("preferred", w) for w in words["preferred"]] + [("other", w) for w in words["other"]]
    return [
        {
            "word": w["word"], "side": side, "n": w["share"]["n"], "p": probability(w["p_holm"]),
            "sure": w["p_holm"] < LEVEL,
            "share": f"{w['share']['value']:.2f} [{w['share']['low']:.2f}, {w['share']['high']:.2f}]",
        }
        for side, w in rows
    ]  # fmt: skip


def _groups(by: Told) -> dict[str, Any]:
    most = sorted(by["shared"], key=lambda id: -max(abs(g["coefficients"][id]) for g in by["groups"]))[:15]
    return {
        "by": by["by"],
        "names": [g["name"] for g in by["groups"]],
        "pairs": [g["pairs"] for g in by["groups"]],
        "left_out": by["left_out"],
        "rows": [
            {
                "id": id,
                "shared": f"{by['shared'][id]:+.2f}",
                "cells": [(f"{g['coefficients'][id]:+.2f}", bool(g["specific"][id])) for g in by["groups"]],
            }
            for id in most
        ],
        "sure": [
            {"name": g["name"], "shares": [s for s in g["shares"] if s["p_adjusted"] < LEVEL][:8]} for g in by["groups"]
        ],
        "differences": [
            {**d, "words": f"{d['value']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]", "p": probability(d["p_holm"])}
            for d in by["differences"]
            if d["p_holm"] < LEVEL
        ],
        "held": _held(by["held_out"]),
        "similarity": [["-" if v is None else f"{v:.2f}" for v in row] for row in by["similarity"]],
    }


def _because(one: Told) -> list[str]:
    return [f"{b['words']} ({b['adds']:+.2f})" for b in one["because"]]


def _facts(told: Told) -> list[tuple[str, str]]:
    clustered = f"clustered on {told['clusters']}"
    kind = clustered if told["intervals"] == "clustered" else "of the posterior, pairs independent"
    return [
        ("data", str(last_part(told["source"]))),
        ("pairs", f"{told['pairs']:,}, {told['ties']:,} of them ties, on {told['prompts']:,} prompts"),
        ("intervals", f"95%, {kind}"),
        ("bootstrap", f"{told['rounds']:,} rounds over {told['clusters']}" if told["rounds"] else "none"),
        ("prior", f"normal around 0, variance {1 / told['penalty']:g}, on each coefficient"),
        ("tests", f"{told['tests']['together']} together (Holm), {told['tests']['alone']} alone (turned pairs)"),
        ("never differ", ", ".join(told["constant"]) or "none"),
        ("cannot be told apart", ", ".join(f"{a['first']} and {a['second']}" for a in told["alike"]) or "none"),
    ]


def write_page(told: Told, path: str | Path) -> Path:
    """Write the page aside and rename it. Raises InputError if it cannot be written."""
    from boresight.data.write import write_page as write

    write(explanation_page(told), path)
    return Path(path)
