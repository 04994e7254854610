"""From what was measured of each run to figures of methods, paired differences, and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.stats import Interval, at_equal_length, crossed_mean, holm

ALPHA = 0.05
Keep = Callable[[str], bool]


@dataclass(frozen=True)
class Kind:
    """A figure: where its values are, its unit, whether more is better (0 where it is neither), what it is."""

    key: str
    title: str
    of: str
    unit: str
    better: int
    meaning: str


KINDS = (
    Kind("gold", "gold reward", "samples", "", 1, "mean gold reward of the policy's own samples"),
    Kind(
        "accuracy",
        "accuracy",
        "pairs",
        "share",
        1,
        "held-out pairs in which the implicit reward (log policy - log reference) prefers the chosen response; "
        "ties half",
    ),
    Kind(
        "lc_accuracy",
        "accuracy at equal length",
        "pairs",
        "share",
        1,
        "the same for pairs of equal length: a logistic regression on the difference in length, at 0 (as the "
        "length-controlled win rate of Dubois et al. 2024)",
    ),
    Kind("kl", "KL", "samples", "nats", 0, "to the reference, nats a response, on the policy's own samples"),
    Kind("length", "length", "samples", "tokens", 0, "tokens of the policy's own samples"),
    Kind("ends", "samples that end", "samples", "share", 0, "share of samples that ended the turn by themselves"),
    Kind(
        "chosen_gain",
        "gain of the chosen",
        "pairs",
        "nats",
        0,
        "log-prob of the held-out chosen response against the reference; below 0 it has become less likely",
    ),
    Kind(
        "own_accuracy",
        "accuracy of mean log-prob",
        "pairs",
        "share",
        0,
        "held-out pairs in which the policy gives the chosen response more log-prob a token, without a reference",
    ),
)
KIND = {k.key: k for k in KINDS}
STATED = ("gold", "accuracy", "lc_accuracy", "length", "kl", "chosen_gain")
"""The figures of which something is said in words, and which are tested."""


@dataclass(frozen=True)
class One:
    """One measured run: its seed and what `measured.json` holds."""

    seed: int
    measured: Mapping[str, Any]
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def values(self, key: str, keep: Keep | None = None) -> tuple[NDArray[np.float64], list[str]] | None:
        """A figure's values and the prompts they belong to; None where it was not measured."""
        if keep is None:
            if key not in self._found:
                self._found[key] = self._values(key, lambda _: True)
            found: tuple[NDArray[np.float64], list[str]] | None = self._found[key]
            return found
        return self._values(key, keep)

    def _values(self, key: str, keep: Keep) -> tuple[NDArray[np.float64], list[str]] | None:
        of = self.measured.get(KIND[key].of)
        if not of:
            return None
        which = np.array([keep(p) for p in of["prompt"]], dtype=bool)
        prompts = [p for p, kept in zip(of["prompt"], which, strict=True) if kept]
        if key == "gold":
            if "gold" not in self.measured:
                return None
            return np.asarray(self.measured["gold"]["reward"], float)[which], prompts
        if key in ("accuracy", "lc_accuracy", "own_accuracy"):
            margin = np.asarray(of["own_margin" if key == "own_accuracy" else "margin"], float)[which]
            right = (np.sign(margin) + 1) / 2
            if key == "lc_accuracy":
                right = at_equal_length(right, np.asarray(of["growth"], float)[which])[0]
            return right, prompts
        return (np.asarray(of[key], float)[which], prompts) if key in of else None


def summary(runs: Sequence[One], key: str) -> dict[str, Any] | None:
    """Mean over seeds with a 95% interval over seeds and prompts, each seed's mean, and their standard deviation."""
    found = [(run.seed, run.values(key)) for run in runs]
    there = [(seed, *values) for seed, values in found if values is not None and len(values[0])]
    if not there:
        return None
    means = [float(values.mean()) for _, values, _ in there]
    values, seeds, prompts = _stacked(there)
    return _told(crossed_mean(values, seeds, prompts)[0]) | {
        "seeds": {str(seed): mean for (seed, _, _), mean in zip(there, means, strict=True)},
        "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
    }


def difference(
    runs: Sequence[One], base: Sequence[One], key: str, keep: Keep | None = None
) -> tuple[dict[str, Any], float] | None:
    """Treatment less baseline on the same seeds and prompts, and its p-value; for lengths their ratio less one.

    None where no seed was measured of both.
    """
    other = {run.seed: run for run in base}
    there = []
    for run in runs:
        mine, theirs = run.values(key, keep), other[run.seed].values(key, keep) if run.seed in other else None
        if mine is None or theirs is None or mine[1] != theirs[1] or not len(mine[0]):
            continue
        there.append((run.seed, mine[0], theirs[0], mine[1]))
    if not there:
        return None
    a, seeds, prompts = _stacked([(s, a, p) for s, a, _, p in there])
    b, _, _ = _stacked([(s, b, p) for s, _, b, p in there])
    if key == "length":
        if b.mean() == 0:
            return None
        ratio = a.mean() / b.mean()
        values = (a - ratio * b) / b.mean() + ratio - 1  # the ratio's influence values (delta method)
    else:
        values = a - b
    interval, p = crossed_mean(values, seeds, prompts)
    return _told(interval) | {"relative": key == "length", "pairs_of_runs": len(there)}, p


