"""Whether two systems are told apart, and how many more votes it takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, isfinite

import numpy as np

from boresight.judging.ranking import Ranking
from boresight.judging.ranking_fit import logistic

POWER = 0.8


@dataclass(frozen=True)
class Apart:
    """System a against system b: difference in logits with its 95% interval, p of its being 0, chance that a wins.

    direct: more votes between the two alone, each on a prompt of its own, until a difference of this size is told with
    POWER at 5%; alike: times as many votes in all, as these are. 0 and 1 where they are told apart already, infinite
    where there is no difference, or no error is known. comparable: whether votes connect the two.
    """

    a: int
    b: int
    value: float
    low: float
    high: float
    p: float
    chance: float
    direct: float
    alike: float
    comparable: bool

    @property
    def told(self) -> bool:
        """Whether they are told apart, by the interval."""
        return self.comparable and (self.low > 0 or self.high < 0)


def apart(found: Ranking, a: int, b: int, power: float = POWER) -> Apart:
    """Two systems of a ranking, numbers of `votes.systems`.

    The difference has the sandwich's standard error e. A direct vote adds information i = (p q)^2 / Var(vote), p the
    fitted chance that a wins and Var(vote) = p q - (share of ties) / 4, so that m of them are needed with
    1 / (1 / e^2 + m i) = (d / z)^2, z the sum of the quantiles of 97.5% and of the power. Votes as these are shrink e^2
    by their number.
    """
    from scipy.stats import norm, t

    value, error = found.fit.difference(a, b)
    comparable = bool(found.shape.parts[a] == found.shape.parts[b])
    chance = float(logistic(np.array([value]))[0])
    reach = found.fit.half()
    if not isfinite(error) or error <= 0 or not comparable:
        certain = comparable and error == 0 and value != 0
        ends = (value, value) if certain else (-inf, inf)
        return Apart(a, b, value, *ends, 0.0 if certain else 1.0, chance, 0.0 if certain else inf, inf, comparable)
    half = reach * error
    p = float(2 * t.sf(abs(value) / error, found.fit.clusters - 1))
    direct, alike = 0.0, 1.0
    if abs(value) <= half:
        z = float(norm.ppf(0.975) + norm.ppf(power))
        both = found.wins[a, b] + found.wins[b, a] + found.ties[a, b]
        share = found.ties[a, b] / both if both >= 10 else _ties(found)
        spread = chance * (1 - chance)
        each = spread**2 / max(spread - share / 4, 0.05 * spread)
        with np.errstate(over="ignore", divide="ignore"):
            needed = (z / value) ** 2 if value else inf
        direct = ceil((needed - error**-2) / each) if isfinite(needed) else inf
        alike = float(needed * error**2)
    return Apart(a, b, value, value - half, value + half, p, chance, direct, alike, comparable)


def _ties(found: Ranking) -> float:
    """Share of ties among all votes."""
    ties = float(found.ties.sum()) / 2
    return ties / max(ties + float(found.wins.sum()), 1e-12)
