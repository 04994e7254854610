"""Comparisons without training: what runs would have measured, drawn with known effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from boresight.training.compare_figures import One
from boresight.training.compare_plan import Arm
from boresight.training.compare_run import named
from boresight.training.compare_told import tell

PROMPTS = [named(f"prompt {i}") for i in range(120)]


def measured(
    effect: float = 0.0, *, seed: int, longer: float = 1.0, kl: float = 1.0, prompts: int = 120, noise: float = 1.0
) -> dict[str, Any]:
    """One run: margins with mean `effect`, gold .5 + .1 effect, lengths 20 * longer; prompts matter, seeds a little."""
    shared, own = np.random.default_rng(0), np.random.default_rng([seed, round(abs(effect) * 1000), round(longer * 99)])
    base = shared.normal(size=prompts)
    shift = 0.05 * own.normal()
    margin = effect + shift + base + noise * own.normal(size=prompts)
    growth = np.round(30 * shared.normal(size=prompts) + 5)
    return {
        "pairs": {
            "prompt": PROMPTS[:prompts],
            "growth": growth.tolist(),
            "margin": margin.tolist(),
            "own_margin": (margin - 0.2).tolist(),
            "chosen_gain": (0.3 * margin - kl).tolist(),
            "rejected_gain": (-0.3 * margin - kl).tolist(),
        },
        "samples": {
            "prompt": PROMPTS[:prompts],
            "length": (longer * (20 + 4 * base + noise * own.normal(size=prompts))).tolist(),
            "ends": [True] * prompts,
            "kl": (kl + 0.2 * noise * own.normal(size=prompts)).tolist(),
            "text": ["x"] * prompts,
            "asked": ["x"] * prompts,
        },
        "gold": {
            "name": "g",
            "reward": (0.5 + 0.1 * (effect + base + shift + noise * own.normal(size=prompts))).tolist(),
        },
    }


def comparison(
    effects: dict[str, tuple[float, float, float]],
    *,
    seeds: int = 5,
    varied: dict[str, list[dict[str, Any]]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What compare.json would hold. effects: method to (effect, length ratio, KL). varied: several settings of some."""
    arms = [Arm(m, dict(v), dict(v)) for m in effects for v in (varied or {}).get(m, [{}])]
    runs: dict[str, list[dict[str, Any]]] = {}
    ones: dict[str, list[One]] = {}
    for arm in arms:
        effect, longer, kl = effects[arm.method]
        scale = float(arm.varied.get("beta", 1.0))
        runs[arm.label] = [
            {"seed": s, "folder": f"runs/{arm.folder(s)}", "state": "finished", "seconds": 12.0 + s + 3 * longer,
             "peak_bytes": 40_000_000 + 1_000_000 * s, "alarms": []}
            for s in range(seeds)
        ]  # fmt: skip
        ones[arm.label] = [One(s, measured(effect * scale, seed=s, longer=longer, kl=kl * scale)) for s in range(seeds)]
    start = [One(s, {k: v for k, v in measured(0.0, seed=s, kl=0.0).items() if k != "pairs"}) for s in range(seeds)]
    about: dict[str, Any] = {
        "state": "finished",
        "asked": {"methods": ",".join(effects), "model": "/models/base", "data": "/data/train.jsonl", "eval_data": None,
                  "seeds": seeds, "sweep": [], "samples": 64, "sample_tokens": 64, "options": {"lr": 3e-4}},
        "versions": {"boresight": "0.1.0"},
        "data": {"train": "/data/train.jsonl", "fingerprint": "0123456789abcdef", "examples": 600,
                 "held_out": "/data/test.jsonl", "held_out_examples": 200, "rows": {}},
        "steps": 30,
        "batch": 64,
        "seeds": list(range(seeds)),
        "baseline": next(iter(effects)),
        "gold": "g",
        "reference": "/models/base",
    }  # fmt: skip
    return tell(about | more, arms, runs, ones, start, {}, last=True)
