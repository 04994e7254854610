"""What moves votes besides how good a system is: the place, the style, and the judge."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from boresight.judging.ranking import Ranking
from boresight.judging.ranking_fit import Fit, Floats, Ints, fit, logistic
from boresight.judging.votes import STYLE, Bools, Votes
from boresight.stats import Interval, holm, proportion

LEAST = 30
"""Votes that a judge must have to be judged."""
SAME = 1e-9
DIFFER = (20, 3)
"""Votes, and clusters of them, in which a mark of style must differ to be weighed."""


@dataclass(frozen=True)
class Effect:
    """A slope in logits, its 95% interval, p of its being 0; share: how often the favoured side wins between equals."""

    name: str
    value: float
    low: float
    high: float
    p: float

    @property
    def share(self) -> Interval:
        """The chance that the favoured side wins between equals, by the slope alone."""
        value, low, high = (float(v) for v in logistic(np.array([self.value, self.low, self.high])))
        return Interval(value, low, high, 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "value": self.value, "low": self.low, "high": self.high, "p": self.p,
                "share": self.share.to_dict()}  # fmt: skip


def _effects(names: list[str], fitted: Fit) -> list[Effect]:
    from scipy.stats import t

    half = fitted.half()
    found = []
    for name, value, error in zip(names, fitted.slope, fitted.slope_error, strict=True):
        known = bool(np.isfinite(error)) and error > 0
        p = float(2 * t.sf(abs(value) / error, fitted.clusters - 1)) if known else 1.0
        reach = half * error if known else np.inf
        found.append(Effect(name, float(value), float(value - reach), float(value + reach), p))
    return found


def regression(found: Ranking, clusters: Ints, *, place: bool = True, style: bool = True) -> tuple[Fit, list[Effect]]:
    """Strengths with the first place and the style held equal, and what the two weigh.

    place: a term that is 1 in every vote. style: the columns of `votes.style` in units of their root mean square, so
    that a slope is what one typical difference adds in logits; those that hardly ever differ are left out, and
    so is the first place where the better one is always listed first.
    """
    votes = found.votes
    names: list[str] = []
    columns: list[Floats] = []
    if place and votes.placed:
        names.append("first place")
        columns.append(np.ones(len(votes)))
    if style:
        sizes = np.sqrt((votes.style**2).mean(0))
        for k, name in enumerate(STYLE):
            differs = np.abs(votes.style[:, k]) > SAME
            if differs.sum() >= DIFFER[0] and len(np.unique(clusters[differs])) >= DIFFER[1]:
                names.append(name)
                columns.append(votes.style[:, k] / sizes[k])
    fitted = fit(
        votes.first, votes.second, votes.outcome, len(votes.systems), weight=votes.weight, clusters=clusters,
        covariates=np.column_stack(columns) if columns else None, prior=found.prior,
    )  # fmt: skip
    return fitted, _effects(names, fitted)


@dataclass(frozen=True)
class Judge:
    """One judge. ties: share of ties. chose_first: share of decided votes for the first place. place, length: effects
    in logits, strengths held equal. follows: slope of the votes on the strengths that all others' votes give: 1 where
    the judge sees what they see, more with less noise than theirs, 0 by chance. agrees: with the others' votes on the
    same items, a share. orders: see `both_orders`. odd: what stands out after Holm's correction over judges, in words.
    """

    name: str
    votes: int
    ties: Interval
    chose_first: Interval | None
    place: Effect | None
    length: Effect | None
    follows: Effect | None
    agrees: Interval | None
    orders: dict[str, Any] | None
    odd: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {k: v.to_dict() if hasattr(v, "to_dict") else v for k, v in self.__dict__.items()}
        return told | {"odd": list(self.odd)}


def judges(votes: Votes, found: Ranking | None, least: int = LEAST) -> list[Judge]:
    """Every judge with `least` votes or more, those with most first; found: the ranking of all votes, if there is one.

    The three slopes are those of one logistic regression of the judge's votes on the strengths fitted to all others'
    votes, on the first place and on the standardised difference in length, each with a normal prior of standard
    deviation 5, errors clustered by prompt. Where there is one judge, or no systems, they are left out.
    """
    counts = np.bincount(votes.judge[votes.judge >= 0], minlength=len(votes.judges))
    chosen = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] >= least]
    size = sqrt(float((votes.style[:, 0] ** 2).mean())) if len(votes) else 0.0
    listed = []
    agreeing = _agreeing(votes)
    for k in chosen:
        own = votes.judge == k
        place = length = follows = None
        if found is not None and len(chosen) > 1:
            place, length, follows = _slopes(votes, found, own, size)
        decided = own & (votes.outcome != 0.5)
        firsts = (
            proportion(float((votes.outcome[decided] > 0.5).sum()), int(decided.sum()))
            if votes.placed and decided.any()
            else None
        )
        listed.append(
            Judge(
                votes.judges[k],
                int(own.sum()),
                proportion(float((own & ~decided).sum()), int(own.sum())),
                firsts,
                place,
                length,
                follows,
                agreeing.get(k),
                both_orders(votes, own),
            )
        )
    return _marked(listed)


def _slopes(votes: Votes, found: Ranking, own: Bools, size: float) -> tuple[Effect | None, Effect | None, Effect]:
    """Place, length and how far strengths are followed."""
    rest = fit(
        votes.first[~own], votes.second[~own], votes.outcome[~own], len(votes.systems), weight=votes.weight[~own],
        prior=1.0,
    )  # fmt: skip
    names, columns = ["strengths"], [rest.strength[votes.first[own]] - rest.strength[votes.second[own]]]
    if votes.placed:
        names.append("first place")
        columns.append(np.ones(int(own.sum())))
    if size > SAME:
        names.append("length")
        columns.append(votes.style[own, 0] / size)
    n = int(own.sum())
    # One system against itself: nothing but the covariates is left.
    same = np.zeros(n, np.int64)
    fitted = fit(
        same, same, votes.outcome[own], 1, weight=votes.weight[own], clusters=votes.prompt[own],
        covariates=np.column_stack(columns),
    )  # fmt: skip
    by_name = dict(zip(names, _effects(names, fitted), strict=True))
    return by_name.get("first place"), by_name.get("length"), by_name["strengths"]


def _agreeing(votes: Votes) -> dict[int, Interval]:
    """How often each judge's verdict is that of another vote, by another judge, on the same item; ties are verdicts."""
    verdicts = votes.verdicts()
    named = votes.judge >= 0
    items = votes.item
    table = np.zeros((len(votes.items), 3))
    np.add.at(table, (items[named], verdicts[named]), 1)
    own: dict[tuple[int, int], list[int]] = {}
    for judge, item, verdict in zip(
        votes.judge[named].tolist(), items[named].tolist(), verdicts[named].tolist(), strict=True
    ):
        own.setdefault((judge, item), [0, 0, 0])[verdict] += 1
    sums: dict[int, list[float]] = {}
    for (judge, item), mine in own.items():
        others = table[item] - mine
        if others.sum():
            total = sums.setdefault(judge, [0.0, 0.0])
            total[0] += float(np.dot(mine, others) / others.sum())
            total[1] += sum(mine)
    return {k: proportion(min(agreed, n), int(n)) for k, (agreed, n) in sums.items()}


