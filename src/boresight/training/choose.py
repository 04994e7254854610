"""Measure a data set for the rules of `boresight.catalogue.choosing`, and apply them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from boresight.catalogue.choosing import Choice
from boresight.catalogue.choosing import choose as apply
from boresight.catalogue.lacking import Held, held
from boresight.data.check import CheckResult
from boresight.data.checks._base import response_text
from boresight.data.example import Example
from boresight.data.rows import ExampleTable
from boresight.data.views import pairs
from boresight.stats import Interval, mean, proportion
from boresight.training.check import check

SAMPLE = 2000
"""Pairs whose words are compared."""
COMMON = 0.8
"""Share of words that two responses have in common, from which they are nearly the same."""
LEAST = 30
"""Items or comparisons below which no share of them is told."""


def choose(
    data: str | PathLike[str] | ExampleTable,
    model: str | None = None,
    *,
    format: str | None = None,
    limit: int | None = None,
    off_policy: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Methods for a data set, ranked by the rules, with what was measured.

    data, format, limit, seed, progress: as for `check`. model: also measure, on `off_policy` examples, how far the
    data lies from what this model writes. Raises InputError for data or a model that cannot be used.
    """
    options: dict[str, Any] = {"format": format, "limit": limit, "seed": seed, "progress": progress}
    result = check(data, model, off_policy=off_policy if model is not None else 0, **options)
    has = held(result.examples)
    return apply(measured(result, has), has)


def measured(result: CheckResult, has: Held) -> dict[str, Interval]:
    """The figures that rules ask for, of a check and of what the data hold; those that cannot be told are left out."""
    counts, facts = result.feedback, result.facts
    found: dict[str, Interval] = {}

    def share(name: str, count: int, of: int) -> None:
        if of:
            # Counted, not estimated: all of the data was looked at.
            found[name] = Interval(count / of, count / of, count / of, of)

    for name in ("pairs", "labels", "lists", "scored", "stepped"):
        share(name, getattr(has, name), has.examples)
    share("desirable", counts["desirable"], counts["labels"])
    share("attributes", len(has.names), 1)
    share("annotators", int(facts.get("annotators", 0)), 1)
    if counts["pairs"] + counts["ties"] >= LEAST:
        found["ties"] = proportion(counts["ties"], counts["pairs"] + counts["ties"])
    for name, fact in (
        ("flips", "flip_rate_from_votes"),
        ("longer_wins", "longer_wins"),
        ("alpha", "krippendorff_alpha"),
    ):
        if fact in facts:
            found[name] = _interval(facts[fact])
    for finding in result.findings:
        if finding.id == "suspect-labels" and finding.severity == "warning" and finding.share is not None:
            found["suspect"] = finding.share
    if "off_policy" in facts:
        found["off_policy"] = _interval(facts["off_policy"]["gap"])
    alike, once = _pairs(result.examples)
    if len(alike) >= LEAST:
        found["alike"] = mean(alike)
    if sum(once.values()) >= LEAST:
        found["judged_once"] = proportion(sum(n == 1 for n in once.values()), len(once))
    return found


def _pairs(examples: Iterable[Example]) -> tuple[list[float], Counter[int]]:
    """Of the first pairs whether their responses are nearly the same; of each compared item how many verdicts."""
    alike: list[float] = []
    verdicts: Counter[int] = Counter()
    for example in examples:
        for pair in pairs(example):
            sides = [response_text(example.responses[i]) for i in (pair.chosen, pair.rejected)]
            verdicts[hash((example.prompt_text, frozenset(sides)))] += 1
            if len(alike) < SAMPLE:
                alike.append(float(common(*sides) >= COMMON))
    return alike, verdicts


def common(a: str, b: str) -> float:
    """Twice the words that two texts share (each as often as in both) over all their words; 1 for two empty texts.

    Source: Dice 1945, on multisets.
    """
    first, second = Counter(a.split()), Counter(b.split())
    words = first.total() + second.total()
    return 2 * (first & second).total() / words if words else 1.0


def _interval(told: dict[str, Any]) -> Interval:
    return Interval(told["value"], told["low"], told["high"], told["n"])
