"""How rankings look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from boresight.cli import output

WIDE = 130
"""Columns from which every figure has room."""
TOP = 3
"""Systems that a ranking by judge or domain is told with."""
JUDGES = 12


def show(told: Mapping[str, Any], most: int, against: str | None) -> None:
    """Tables of systems, of differences, of judges, and what can be said."""
    wide = output.console().width >= WIDE
    for one in told["rankings"]:
        if "methods" in one:
            _systems(one, most, wide)
    groups = [one for one in told["rankings"] if "methods" not in one]
    if groups:
        rows = [
            [
                g["name"],
                f"{g['counts']['used']:,}",
                len(g["systems"]),
                ", ".join(r["system"] for r in g["systems"][:TOP]),
            ]
            for g in groups
        ]
        output.table(f"By {told['by']}", [told["by"], "votes", "systems", "first, second, third"], rows)
    for one in told["rankings"]:
        if "apart" in one and (against is not None or one is told["rankings"][0]):
            _apart(one, most if against is None else len(one["apart"]), against)
            break
    for one in told["rankings"]:
        if one.get("effects"):
            _effects(one)
    for one in [*told["rankings"], *told["judged"]]:
        if one.get("judges"):
            _judges(one, wide)
        if one in told["judged"]:
            output.say(f"{one['counted']}.\n", "dim")
        if one.get("agreement"):
            _agreement(one)
    if told["between"]:
        _between(told["between"], wide)
    if told.get("left_out"):
        left = told["left_out"]
        names = ", ".join(f"{g['name']} ({g['votes']})" for g in left[:6])
        rest = f" and {len(left) - 6} more" if len(left) > 6 else ""
        output.say(f"Not ranked by themselves, with too few votes or beyond the first 12: {names}{rest}.", "dim")
    for s in told["statements"]:
        output.say(f"- {s['words']}", "yellow" if s["severity"] == "warning" else "")
    for one in [*told["rankings"], *told["judged"]]:
        for problem in one["problems"]:
            output.say(f"  not read: {problem}", "dim")


def _systems(one: Mapping[str, Any], most: int, wide: bool) -> None:
    counts, clusters = one["counts"], one["clusters"]
    tied = counts["tied"] / max(counts["used"], 1)
    title = (
        f"{one['name']}: {len(one['systems'])} systems, {counts['used']:,} votes ({tied:.0%} ties) on "
        f"{clusters['count']:,} {clusters['by']}{'s' if clusters['count'] != 1 else ''}"
    )
    ranks = {m["name"]: m["ranks"] for m in one.get("methods") or [] if m["ranks"] and m["name"] != "bradley-terry"}
    controlled = one.get("controlled")
    columns = ["", "system", "rank", "rating", "95%", "won %", "votes"]
    columns += ["style equal"] if controlled else []
    columns += [SHORT[m] for m in ranks] if wide else []
    rows = []
    for r in one["systems"][:most]:
        row = [
            r["rank"],
            r["system"] + (f" [part {r['part'] + 1}]" if one["degenerate"].get("parts") else ""),
            f"{r['rank_low']}-{r['rank_high']}",
            f"{r['rating']:.0f}",
            f"{ends(r['rating_low'])} to {ends(r['rating_high'])}",
            f"{100 * r['win_rate']['value']:.0f}",
            f"{r['won'] + r['tied'] + r['lost']:,.0f}",
        ]
        if controlled:
            own = controlled[r["system"]]
            row.append(f"{own['rating']:.0f} ({own['rank']})")
        if wide:
            row += [ranks[m][r["system"]] for m in ranks]
        rows.append(row)
    output.table(title, columns, rows, keep=["rank", "95%", "style equal"])
    left = len(one["systems"]) - most
    if left > 0:
        output.say(f"and {left} more: --show {len(one['systems'])}", "dim")
    if one["counted"]:
        output.say(f"{one['counted']}.\n", "dim")


SHORT = {"elo": "Elo", "newman": "Newman", "pagerank": "PageRank", "average-win-rate": "win rate", "eigen": "eigen"}


def ends(value: float) -> str:
    """An end of an interval, which votes may leave open."""
    return f"{value:.0f}" if isfinite(value) else "open"


def _apart(one: Mapping[str, Any], most: int, against: str | None) -> None:
    rows = []
    for d in one["apart"][:most]:
        if not d["comparable"]:
            more = ["not connected", None]
        elif d["told"]:
            more = ["told apart", None]
        else:
            more = [votes(d["direct"]), times(d["alike"])]
        interval = f"[{d['low']:+.2f}, {d['high']:+.2f}]" if isfinite(d["low"]) else "unknown"
        rows.append([d["a"], d["b"], f"{d['value']:+.2f}", interval, f"{d['chance']:.0%}", *more])
    title = f"{one['name']}: difference in logits" + (f" from {against}" if against else ", each from the next")
    columns = ["system", "from", "logits", "95%", "wins", "votes still needed", "or all votes"]
    if against:
        columns, rows = [c for c in columns if c != "from"], [[r[0], *r[2:]] for r in rows]
    output.table(title, columns, rows, keep=["logits", "95%", "wins"])
    output.say(
        "Votes still needed: between the two alone, each on a prompt of its own, to tell this difference apart with "
        "80% power; or so many times all votes, on as many more prompts.", "dim",
    )  # fmt: skip


def votes(count: float) -> str:
    """How many votes."""
    return f"{count:,.0f}" if count < 1e5 else "over 100,000" if isfinite(count) else "no number"


def times(factor: float) -> str | None:
    """How many times."""
    return f"x {factor:,.1f}" if factor < 1000 else "over x 1,000" if isfinite(factor) else None


def _effects(one: Mapping[str, Any]) -> None:
    rows = [
        [e["name"], f"{e['value']:+.2f}", f"[{e['low']:+.2f}, {e['high']:+.2f}]", f"{e['share']['value']:.1%}",
         "< 0.001" if e["p"] < 0.001 else f"{e['p']:.3f}"]
        for e in one["effects"]
    ]  # fmt: skip
    columns = ["of two equals, favours the", "logits", "95%", "wins", "p"]
    output.table(f"{one['name']}: what moves votes besides the system", columns, rows, keep=["95%"])


def _judges(one: Mapping[str, Any], wide: bool) -> None:
    listed = one["judges"]
    odd = [j for j in listed if j["odd"]]
    shown = listed[:JUDGES] + [j for j in odd if j not in listed[:JUDGES]][:JUDGES]
    orders = any(j["orders"] for j in shown)
    slopes = any(j["follows"] for j in shown)
    rows = []
    for j in shown:
        first, agrees, both = j["chose_first"], j["agrees"], j["orders"]
        row = [j["name"], f"{j['votes']:,}", f"{j['ties']['value']:.0%}"]
        row.append(f"{first['value']:.0%} [{first['low']:.0%}, {first['high']:.0%}]" if first else None)
        row.append(f"{agrees['value']:.0%}" if agrees else None)
        if orders:
            row += (
                [f"{both['same']} / {both['items']}", f"{both['first']} / {both['second']}"] if both else [None, None]
            )
        if slopes:
            row.append(f"{j['follows']['value']:+.2f}" if j["follows"] else None)
        row.append("; ".join(j["odd"]))
        rows.append(row)
    columns = ["judge", "votes", "ties", "chose the first", "agrees"]
    columns += ["same in both orders", "always first / second"] if orders else []
    columns += ["follows"] if slopes else []
    beyond = f", {len(shown)} of {one['judges_in_all']} shown" if len(shown) < one["judges_in_all"] else ""
    kept = [k for k in range(len(columns) + 1) if any(row[k] for row in rows)]
    names = [*columns, "stands out"]
    output.table(
        f"{one['name']}: judges{beyond}", [names[k] for k in kept], [[row[k] for k in kept] for row in rows],
        keep=["chose the first"] if wide else [],
    )  # fmt: skip


def _agreement(one: Mapping[str, Any]) -> None:
    found = one["agreement"]
    a, alpha = found["agree"], found["alpha"]
    fleiss = f", Fleiss' kappa {found['fleiss']:.3f}" if found["fleiss"] is not None else ""
    output.say(
        f"{one['name']}: on {found['items']:,} items that two or more judged they agree in {a['value']:.1%} of pairs "
        f"of votes; Krippendorff's alpha {number(alpha)}{fleiss}."
    )
    for k in found["kappas"] if len(found["kappas"]) <= 10 else []:
        output.say(
            f"  {k['a']} and {k['b']}: {k['items']:,} items, {k['agree']['value']:.1%} alike, kappa {k['kappa']:.3f}, "
            f"weighted {k['weighted']:.3f}"
        )


def number(one: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if one["value"] is None or not isfinite(one["value"]):
        return "unknown"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _between(pairs: list[dict[str, Any]], wide: bool) -> None:
    columns = ["", "and", "systems", "Spearman", "Kendall", "noise allows", "items", "alike", "kappa"]
    rows = []
    for p in pairs:
        found = p["agreement"]
        rows.append([
            p["a"], p["b"], p["systems"],
            short(p["spearman"]) if "spearman" in p else None, short(p["kendall"]) if "kendall" in p else None,
            None if p.get("ceiling") is None else f"{p['ceiling']:.2f}",
            found and f"{found['items']:,}", found and short(found["agree"]), found and short(found["kappa"]),
        ])  # fmt: skip
    kept = range(len(columns)) if wide else [0, 1, 3, 5, 8]
    shown = [[row[k] for k in kept] for row in rows]
    output.table(
        "How the rankings go together", [columns[k] for k in kept], shown, keep=["Spearman", "Kendall", "kappa"]
    )
    output.say(
        "Noise allows: about what two rankings of one truth would have that are as noisy as these. Alike, kappa: "
        "verdicts of most votes on items of both.\n", "dim",
    )  # fmt: skip


def short(one: Mapping[str, Any]) -> str:
    """Two digits, and the interval."""
    if one["value"] is None or not isfinite(one["value"]):
        return "unknown"
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
