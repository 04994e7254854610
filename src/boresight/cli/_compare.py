"""How a comparison looks on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boresight.cli import output

if TYPE_CHECKING:
    from boresight.training.compare import Comparison

WIDE = 130
"""Columns from which every figure has room."""
TITLES = {
    "gold": "gold",
    "lc_accuracy": "at equal length",
    "length": "tokens",
    "ends": "ends",
    "chosen_gain": "chosen gain",
    "own_accuracy": "own accuracy",
}
NARROW = ("gold", "accuracy", "lc_accuracy", "kl", "length")


def show(found: Comparison) -> None:
    """The table of arms, what can be said, and where the rest is."""
    from boresight.report.comparison import present
    from boresight.report.words import duration

    told = found.told
    wide = output.console().width >= WIDE
    keys = [k for k in present(told) if k in NARROW or (wide and k != "own_accuracy")]
    titles = [TITLES.get(k, told["kinds"][k]["title"]) for k in keys]
    rows: list[list[str | None]] = []
    begun = [told["start"].get(k) for k in keys]
    if any(begun):
        rows.append(["before training", *(_figure(one, k) for one, k in zip(begun, keys, strict=True)), None])
    for a in told["arms"]:
        took = duration(a["seconds"]["median"]) if a["seconds"] else None
        rows.append([a["label"], *(_figure(a["figures"].get(k), k) for k in keys), took])
    seeds = f"{len(told['seeds'])} seed{'s' if len(told['seeds']) != 1 else ''}"
    columns = ["method", *titles, "time"]
    output.table(
        f"{len(told['arms'])} arms, {seeds}, {told['steps']} steps; ± half of the 95% interval over seeds and prompts",
        columns if wide else columns[:-1],
        rows if wide else [row[:-1] for row in rows],
        keep=[t for t in titles if " " not in t],
    )
    for s in told["statements"]:
        output.say(f"- {s['words']}")
    if told["statements"]:
        first = told["differences"][0]
        output.say(
            f"Against {first['baseline']}, after Holm's correction for {len(told['differences'])} tests. What is not "
            "told apart need not be alike: the page has all intervals.",
            "dim",
        )
    for f in found.failed:
        output.say(f"failed: {f['arm']}, seed {f['seed']}: {f['why']}", "red")
    output.say(f"page: {found.page}", "bold", fold=False)


def _figure(one: dict[str, Any] | None, key: str) -> str | None:
    """The value with half of its interval."""
    if not one:
        return None
    places = {"length": 1}.get(key, 2)
    if one["low"] is None:
        return f"{one['value']:.{places}f}"
    return f"{one['value']:.{places}f}±{max(one['high'] - one['value'], one['value'] - one['low']):.{places}f}"
