"""The page about a ranking, made of what `boresight rank` told and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from boresight.report.page import page

Told = Mapping[str, Any]
WHISKER = 150
WIDTH = 980
"""Of a heat map, at most; the names come on top."""
MOST = 60
"""Systems in a heat map, the highest."""
JUDGES = 40
ENDS = ("low", "high", "value")
METHODS = {"elo": "Elo", "newman": "Newman", "pagerank": "PageRank", "average-win-rate": "win rate", "eigen": "eigen"}


@dataclass(frozen=True)
class Bar:
    """An interval from 0 to WHISKER: its ends, its value, and a mark across."""

    low: float
    high: float
    at: float
    mark: float | None = None
    strong: bool = True


@dataclass(frozen=True)
class Square:
    """A cell of a heat map; tip: what it says under the pointer."""

    x: float
    y: float
    tone: str
    depth: float
    tip: str


@dataclass(frozen=True)
class Heat:
    """Who won against whom: names down the side, their numbers across the top."""

    names: list[tuple[float, str]]
    numbers: list[tuple[float, int]]
    squares: list[Square]
    left: int
    width: int
    height: int
    cell: int
    beyond: int
    said: str


def arena_page(told: Told) -> str:
    """The page. Every value in it is escaped, whatever the votes say."""
    ranked, judged = told["rankings"], [*told["rankings"], *told["judged"]]
    names = [one["name"] for one in judged]
    return page(
        "arena.html",
        title=" · ".join(names[:4]) + (" …" if len(names) > 4 else ""),
        told=told,
        warnings=[s["words"] for s in told["statements"] if s["severity"] == "warning"],
        notes=[s["words"] for s in told["statements"] if s["severity"] != "warning"],
        rankings=[_ranking(one) for one in ranked],
        heats=[(one["name"], heat(one["matrix"])) for one in ranked if one.get("matrix")],
        effects=[(one["name"], _effects(one["effects"])) for one in ranked if one.get("effects")],
        apart=[(one["name"], _apart(one["apart"])) for one in ranked if one.get("apart")],
        methods=[(one["name"], *_methods(one)) for one in ranked if one.get("methods")],
        judged=[_judged(one) for one in judged if one.get("judges") or one.get("agreement")],
        between=[_between(p) for p in told["between"]],
        whisker=WHISKER,
    )


def place(value: float, low: float, high: float) -> float:
    """Where a value lies on a whisker; what is beyond lies at its end."""
    inside = min(max(value, low), high) if value == value else low
    return round(4 + (inside - low) / max(high - low, 1e-12) * (WHISKER - 8), 1)


def _bar(one: Told, keys: tuple[str, str, str], ends: tuple[float, float], mark: float, strong: bool = True) -> Bar:
    """The low end, the high end and the value under these keys, on a scale from one end to the other."""
    low, high, at = (place(one[k], *ends) for k in keys)
    return Bar(low, high, at, place(mark, *ends), strong)


def _ends(values: Sequence[float], centre: Sequence[float]) -> tuple[float, float]:
    """The range of a scale: no more than three times as wide as that of the values themselves."""
    low, high = min(centre), max(centre)
    room = max(high - low, 1e-9)
    known = [v for v in values if isfinite(v)]
    return max(min([*known, low]), low - room), min(max([*known, high]), high + room)


def _ranking(one: Told) -> dict[str, Any]:
    rows, controlled = one["systems"], one.get("controlled")
    centre = [r["rating"] for r in rows]
    low, high = _ends([r[k] for r in rows for k in ("rating_low", "rating_high")], centre)
    parts = one["degenerate"].get("parts")
    bars = ("rating_low", "rating_high", "rating")
    made = []
    for r in rows:
        own = controlled[r["system"]] if controlled else None
        made.append({
            "system": r["system"],
            "part": f"part {r['part'] + 1}" if parts else "",
            "rank": r["rank"],
            "ranks": f"{r['rank_low']} to {r['rank_high']}",
            "rating": f"{r['rating']:.0f}",
            "interval": f"{_end(r['rating_low'])} to {_end(r['rating_high'])}",
            "bar": _bar(r, bars, (low, high), 1000),
            "share": f"{r['win_rate']['value']:.0%}",
            "votes": f"{r['won']:,.0f} / {r['tied']:,.0f} / {r['lost']:,.0f}",
            "style": "" if own is None else f"{own['rating']:.0f} ({own['rank']})",
        })  # fmt: skip
    counts, clusters = one["counts"], one["clusters"]
    return {
        "name": one["name"],
        "rows": made,
        "controlled": bool(controlled),
        "counted": one["counted"] or f"{counts['used']:,} votes, {counts['tied']:,} of them ties",
        "clusters": f"{clusters['count']:,} {clusters['by']}{'' if clusters['count'] == 1 else 's'}",
        "reliability": _number(one["reliability"]),
        "problems": one["problems"],
    }


def _end(value: float) -> str:
    return f"{value:.0f}" if isfinite(value) else "open"


def _number(value: float | None, places: int = 2) -> str:
    return f"{value:.{places}f}" if value is not None and isfinite(value) else "unknown"


def _within(one: Told | None, places: int = 2) -> str:
    """A value with its interval."""
    if one is None:
        return "-"
    if one["value"] is None or not isfinite(one["value"]):
        return "unknown"
    return f"{one['value']:.{places}f} [{one['low']:.{places}f}, {one['high']:.{places}f}]"


def heat(matrix: Told) -> Heat:
    """The cells that have votes; a colour for more wins than losses of the row's system, another for fewer."""
    names, wins, ties = (matrix[k][:MOST] for k in ("systems", "wins", "ties"))
    longest = max(len(n) for n in names)
    left = min(210, 14 + 7 * min(longest, 28))
    cell = max(14, min(28, WIDTH // len(names)))
    squares = []
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            won, lost, tied = wins[i][j], wins[j][i], ties[i][j]
            if i == j or not won + lost + tied:
                continue
            share = (won + tied / 2) / (won + lost + tied)
            tip = f"{row} against {column}: {won:g} won, {tied:g} tied, {lost:g} lost"
            depth = round(0.12 + 0.88 * abs(2 * share - 1), 2)
            tone = "s7" if share == 0.5 else "s0" if share > 0.5 else "s1"
            squares.append(Square(left + j * cell, 20 + i * cell, tone, depth, tip))
    size = len(names)
    return Heat(
        [(20 + i * cell + cell / 2 + 4, n if len(n) <= 28 else n[:27] + "…") for i, n in enumerate(names)],
        [(left + j * cell + cell / 2, j + 1) for j in range(size)],
        squares,
        left,
        left + size * cell + 4,
        24 + size * cell,
        cell - 1,
        len(matrix["systems"]) - size,
        f"Shares won among {size} systems",
    )


def _effects(listed: Sequence[Told]) -> list[dict[str, Any]]:
    low, high = _ends([e[k] for e in listed for k in ("low", "high")], [*(e["value"] for e in listed), 0.0])
    return [
        {
            "name": e["name"],
            "value": f"{e['value']:+.2f}",
            "interval": f"[{e['low']:+.2f}, {e['high']:+.2f}]",
            "share": f"{e['share']['value']:.1%} [{e['share']['low']:.1%}, {e['share']['high']:.1%}]",
            "p": "< 0.001" if e["p"] < 0.001 else f"{e['p']:.3f}",
            "bar": _bar(e, ENDS, (low, high), 0, e["p"] < 0.05),
        }
        for e in listed
    ]  # fmt: skip


def _apart(listed: Sequence[Told]) -> list[dict[str, Any]]:
    ends = [d[k] for d in listed for k in ("low", "high") if isfinite(d[k])]
    low, high = _ends([*ends, 0.0], [*(d["value"] for d in listed), 0.0, 1.0])
    made = []
    for d in listed:
        known = isfinite(d["low"])
        if not d["comparable"]:
            direct, alike = "not connected", ""
        elif d["told"]:
            direct, alike = "told apart", ""
        else:
            direct = (
                f"{d['direct']:,.0f}" if d["direct"] < 1e5 else "over 100,000" if isfinite(d["direct"]) else "no number"
            )
            alike = f"{d['alike']:,.1f}" if d["alike"] < 1e3 else "over 1,000" if isfinite(d["alike"]) else ""
        made.append({
            "a": d["a"], "b": d["b"], "value": f"{d['value']:+.2f}", "chance": f"{d['chance']:.0%}",
            "interval": f"[{d['low']:+.2f}, {d['high']:+.2f}]" if known else "unknown",
            "direct": direct, "alike": alike, "told": d["told"],
            "bar": _bar(d, ENDS, (low, high), 0, d["told"]),
        })  # fmt: skip
    return made


def _methods(one: Told) -> tuple[list[dict[str, Any]], list[tuple[str, int, list[Any]]]]:
    """The methods, and each system's rank by each."""
    listed = [m for m in one["methods"] if m["name"] != "bradley-terry"]
    about = [
        {"name": METHODS.get(m["name"], m["name"]), "what": m["what"], "spearman": _number(m["spearman"])}
        for m in listed
    ]
    rows = [
        (r["system"], r["rank"], [m["ranks"][r["system"]] if m["ranks"] else "-" for m in listed])
        for r in one["systems"]
    ]
    return about, rows


def _judged(one: Told) -> dict[str, Any]:
    judges = one.get("judges") or []
    shown = judges[:JUDGES] + [j for j in judges[JUDGES:] if j["odd"]]
    rows = []
    for j in shown:
        both = j["orders"]
        rows.append({
            "name": j["name"],
            "votes": f"{j['votes']:,}",
            "ties": f"{j['ties']['value']:.0%}",
            "first": "-" if j["chose_first"] is None else _percent(j["chose_first"]),
            "agrees": "-" if j["agrees"] is None else _percent(j["agrees"]),
            "follows": None if j["follows"] is None else f"{j['follows']['value']:+.2f}",
            "same": None if both is None else f"{both['same']} of {both['items']}",
            "always": None if both is None else f"{both['first']} / {both['second']}",
            "odd": "; ".join(j["odd"]),
        })  # fmt: skip
    found = one.get("agreement")
    agreement = None
    if found:
        agreement = {
            "items": found["items"],
            "agree": _percent(found["agree"]),
            "alpha": _within(found["alpha"], 3),
            "fleiss": None if found["fleiss"] is None else _number(found["fleiss"], 3),
            "kappas": [
                (k["a"], k["b"], k["items"], _percent(k["agree"]), _number(k["kappa"], 3), _number(k["weighted"], 3))
                for k in found["kappas"]
            ],
        }
    return {
        "name": one["name"],
        "rows": rows,
        "in_all": one.get("judges_in_all", 0),
        "follows": any(r["follows"] for r in rows),
        "orders": any(r["same"] for r in rows),
        "agreement": agreement,
        "counted": one["counted"] if one.get("systems") is None else "",
    }


def _percent(one: Told) -> str:
    return f"{one['value']:.0%} [{one['low']:.0%}, {one['high']:.0%}]"


def _between(pair: Told) -> dict[str, Any]:
    found = pair["agreement"] or {}
    return {
        "a": pair["a"],
        "b": pair["b"],
        "systems": pair["systems"],
        "spearman": _within(pair.get("spearman")),
        "kendall": _within(pair.get("kendall")),
        "ceiling": _number(pair.get("ceiling")) if pair.get("ceiling") is not None else "-",
        "items": f"{found['items']:,}" if found else "-",
        "agree": _within(found.get("agree")),
        "decided": _within(found.get("decided")),
        "kappa": _within(found.get("kappa")),
        "weighted": _within(found.get("weighted")),
    }