def _stacked(
    there: Sequence[tuple[int, NDArray[np.float64], Sequence[str]]],
) -> tuple[NDArray[np.float64], list[int], list[str]]:
    values = np.concatenate([v for _, v, _ in there])
    return values, [s for s, v, _ in there for _ in v], [p for _, _, prompts in there for p in prompts]


def _told(interval: Interval) -> dict[str, Any]:
    known = isfinite(interval.low) and isfinite(interval.high)
    return {
        "value": interval.value,
        "low": interval.low if known else None,
        "high": interval.high if known else None,
        "n": interval.n,
    }


def half(prompt: str) -> bool:
    """Whether a prompt belongs to the half on which settings are picked; told by its name alone."""
    return int(prompt, 16) % 2 == 0


def picked(arms: Mapping[str, Sequence[One]], target: str) -> str:
    """Of a method's settings the one with the highest mean of `target` on the picking half, over its seeds."""

    def worth(label: str) -> float:
        means = [v[0].mean() for run in arms[label] if (v := run.values(target, half)) is not None and len(v[0])]
        return float(np.mean(means)) if means else -np.inf

    return max(arms, key=worth)


def differences(chosen: Mapping[str, Sequence[One]], baseline: str, keep: Keep | None) -> list[dict[str, Any]]:
    """Each other arm against the baseline in every stated figure, with Holm's p over all of them together."""
    made = []
    for label, runs in chosen.items():
        for key in STATED if label != baseline else ():
            found = difference(runs, chosen[baseline], key, keep)
            if found is not None:
                made.append({"arm": label, "baseline": baseline, "figure": key, **found[0], "p": found[1]})
    adjusted = holm([d["p"] for d in made]).tolist()
    return [d | {"p_holm": p, "different": bool(p <= ALPHA)} for d, p in zip(made, adjusted, strict=True)]


def sentences(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One sentence for each arm: in what it differs from the baseline after Holm's correction, and in what it does not.

    "Not told apart" is said of what the data cannot tell apart; the intervals say how far it may lie.
    """
    made = []
    for label in dict.fromkeys(d["arm"] for d in found):
        mine = {d["figure"]: d for d in found if d["arm"] == label}
        baseline = next(iter(mine.values()))["baseline"]
        apart = [_apart(d) for key in STATED if (d := mine.get(key)) and d["different"]]
        alike = [ALIKE.get(key, KIND[key].title) for key in STATED if key in mine and not mine[key]["different"]]
        if alike:
            apart.append(f"not told apart in {_listed(alike)}")
        made.append({"arm": label, "baseline": baseline, "words": f"{label} against {baseline}: {'; '.join(apart)}."})
    return made


ALIKE = {"kl": "KL", "length": "length", "chosen_gain": "likelihood of the chosen"}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _apart(d: Mapping[str, Any]) -> str:
    key, more = d["figure"], d["value"] > 0
    by = _by(d)
    if key == "length":
        return f"samples {by} {'longer' if more else 'shorter'}"
    if key == "kl":
        return f"{by} nats {'further from' if more else 'nearer to'} the reference"
    if key == "chosen_gain":
        return f"chosen responses {by} nats {'more' if more else 'less'} likely"
    return f"{KIND[key].title} {'higher' if more else 'lower'} by {by}"


def _by(d: Mapping[str, Any]) -> str:
    """How large a difference is, with its interval in the same direction: `0.093 [0.069, 0.116]`, `12% [8, 16]`."""
    sign, percent = (1 if d["value"] > 0 else -1), d["figure"] == "length"
    times, form = (100 * sign, "{:.0f}") if percent else (sign, "{:.2f}" if d["figure"] == "kl" else "{:.3f}")
    shown = form.format(d["value"] * times) + "%" * percent
    if d["low"] is None:
        return shown
    low, high = sorted((d["low"] * times, d["high"] * times))
    return f"{shown} [{form.format(low)}, {form.format(high)}]"


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The arms, (KL, worth) each, that no other arm beats in both: none is worth as much nearer to the reference."""
    return [
        label
        for label, (kl, worth) in points.items()
        if not any(k <= kl and w >= worth and (k < kl or w > worth) for o, (k, w) in points.items() if o != label)
    ]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, least and most of seconds or bytes over runs: the first run of a process carries its warming up."""
    return {"median": median(values), "low": min(values), "high": max(values)} if values else None
