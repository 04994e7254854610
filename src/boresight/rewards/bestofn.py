"""Best-of-n: what taking the response of highest reward, of n, is worth to another reward. Exact, without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.stats import Interval, mean


@dataclass(frozen=True)
class Point:
    """n: how many responses are chosen from. kl: nats to the policy, at most. proxy: the reward that chooses; gold: the
    other one, of the chosen response; both means over prompts.
    """

    n: int
    kl: float
    proxy: Interval
    gold: Interval | None


def kl_of(n: int) -> float:
    """KL of best-of-n to the policy, in nats: log n - (n - 1) / n, an upper bound where responses come up twice.

    Source: Stiennon et al. 2020, app. G.3; that it is a bound: Beirami et al. 2024.
    """
    if n < 1:
        raise ValueError(f"n={n}: one response at least")
    return log(n) - (n - 1) / n


def best_of(proxy: ArrayLike, other: ArrayLike, n: int) -> float:
    """Mean of `other` over the response with the highest `proxy` among n that are drawn without replacement.

    proxy, other: (N,) of the same N responses, n <= N. The response of rank i (from below) is the best of n drawn in
    C(i-1, n-1) / C(N, n) of all draws; responses of one `proxy` share what their ranks have. The mean over all draws
    is exact, where drawing n at random has noise.
    Source: as the unbiased estimator of Nakano et al. 2021 (WebGPT), app. I.
    Raises ValueError if the shapes differ, n lies outside 1..N, or a value is not finite.
    """
    p, g = np.asarray(proxy, float), np.asarray(other, float)
    if p.shape != g.shape or p.ndim != 1 or not np.isfinite(p).all() or not np.isfinite(g).all():
        raise ValueError(f"best-of-n needs finite values of the same responses, not {p.shape} and {g.shape}")
    if not 1 <= n <= p.size:
        raise ValueError(f"n={n} of {p.size} responses")
    levels, place = np.unique(p, return_inverse=True)
    shared = np.bincount(place, g, len(levels)) / np.bincount(place)
    return float(_shares(p.size, n) @ shared[np.sort(place)])


def _shares(count: int, n: int) -> NDArray[np.float64]:
    """For each rank from below, 1 to count, how often it is the best of n drawn: (count,), sums to 1."""
    total = _log_choose(count, n)
    found = np.zeros(count)
    for i in range(n, count + 1):
        found[i - 1] = np.exp(_log_choose(i - 1, n - 1) - total)
    return found


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def curve(
    proxies: Sequence[ArrayLike], golds: Sequence[ArrayLike] | None = None, ns: Sequence[int] | None = None
) -> list[Point]:
    """Both rewards of best-of-n over n, the means over prompts with 95% intervals.

    proxies, golds: of each prompt the rewards of its responses, (responses,). ns: 1, 2, 4, ... up to the fewest
    responses of a prompt by default. Where `gold` falls while `proxy` rises, the proxy is over-optimised.
    Raises ValueError without prompts, or as `best_of`.
    """
    if not len(proxies):
        raise ValueError("best-of-n needs at least one prompt")
    fewest = min(len(np.atleast_1d(np.asarray(p))) for p in proxies)
    if ns is None:
        ns = [2**k for k in range(fewest.bit_length()) if 2**k <= fewest]
    points = []
    for n in ns:
        own = [best_of(p, p, n) for p in proxies]
        other = None if golds is None else [best_of(p, g, n) for p, g in zip(proxies, golds, strict=True)]
        points.append(Point(n, kl_of(n), mean(own), None if other is None else mean(other)))
    return points
