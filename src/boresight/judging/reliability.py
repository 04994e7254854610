"""How far a judge can be relied on: its own flipping told apart from its bias, and what is left when it is taken out.

A judge that is asked the same again does not always say the same. With q the chance that a single verdict is flipped,
a rate P that is observed is P_true (1 - q) + (1 - P_true) q, so that P_true = (P - q) / (1 - 2 q).

Source: Wei et al. 2024, "Systematic Evaluation of LLM-as-a-Judge in LLM Alignment Tasks". The names of the measures
are theirs as far as their released code shows them (shenghh2015/llm-judge-eval, judge_eval/utils/metrics). Two things
are done otherwise. There, q is the chance that two answers to one question differ; two flips cancel out, so that this
is 2 q (1 - q), and it is solved for q here. And there, the share of pairs that are right in both orders is corrected
by the formula above, which is for one verdict; two verdicts with flips of their own are corrected by `denoise_both`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan, nan, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.paper import paper
from boresight.stats import Interval, mean, proportion

Floats = NDArray[np.float64]
ROUNDS = 1000
MEASURES = {
    "accuracy, better first": "right where the better response is shown first",
    "accuracy, better second": "right where the better response is shown second",
    "accuracy, mean": "mean of the two",
    "accuracy, both": "right in both orders",
    "position bias": "accuracy with the better response first, less that with it second",
    "length bias": "mean accuracy where the better response is longer, less that where it is not",
    "length bias, both": "the same of accuracy in both orders",
}
"""What `reliability` measures."""


def flip_rate(labels: ArrayLike, estimate: Literal["pairs", "majority", "released"] = "pairs") -> float:
    """The chance q that one verdict is flipped, from repeated identical questions, (items, repeats); nan is missing.

    pairs: the share d of unlike pairs of answers to one question is 2 q (1 - q) if each is flipped with chance q, which
    gives q = (1 - sqrt(1 - 2 d)) / 2; 0.5 if d is 0.5 or more. majority: the share of answers unlike their question's
    most frequent one, which falls short of q where repeats are few. released: d itself, as in the paper's code.
    nan where no question was answered twice. Raises ValueError for another shape or name.
    """
    x = np.asarray(labels, np.float64)
    if x.ndim != 2:
        raise ValueError(f"labels must have shape (items, repeats), not {x.shape}")
    if estimate == "majority":
        counts = np.stack([(x == value).sum(1) for value in np.unique(x[~np.isnan(x)])] or [np.zeros(len(x))])
        repeated = counts.sum(0) > 1
        return float(1 - counts.max(0)[repeated].sum() / counts.sum(0)[repeated].sum()) if repeated.any() else nan
    if estimate not in ("pairs", "released"):
        raise ValueError(f"estimate is pairs, majority or released, not {estimate!r}")
    unlike, pairs = _unlike(x)
    if not pairs.sum():
        return nan
    apart = float(unlike.sum() / pairs.sum())
    return apart if estimate == "released" else float(_solved(np.array(apart)))


def denoise(observed: float, q: float) -> float:
    """(P - q) / (1 - 2 q): the rate without flips; outside [0, 1] where chance put P outside [q, 1 - q].

    Raises ValueError if q is not in [0, 0.5).
    """
    _checked(q)
    return (observed - q) / (1 - 2 * q)


def denoise_both(both: float, first: float, second: float, q_first: float, q_second: float) -> float:
    """The share of pairs of verdicts that are both right, without flips.

    both: the share observed; first, second: the shares in which each is right; q: the chance that each is flipped,
    independently. (both - q_second first - q_first second + q_first q_second) / ((1 - 2 q_first) (1 - 2 q_second)).
    Raises ValueError if a q is not in [0, 0.5).
    """
    _checked(q_first)
    _checked(q_second)
    above = both - q_second * first - q_first * second + q_first * q_second
    return above / ((1 - 2 * q_first) * (1 - 2 * q_second))


def _checked(q: float) -> None:
    if not 0 <= q < 0.5:
        raise ValueError(f"q must be in [0, 0.5), not {q}: verdicts flipped half the time say nothing")


@dataclass(frozen=True)
class Reliability:
    """A judge against known preferences. items: pairs with a verdict in both orders.

    flips: the flip rate with the better response first, and second; nan where nothing was repeated. raw, denoised: each
    of MEASURES, with a 95% bootstrap interval over pairs; of `denoised` nan where the flip rate is unknown or 0.5.
    """

    items: int
    flips: tuple[float, float]
    raw: dict[str, Interval]
    denoised: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        one = {name: value.to_dict() for name, value in self.raw.items()}
        other = {name: value.to_dict() for name, value in self.denoised.items()}
        return {"items": self.items, "flips": list(self.flips), "raw": one, "denoised": other}


@paper("llm-judge-reliability")
def reliability(
    first: ArrayLike,
    second: ArrayLike,
    longer: ArrayLike | None = None,
    *,
    flips: tuple[float, float] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Reliability:
    """Measure a judge on pairs of which one response is known to be better.

    first: (pairs, repeats), 1 where the judge was right with the better response shown first, 0 where not (a tie is
    not), nan where it gave no verdict; second: with it shown second. longer: (pairs,) whether the better response is
    longer; without it there is no length bias. flips: the flip rates, if they are known; else both are estimated from
    the repeats, and again in each round of the bootstrap.

    Raises ValueError if shapes disagree or values are none of 0, 1 and nan.
    """
    x, y = (np.asarray(v, np.float64) for v in (first, second))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or (longer is not None and len(np.asarray(longer)) != len(x)):
        raise ValueError(f"first {x.shape} and second {y.shape} must be (pairs, repeats), longer (pairs,)")
    if any(not np.isin(v[~np.isnan(v)], (0.0, 1.0)).all() for v in (x, y)):
        raise ValueError("verdicts are 1 for right, 0 for wrong, nan for none")
    kept = ~(np.isnan(x).all(1) | np.isnan(y).all(1))
    x, y = x[kept], y[kept]
    long = None if longer is None else np.asarray(longer, bool)[kept]
    n = len(x)
    if n == 0:
        nothing = {name: Interval(nan, -inf, inf, 0) for name in MEASURES}
        return Reliability(0, flips or (nan, nan), nothing, dict(nothing))
    columns = _columns(x, y, long)
    point = np.ones((1, n))
    raw, clean, found = _measures(point, columns, flips)
    drawn = [
        _measures(
            np.random.default_rng((seed, k)).multinomial(n, np.full(n, 1 / n), size).astype(np.float64), columns, flips
        )
        for k, size in enumerate(_portions(rounds, n))
    ]
    flat = _intervals(raw[0], np.concatenate([d[0] for d in drawn]), n)
    cleaned = _intervals(clean[0], np.concatenate([d[1] for d in drawn]), n)
    widened = _widened(flat, (point @ columns)[0])
    for name, interval in cleaned.items():
        if interval.low == interval.high == widened[name].value:
            cleaned[name] = widened[name]
    return Reliability(n, (float(found[0, 0]), float(found[0, 1])), widened, cleaned)


def share(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """The mean of values in [0, 1] with its interval over clusters, cut to [0, 1]; Wilson's over the clusters where
    all values are 0, or all are 1.
    """
    found = mean(list(values), list(clusters))
    if found.value in (0.0, 1.0):
        count = len(set(clusters))
        found = replace(proportion(found.value * count, count), n=found.n)
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high), found.n)


def _portions(rounds: int, n: int) -> list[int]:
    """Rounds of the bootstrap, so many at once that their weights fit into 64 MiB."""
    size = max(1, min(rounds, (8 << 20) // n))
    return [min(size, rounds - k) for k in range(0, rounds, size)]


def _columns(x: Floats, y: Floats, long: NDArray[np.bool_] | None) -> Floats:
    """What is summed over pairs, (n, 16): unlike and all pairs of repeats, each order; right, overall and by length."""
    a, b = np.nanmean(x, 1), np.nanmean(y, 1)
    of = [np.zeros(len(x))] * 2 if long is None else [long.astype(np.float64), (~long).astype(np.float64)]
    return np.column_stack(
        [
            *_unlike(x),
            *_unlike(y),
            a,
            b,
            a * b,
            np.ones(len(x)),
            *(c * v for c in of for v in (a, b, a * b, np.ones(len(x)))),
        ]
    )


def _measures(weights: Floats, columns: Floats, flips: tuple[float, float] | None) -> tuple[Floats, Floats, Floats]:
    """Raw and de-noised measures, (rounds, measures) each, and the flip rates, (rounds, 2)."""
    s = weights @ columns
    with np.errstate(invalid="ignore", divide="ignore"):
        if flips is None:
            q = np.stack([_solved(s[:, 0] / s[:, 1]), _solved(s[:, 2] / s[:, 3])], 1)
        else:
            q = np.broadcast_to(np.array(flips, np.float64), (len(s), 2))
        shares = [s[:, k : k + 3] / s[:, k + 3 : k + 4] for k in (4, 8, 12)]
        usable = np.where(q < 0.5, q, nan)
        clean = [_without(share, usable) for share in shares]
    return _derived(shares), _derived(clean), q


def _without(share: Floats, q: Floats) -> Floats:
    """`denoise` and `denoise_both` on (rounds, 3): first, second, both."""
    one, two = 1 - 2 * q[:, 0], 1 - 2 * q[:, 1]
    a, b, both = share.T
    product = (both - q[:, 1] * a - q[:, 0] * b + q[:, 0] * q[:, 1]) / (one * two)
    return np.stack([(a - q[:, 0]) / one, (b - q[:, 1]) / two, product], 1)


def _derived(shares: list[Floats]) -> Floats:
    every, long, short = shares
    first, second, both = every.T
    by_length = long[:, :2].mean(1) - short[:, :2].mean(1)
    return np.stack([first, second, (first + second) / 2, both, first - second, by_length, long[:, 2] - short[:, 2]], 1)


def _intervals(point: Floats, drawn: Floats, n: int) -> dict[str, Interval]:
    found = {}
    for name, value, column in zip(MEASURES, point, drawn.T, strict=True):
        known = column[~np.isnan(column)]
        if isnan(value) or len(known) < 0.5 * len(column) or n < 2:
            found[name] = Interval(float(value), -inf, inf, n)
            continue
        low, high = np.quantile(known, (0.025, 0.975))
        found[name] = Interval(float(value), float(min(low, value)), float(max(high, value)), n)
    return found


def _widened(found: dict[str, Interval], sums: Floats) -> dict[str, Interval]:
    """Where nothing varied the bootstrap sees no spread: Wilson's interval in its place, for differences Newcombe's.

    sums: of `_columns`. Source: Newcombe 1998, "Interval estimation for the difference between independent
    proportions", method 10, of shares over pairs.
    """
    (a, b, both, n), (la, lb, lboth, m), (sa, sb, sboth, k) = (sums[i : i + 4] for i in (4, 8, 12))
    parts = {
        "accuracy, better first": [(a, n)],
        "accuracy, better second": [(b, n)],
        "accuracy, mean": [((a + b) / 2, n)],
        "accuracy, both": [(both, n)],
        "position bias": [(a, n), (b, n)],
        "length bias": [((la + lb) / 2, m), ((sa + sb) / 2, k)],
        "length bias, both": [(lboth, m), (sboth, k)],
    }
    wide = {}
    for name, interval in found.items():
        wide[name] = interval
        if interval.low != interval.high:
            continue
        one, *other = (proportion(min(part, whole), int(whole)) for part, whole in parts[name])
        low, high = one.low, one.high
        for two in other:
            low = one.value - two.value - sqrt((one.value - one.low) ** 2 + (two.high - two.value) ** 2)
            high = one.value - two.value + sqrt((one.high - one.value) ** 2 + (two.value - two.low) ** 2)
        wide[name] = Interval(interval.value, min(low, interval.value), max(high, interval.value), interval.n)
    return wide


def _unlike(x: Floats) -> tuple[Floats, Floats]:
    """Of each item: unlike pairs of its answers, and pairs of them, (items,) each."""
    there = ~np.isnan(x)
    count = there.sum(1).astype(np.float64)
    alike = np.zeros(len(x))
    for value in np.unique(x[there]):
        same = (x == value).sum(1)
        alike += same * (same - 1) / 2
    pairs = count * (count - 1) / 2
    return pairs - alike, pairs


def _solved(apart: Floats) -> Floats:
    """q from the share of unlike pairs, 2 q (1 - q)."""
    return (1 - np.sqrt(np.maximum(0.0, 1 - 2 * apart))) / 2


def corrected_rate(
    said: float, n: int, sensitivity: tuple[int, int], specificity: tuple[int, int], confidence: float = 0.95
) -> Interval:
    """The true share of wins behind what a judge said, with how often it errs known from a labelled sample.

    said: how many of n comparisons the judge gave to the system, a tie as half. sensitivity: (times it said so, of so
    many that the system truly won); specificity: (times it said the other, of so many that the other truly won).
    The estimate is (P + Sp - 1) / (Se + Sp - 1), clipped to [0, 1]; the interval takes in that Se and Sp are estimates.
    A judge that is no better than chance on the sample (Se + Sp <= 1) says nothing: nan, from 0 to 1.

    Raises ValueError if a count is negative or more than there are.
    Source: Rogan and Gladen 1978 for the estimate, Lang and Reiczigel 2014 for the interval.
    """
    from scipy.stats import norm

    for name, (part, whole) in {"said": (said, n), "sensitivity": sensitivity, "specificity": specificity}.items():
        if not 0 <= part <= whole:
            raise ValueError(f"{name}: {part} of {whole}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    (a, m), (b, k) = sensitivity, specificity
    if not n or not m or not k or a / m + b / k <= 1:
        return Interval(nan, 0.0, 1.0, n)
    value = min(1.0, max(0.0, (said / n + b / k - 1) / (a / m + b / k - 1)))
    z = float(norm.ppf((1 + confidence) / 2))
    p, se, sp = (said + z * z / 2) / (n + z * z), (a + 1) / (m + 2), (b + 1) / (k + 2)
    if se + sp <= 1:
        return Interval(value, 0.0, 1.0, n)
    centre = (p + sp - 1) / (se + sp - 1)
    shift = 2 * z * z * (centre * se * (1 - se) / (m + 2) - (1 - centre) * sp * (1 - sp) / (k + 2))
    spread = p * (1 - p) / (n + z * z)
    spread += centre**2 * se * (1 - se) / (m + 2) + (1 - centre) ** 2 * sp * (1 - sp) / (k + 2)
    half = z * sqrt(spread) / (se + sp - 1)
    low, high = (min(1.0, max(0.0, centre + shift + sign * half)) for sign in (-1, 1))
    return Interval(value, min(low, value), max(high, value), n)