def both_orders(votes: Votes, own: Bools) -> dict[str, Any] | None:
    """What a judge said of items that it was shown in both orders: None where there is none.

    items: how many. same: with the same verdict both times. first, second: with the place winning both times, whoever
    stood there. The rest is a tie in one order. Of several votes in one order the first counts.
    """
    seen: dict[int, dict[bool, float]] = {}
    for item, turned, outcome in zip(
        votes.item[own].tolist(), votes.turned[own].tolist(), votes.outcome[own].tolist(), strict=True
    ):
        seen.setdefault(item, {}).setdefault(turned, outcome)
    both = [(s[False], s[True]) for s in seen.values() if len(s) == 2]
    if not both:
        return None
    n = len(both)
    same = sum(a == 1 - b for a, b in both)
    first, second = sum(a == b == 1 for a, b in both), sum(a == b == 0 for a, b in both)
    return {
        "items": n, "same": same, "first": first, "second": second, "share_same": proportion(same, n).to_dict()
    }  # fmt: skip


def _marked(listed: list[Judge]) -> list[Judge]:
    """With words for what stands out."""
    from scipy.stats import binomtest

    words: list[list[str]] = [[] for _ in listed]
    for name, say in (
        ("place", lambda e: "prefers the first place" if e.value > 0 else "prefers the second place"),
        ("length", lambda e: "prefers longer answers" if e.value > 0 else "prefers shorter answers"),
    ):
        known = [(k, getattr(j, name)) for k, j in enumerate(listed) if getattr(j, name) is not None]
        if known:
            for (k, effect), p in zip(known, holm([e.p for _, e in known]), strict=True):
                if p < 0.05:
                    words[k].append(say(effect))
    # Without strengths to hold equal: of items with another verdict in the other order, how many went to one place.
    swayed = [(k, j.orders) for k, j in enumerate(listed) if j.place is None and j.orders]
    ps = [float(binomtest(o["first"], o["first"] + o["second"]).pvalue) if o["first"] + o["second"] else 1.0
          for _, o in swayed]  # fmt: skip
    for (k, o), p in zip(swayed, holm(ps), strict=True):
        if p < 0.05:
            words[k].append(f"prefers the {'first' if o['first'] > o['second'] else 'second'} place")
    for k, j in enumerate(listed):
        if j.follows is not None and j.follows.high < 0.5:
            words[k].append("hardly follows what the others see")
    return [Judge(**{**j.__dict__, "odd": tuple(w)}) for j, w in zip(listed, words, strict=True)]
