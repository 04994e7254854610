"""`rank`: systems in order of what votes say of them, with all that may make that order wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from boresight.data.read import read
from boresight.data.table import Examples
from boresight.errors import InputError, nearest
from boresight.judging.agreement import between
from boresight.judging.rank_told import about, judged, statements
from boresight.judging.ranking import LEAST_CLUSTERS, Ranking, ranking
from boresight.judging.ranking_fit import Floats, cluster_weights
from boresight.judging.votes import Votes, collect, majority, turned
from boresight.stats import Interval

BY = {"judge": "judge", "annotator": "judge", "domain": "domain"}
LEAST = 30
"""Votes that a group must have to be ranked by itself."""
MOST = 12
"""Groups that are ranked by themselves, those with most votes."""
CROSSED = 7
"""Rankings up to which each is set against each; beyond, each against the first."""
SHARED = 10
"""Items that two must have judged for their agreement to be told."""

Source = str | Path | Examples


@dataclass(frozen=True)
class Arena:
    """What `rank` found; told: all of it, ready for JSON, as the page and the terminal show it."""

    told: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.told


def rank(
    data: Source | Sequence[Source],
    *,
    by: str | None = None,
    rounds: int = 1000,
    cluster: str = "prompt",
    against: str | None = None,
    format: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Arena:
    """Rank the systems that votes compare.

    data: what `boresight.data.read` reads into examples whose responses name their `system`; several are ranked each
    by itself and set against each other. by: judge, annotator or domain: a ranking for each as well. rounds: of the
    bootstrap over `cluster` (prompt, item or vote). against: a system that all others are compared with; if not given,
    each with the next in order. Votes of data that name no system are told of by judge.
    Raises InputError if nothing can be ranked, or for an option that cannot be used.
    """
    if by is not None and by not in BY:
        raise InputError(f"votes cannot be split by {by}", mend=nearest(by, BY))
    if rounds and rounds < 100:
        raise InputError(f"{rounds} rounds are too few for an interval", mend="give 100 or more, or 0 for none")
    sources = [data] if isinstance(data, str | Path | Examples) else list(data)
    if not sources:
        raise InputError("no votes are given", mend="name a file, a folder or a hub name")
    if by is not None and len(sources) > 1:
        raise InputError("--by splits the votes of one source", mend="give one, or leave --by out")
    found = [
        collect(s if isinstance(s, Examples) else read(s, format=format, limit=limit), n)
        for s, n in zip(sources, _names(sources), strict=True)
    ]
    empty = next((v for v in found if not len(v)), None)
    if empty is not None:
        counts = ", ".join(f"{n} {what}" for what, n in empty.counts.items() if n)
        raise InputError(
            f"{empty.name}: no vote is left to rank by ({counts or 'it is empty'})",
            mend="votes are pairs, ranks or scores of responses that name their systems (system, model_a, ...)",
        )
    nameless = [v for v in found if not v.ranked]
    if nameless and len(nameless) == len(found) and any(len(v.judges) for v in found):
        told: dict[str, Any] = {"rankings": [], "judged": [judged(v) for v in found], "between": [], "by": None}
        return Arena(told | {"statements": statements(told)})
    if nameless:
        raise InputError(
            f"{nameless[0].name}: its responses name no systems, nor its votes a judge: nothing to rank",
            mend="name the systems: model_a and model_b beside response_a and response_b, or system in a response",
        )
    groups, left = _groups(found[0], by) if by else ([], [])
    rankings = _rankings([*found, *groups], rounds, cluster, seed)
    if against is not None and against not in rankings[0].votes.systems:
        raise InputError(f"no system is called {against}", mend=nearest(against, rankings[0].votes.systems))
    whole = len(found)
    told = {
        "by": by,
        "rounds": rounds,
        "seed": seed,
        "rankings": [about(r, against, full=k < whole, seed=seed) for k, r in enumerate(rankings)],
        "left_out": left,
        "judged": [],
        "between": [compared(rankings[a], rankings[b], seed) for a, b in _pairs(len(rankings))],
    }
    return Arena(told | {"statements": statements(told)})


def _names(sources: Sequence[Source]) -> list[str]:
    names = [
        s.report.source.split("/")[-1] if isinstance(s, Examples) else Path(s).name.split(".")[0] or str(s)
        for s in sources
    ]
    return [n if names.count(n) == 1 else f"{n} ({k})" for k, n in enumerate(names, 1)]


def _groups(votes: Votes, by: str) -> tuple[list[Votes], list[dict[str, Any]]]:
    """The votes of each group that has enough, and the others with the reason."""
    column, names = (votes.judge, votes.judges) if BY[by] == "judge" else (votes.domain, votes.domains)
    if not names:
        mend = "name it in a column judge, annotator or worker" if BY[by] == "judge" else "name it in a column domain"
        raise InputError(f"{votes.name}: no vote names its {by}", mend=mend)
    counts = np.bincount(column[column >= 0], minlength=len(names))
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    taken = [k for k in order if counts[k] >= LEAST][:MOST]
    if not taken:
        raise InputError(f"{votes.name}: no {by} has {LEAST} votes", mend="give more votes, or leave --by out")
    left = [{"name": names[k], "votes": int(counts[k])} for k in order if k not in taken]
    if (column < 0).any():
        left.append({"name": f"without a {by}", "votes": int((column < 0).sum())})
    return [votes.take(column == k, names[k]) for k in taken], left


def _rankings(found: Sequence[Votes], rounds: int, cluster: str, seed: int) -> list[Ranking]:
    """All rankings, their bootstraps drawn on the same prompts, so that what two have in common cancels."""
    if cluster != "prompt" or not rounds:
        return [ranking(v, rounds=rounds, by=cluster, seed=seed) for v in found]
    sizes = [len(np.unique(v.prompt)) for v in found]
    enough = [n for n in sizes if n >= LEAST_CLUSTERS]
    if not enough:
        return [ranking(v, rounds=rounds, seed=seed) for v in found]
    keys = np.unique(np.concatenate([v.prompts[np.unique(v.prompt)] for v in found]))
    weights = cluster_weights(len(keys), rounds, seed, like=min(enough))
    made = []
    for votes, size in zip(found, sizes, strict=True):
        columns = np.searchsorted(keys, votes.prompts).clip(0, len(keys) - 1)
        own = weights[:, columns] if size >= LEAST_CLUSTERS else None
        made.append(ranking(votes, rounds=rounds, seed=seed, weights=own))
    return made


def _pairs(count: int) -> list[tuple[int, int]]:
    """Which rankings are set against which."""
    if count <= CROSSED:
        return [(a, b) for a in range(count) for b in range(a + 1, count)]
    return [(0, b) for b in range(1, count)]


def compared(a: Ranking, b: Ranking, seed: int = 0) -> dict[str, Any]:
    """Two rankings: correlation of the strengths of the systems in both, and agreement on the items in both.

    The interval of a correlation r is tanh(atanh(r) -+ 1.96 s), s the standard deviation of atanh over bootstrap
    rounds, drawn on the same prompts for both. Noise in the two rankings pulls it down: `ceiling` is the square root of
    the product of their reliabilities, about what two rankings of the same truth, as noisy as these, would have.
    """
    common = [s for s in a.votes.systems if s in set(b.votes.systems)]
    told: dict[str, Any] = {"a": a.votes.name, "b": b.votes.name, "systems": len(common)}
    if len(common) >= 3:
        x, y = ([r.votes.systems.index(s) for s in common] for r in (a, b))
        rounds = min(len(a.rounds), len(b.rounds)) if a.clustered == b.clustered == "prompt" else 0
        drawn = a.rounds[:rounds][:, x], b.rounds[:rounds][:, y]
        told |= correlations(a.fit.strength[x], b.fit.strength[y], *drawn)
        told["ceiling"] = sqrt(a.reliability * b.reliability) if a.reliability * b.reliability >= 0 else None
    return told | {"agreement": _agreement(a.votes, b.votes, seed)}


def correlations(x: Floats, y: Floats, x_rounds: Floats, y_rounds: Floats) -> dict[str, Any]:
    """Spearman's and Kendall's correlation of (systems,) strengths with intervals from (rounds, systems) of each."""
    known = np.isfinite(x_rounds).all(1) & np.isfinite(y_rounds).all(1)
    told = {}
    for name, measure in (("spearman", spearman), ("kendall", kendall)):
        value = float(measure(x[None], y[None])[0])
        drawn = measure(x_rounds[known], y_rounds[known])
        low, high = -1.0, 1.0
        if len(drawn) > 1 and abs(value) < 1 - 1e-12:
            half = 1.959964 * float(np.arctanh(np.clip(drawn, -0.999999, 0.999999)).std(ddof=1))
            low, high = float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half))
        elif len(drawn) > 1:
            low, high = sorted((value, float(np.quantile(drawn, 0.05 if value > 0 else 0.95))))
        told[name] = Interval(value, low, high, len(x)).to_dict()
    return told


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation of each row of x with that of y, (rows,); tied values share their mean rank."""
    from scipy.stats import rankdata

    p, q = (rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (x, y))
    below = np.sqrt((p**2).sum(1) * (q**2).sum(1))
    return np.where(below > 0, (p * q).sum(1) / np.maximum(below, 1e-300), np.nan)


