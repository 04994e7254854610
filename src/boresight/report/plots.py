"""Which charts a report shows, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.objectives import objectives
from boresight.report.charts import Chart, Drawn, chart
from boresight.report.series import Curve, Group, curve
from boresight.training.alarm_rules import closed_form

TONES = 8
"""Colours for methods; more methods take them again."""
HELD_OUT = ", held out"


@dataclass(frozen=True)
class Single:
    """One metric, a line for each method. zero: mark the value 0 across."""

    key: str
    title: str
    note: str
    zero: bool = False


@dataclass(frozen=True)
class Split:
    """Several metrics of one method in one chart: (key, label, colour)."""

    keys: tuple[tuple[str, str, str], ...]
    title: str
    note: str
    between: tuple[str, str] | None = None
    zero: bool = False


MARGIN = Split(
    (("chosen_gain", "chosen", "chosen"), ("rejected_gain", "rejected", "rejected")),
    "The margin, split",
    "What the policy gained on chosen and on rejected responses, over the reference, in nats a response. The shaded "
    "gap is the margin: where the chosen falls below 0, it grows only because the rejected falls faster.",
    between=("chosen_gain", "rejected_gain"),
    zero=True,
)
LOGPS = Split(
    (("chosen_logp_token", "chosen", "chosen"), ("rejected_logp_token", "rejected", "rejected")),
    "The margin, split (no reference)",
    "Log-prob of chosen and of rejected responses, in nats a token. This method has no reference, so there is no gain "
    "to show.",
    between=("chosen_logp_token", "rejected_logp_token"),
)
LENGTHS = Split(
    (
        ("chosen_length", "chosen", "chosen"),
        ("rejected_length", "rejected", "rejected"),
        ("length", "responses", "s0"),
        ("sample_length", "the policy's own samples", "s3"),
    ),
    "Length",
    "Tokens a response: of the data, which no training changes, and of what the policy says.",
)

SINGLES = (
    Single("loss", "Loss", "The objective, over global counts."),
    Single("accuracy", "Accuracy", "Share of pairs with a positive margin, ties half."),
    Single("margin", "Margin", "Chosen over rejected, in nats a pair as the method defines it.", zero=True),
    Single("kl", "KL", "Divergence from the reference, in nats a response.", zero=True),
    Single("gain", "Gain", "Policy minus reference on the data, in nats a response.", zero=True),
    Single("logp_token", "Log-prob", "Of the responses, in nats a token."),
    Single("sample_length", "Length of samples", "Tokens a sample of the policy."),
    Single("sample_surprisal", "Surprise of samples", "Nats a token; a fall to nothing is a collapse."),
    Single("sample_repetition", "Repetition in samples", "Share of 4-grams that repeat an earlier one."),
    Single("sample_ends", "Samples that end", "Share that ended the turn by themselves."),
    Single("grad_norm", "Gradient norm", "Before clipping."),
    Single("lr", "Learning rate", "As it was scheduled."),
)


def charts(groups: Sequence[Group], most: int) -> list[Chart]:
    """Every chart for which some run has the metrics; each curve has at most about `most` points."""
    found: list[Chart | None] = [_single(SINGLES[0], groups, most)]
    for group in groups:
        of = f": {group.label}" if len(groups) > 1 else ""
        split = _split(MARGIN, group, most, of)
        found.append(split or _split(LOGPS, group, most, of))
    alone = len(groups) == 1
    found += [_single(s, groups, most) for s in SINGLES[1:] if not (alone and s.key in ("sample_length", "margin"))]
    if alone:
        found.insert(3, _split(LENGTHS, groups[0], most, ""))
    return [c for c in found if c]


def tone(place: int) -> str:
    """The colour of the method at this place."""
    return f"s{place % TONES}"


def _single(spec: Single, groups: Sequence[Group], most: int) -> Chart | None:
    drawn = []
    for k, group in enumerate(groups):
        alone = "samples" if spec.key.startswith("sample_") else "training"
        name = group.label if len(groups) > 1 else alone
        for key, label, dashed in ((spec.key, name, False), (f"eval_{spec.key}", f"{name}{HELD_OUT}", True)):
            found = curve(group, key, most)
            if found:
                label = "held out" if dashed and len(groups) == 1 else label
                drawn.append(
                    Drawn(_seeds(label, found), found, tone(k if len(groups) > 1 or not dashed else 1), dashed)
                )
    marks = [(0.0, "")] if spec.zero else []
    if spec.key == "loss" and len(groups) == 1:
        marks += _at_zero(groups[0])
    scales = " The losses of different methods are not on one scale." if spec.key == "loss" and len(groups) > 1 else ""
    return chart(spec.title, spec.note + scales + _bands(drawn), drawn, marks=marks)


def _split(spec: Split, group: Group, most: int, of: str) -> Chart | None:
    found: dict[str, Curve] = {}
    drawn = []
    for before, more, dashed in (("", "", False), ("eval_", HELD_OUT, True)):
        for key, label, colour in spec.keys:
            one = curve(group, before + key, most)
            if one:
                found[before + key] = one
                drawn.append(Drawn(_seeds(label + more, one), one, colour, dashed))
    between = None
    if spec.between:
        if not set(spec.between) <= found.keys():
            return None
        between = (found[spec.between[0]], found[spec.between[1]])
    return chart(spec.title + of, spec.note + _bands(drawn), drawn, marks=[(0.0, "")] * spec.zero, between=between)


def _seeds(label: str, found: Curve) -> str:
    return f"{label} ({found.n} seeds)" if found.n > 1 else label


def _bands(drawn: Sequence[Drawn]) -> str:
    several = any(d.curve.n > 1 for d in drawn)
    return " Lines are means over seeds, bands reach from the lowest to the highest seed." if several else ""


def _at_zero(group: Group) -> list[tuple[float, str]]:
    """The loss of a policy that has not moved, where it is known."""
    objective = objectives().get(group.records[0].method)
    options: Mapping[str, Any] = group.records[0].recipe
    if objective is None:
        return []
    try:
        value = closed_form(objective, {k: options[k] for k in objective.hyperparameters if k in options})
    except (ValueError, TypeError, ArithmeticError):
        return []
    return [] if value is None else [(value, "at zero margin")]
