"""From an answer to a verdict or a score; or to the reason why there is none. Nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, fsum

from boresight.judging.endpoint_wire import Token

LONGEST = 1 << 17
"""Characters at the end of an answer that are looked at."""
SIDES = {"a": 1.0, "b": 0.0, "tie": 0.5, "c": 0.5, "draw": 0.5, "equal": 0.5}
_BEFORE = r"^[ \t*_`#>\"'\[(-]*(?:(?:my|the|final|overall)[ \t]+){0,2}"
_BETWEEN = r"[ \t*_`\[\]()\"'#>:=]*"
_END = r"[ \t*_`\[\]()\"'.!]*"
_FLAGS = re.IGNORECASE | re.MULTILINE


def _line(name: str, value: str) -> re.Pattern[str]:
    """A line with name and value: (value, rest, ""); or the name, with the value alone below: ("", "", value)."""
    below = rf"{_BETWEEN}(?:(?:\n[ \t]*)+{_BETWEEN}({value}){_END})?"
    return re.compile(rf"{_BEFORE}{name}\b(?:{_BETWEEN}({value})(.*)|{below})$", _FLAGS)


_VERDICT = _line("verdict", r"(?:(?:answer|result|response)[ \t]+)?[a-z]+\b")
_SCORE = _line("score", r"[+-]?\d{1,9}(?:\.\d{1,9})?")
_ALONE = re.compile(r"[\s*_`\[\]()\"'.]*([a-z]+|\d{1,9}(?:\.\d{1,9})?)[\s*_`\[\]()\"'.]*", re.IGNORECASE)
_TAIL = re.compile(r"[\s*_`\[\]()\"'.!]*")
_OUT_OF = re.compile(r"[\s*_`]*(?:/|out of)[\s*_`]*(\d{1,9})[\s*_`\[\]()\"'.!]*")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read. value: None where nothing was, and `why` says so.

    A verdict is 1 for A (what was shown first), 0 for B, 0.5 for a tie; where it comes from probabilities, between.
    mass: the probability of all labels together, where there are probabilities. parts: of several criteria.
    """

    value: float | None
    why: str = ""
    mass: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)


def verdict(text: str) -> Parsed:
    """The last line `Verdict: A`, B or tie; a JSON object with "verdict"; or an answer that is nothing but A, B or tie.

    C, draw and equal are ties too. A last line that says anything else makes the answer unreadable, whatever the
    lines before it say.
    """
    text = text[-LONGEST:]
    lines = _VERDICT.findall(text)
    if lines:
        same, rest, below = lines[-1]
        value = SIDES.get((same or below).lower().split()[-1]) if same or below else None
        if value is None or not _TAIL.fullmatch(rest):
            return Parsed(None, "the last verdict is neither A nor B nor tie")
        return Parsed(value)
    alone = _given(text, "verdict")
    if alone is not None and alone.lower() in SIDES:
        return Parsed(SIDES[alone.lower()])
    return Parsed(None, "no verdict")


def score(text: str, low: int, high: int) -> Parsed:
    """The number in the last line `Score: 7` (or 7/10, with 10 the highest); in JSON; or an answer that is a number.

    A number outside low .. high, a range such as 7-8, or one out of another highest score is none.
    """
    text = text[-LONGEST:]
    lines = _SCORE.findall(text)
    if lines:
        same, rest, below = lines[-1]
        number = same or below
        of = _OUT_OF.fullmatch(rest)
        if of is not None and int(of[1]) != high:
            return Parsed(None, "a score out of another highest score")
        if not number or (of is None and not _TAIL.fullmatch(rest)):
            return Parsed(None, "the last score is not a number alone")
    else:
        alone = _given(text, "score")
        if alone is None or not re.fullmatch(r"[+-]?\d{1,9}(\.\d{1,9})?", alone):
            return Parsed(None, "no score")
        number = alone
    value = float(number)
    return Parsed(value) if low <= value <= high else Parsed(None, f"a score outside {low} to {high}")


def criteria(text: str, names: Sequence[str]) -> Parsed:
    """For each criterion the last line `NAME: A`, B or tie. value: the mean, None if any criterion has none."""
    text, parts = text[-LONGEST:], {}
    for name in names:
        before = r"^[ \t*_`#>\"'\[(\d.)-]*"
        line = re.compile(rf"{before}{re.escape(name)}[ \t*_`\"'\])]*[:=]{_BETWEEN}([a-z]+)\b(.*)$", _FLAGS)
        found = line.findall(text)
        known = SIDES.get(found[-1][0].lower()) if found and _TAIL.fullmatch(found[-1][1]) else None
        parts[name] = known
    missing = [name for name, value in parts.items() if value is None]
    if missing:
        return Parsed(None, f"no verdict on {', '.join(missing)}", parts=parts)
    return Parsed(fsum(v for v in parts.values() if v is not None) / len(parts), parts=parts)


def label(tokens: Sequence[Token], labels: Mapping[str, float]) -> Parsed:
    """The mean worth of the labels, by the probabilities of the tokens in the place of the first word.

    Tokens that differ by white space alone are one label; what is no label is left out, and the rest is made to sum
    to 1. That first word must itself be a label. mass: what the labels had before.

    Source: Liu et al. 2023 (G-Eval), the score as a sum over p(s) s; there p is estimated by sampling.
    """
    if not tokens:
        return Parsed(None, "the server gives no log-probs")
    place = next((t for t in tokens if t.text.strip()), None)
    if place is None or place.text.strip() not in labels:
        return Parsed(None, "the answer does not begin with a label")
    chances: dict[str, float] = {}
    top = dict(place.top) | {place.text: place.logprob}
    for text, logprob in top.items():
        word = text.strip()
        if word in labels:
            chances[word] = chances.get(word, 0.0) + exp(min(0.0, logprob))
    mass = fsum(chances.values())
    if mass <= 0:
        return Parsed(None, "no label has any probability")
    return Parsed(fsum(p * labels[word] for word, p in chances.items()) / mass, mass=min(1.0, mass))


def _given(text: str, key: str) -> str | None:
    """The value under a key of an answer that is a JSON object, or the answer itself where it is one word."""
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if bare.startswith("{"):
        try:
            value = json.loads(bare)
        except (ValueError, RecursionError):
            return None
        found = value.get(key) if isinstance(value, dict) else None
        return str(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else None
    word = _ALONE.fullmatch(bare)
    return word[1] if word else None