def kendall(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b of each row of x with that of y, (rows,)."""
    one, other = np.triu_indices(x.shape[1], 1)
    found = np.empty(len(x))
    size = max(1, 4_000_000 // max(len(one), 1))
    for k in range(0, len(x), size):
        p, q = (np.sign(v[k : k + size][:, one] - v[k : k + size][:, other]) for v in (x, y))
        below = np.sqrt(np.abs(p).sum(1) * np.abs(q).sum(1))
        found[k : k + size] = np.where(below > 0, (p * q).sum(1) / np.maximum(below, 1e-300), np.nan)
    return found


def _agreement(a: Votes, b: Votes, seed: int) -> dict[str, Any] | None:
    """How far the majority verdicts of the two agree on the items that both judged."""
    own, other = majority(a), majority(b)
    places = {int(key): k for k, key in enumerate(a.items)}
    keys = [key for key in own if key in other]
    if len(keys) < SHARED:
        return None
    numbers = np.array([places[key] for key in keys])
    flip = a.listed()[numbers]
    x, y = (turned(np.array([v[key] for key in keys]), flip) for v in (own, other))
    prompt = np.zeros(len(a.items), np.int64)
    prompt[a.item] = a.prompt
    found = between(x, y, prompt[numbers].tolist(), seed=seed)
    return {"items": len(keys)} | {k: v.to_dict() for k, v in found.items()}
