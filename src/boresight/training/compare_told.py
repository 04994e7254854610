"""What compare.json says: figures of each arm, differences, sentences, the frontier and what it all cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boresight.training.compare_figures import (
    KINDS,
    One,
    differences,
    frontier,
    half,
    picked,
    sentences,
    spread,
    summary,
)
from boresight.training.compare_plan import Arm

FORMAT = 1


def tell(
    about: Mapping[str, Any],
    arms: Sequence[Arm],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    ones: Mapping[str, Sequence[One]],
    start: Sequence[One],
    known: dict[tuple[str, int], dict[str, Any]],
    *,
    last: bool,
) -> dict[str, Any]:
    """Everything that is known.

    known: figures of arms by their number of runs, kept from call to call. last: all runs are in, so that settings may
    be picked and differences told.
    """
    for arm in arms:
        if (arm.label, len(ones[arm.label])) not in known:
            figures = {k.key: found for k in KINDS if (found := summary(ones[arm.label], k.key)) is not None}
            known[arm.label, len(ones[arm.label])] = figures
    shown = [_arm(arm, runs[arm.label], known[arm.label, len(ones[arm.label])]) for arm in arms]
    worth = "gold" if about["gold"] else "accuracy"
    compared = _compared(arms, ones, str(about["baseline"]), worth) if last else {"differences": [], "picked": {}}
    points = {
        a["label"]: (a["figures"]["kl"]["value"], a["figures"][worth]["value"])
        for a in shown
        if a["figures"].get("kl") and a["figures"].get(worth)
    }
    return {
        "format": FORMAT,
        **about,
        "kinds": {k.key: {"title": k.title, "unit": k.unit, "better": k.better, "meaning": k.meaning} for k in KINDS},
        "worth": worth,
        "arms": shown,
        "start": {k.key: found for k in KINDS if k.of == "samples" and (found := summary(start, k.key)) is not None},
        **compared,
        "statements": sentences(compared["differences"]),
        "frontier": frontier(points),
    }


def _arm(arm: Arm, runs: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, Any]:
    def of(key: str) -> list[float]:
        return [float(r[key]) for r in runs if r.get(key) is not None]

    return {
        "label": arm.label,
        "method": arm.method,
        "varied": arm.varied,
        "options": arm.options,
        "runs": [dict(r) for r in runs],
        "figures": figures,
        "seconds": spread(of("seconds")),
        "peak_bytes": spread(of("peak_bytes")),
    }


def _compared(arms: Sequence[Arm], ones: Mapping[str, Sequence[One]], baseline: str, worth: str) -> dict[str, Any]:
    """Differences between methods. Where one has several settings, each method's is picked on one half of the held-out
    prompts, and methods are compared on the other half."""
    settings: dict[str, dict[str, Sequence[One]]] = {}
    for arm in arms:
        if ones[arm.label]:
            settings.setdefault(arm.method, {})[arm.label] = ones[arm.label]
    if baseline not in settings:
        return {"differences": [], "picked": {}}
    several = any(len(of) > 1 for of in settings.values())
    best = {method: picked(of, worth) if len(of) > 1 else next(iter(of)) for method, of in settings.items()}
    chosen = {label: settings[method][label] for method, label in best.items()}
    keep = (lambda prompt: not half(prompt)) if several else None
    return {"differences": differences(chosen, best[baseline], keep), "picked": best if several else {}}
