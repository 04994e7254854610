"""What a ranking says, ready for JSON, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from boresight.data.checks.agreement import alpha
from boresight.errors import RunError
from boresight.judging import effects
from boresight.judging.agreement import cohen, fleiss
from boresight.judging.ranking import METHODS, POINTS, Ranking, clusters_of, scores
from boresight.judging.ranking_power import Apart, apart
from boresight.judging.votes import Votes, turned
from boresight.stats import mean, proportion

FEW = 20
"""Clusters below which intervals are told to rest on few."""
MATRIX = 100
"""Systems up to which the win matrix is told."""
PAIRED = 5
"""Judges, those with most votes, whose agreement is told for each two."""
SAID = 6
"""Pairs of rankings up to which each has a sentence of its own."""
SHARED = 30
"""Items that two judges must share for that."""


def about(found: Ranking, against: str | None, *, full: bool, seed: int) -> dict[str, Any]:
    """Everything about one ranking; full: methods, effects and judges too."""
    votes, names = found.votes, found.votes.systems
    order = np.argsort(found.rank, kind="stable")
    told: dict[str, Any] = {
        "name": votes.name,
        "counts": votes.counts if full else {"used": len(votes), "tied": int((votes.outcome == 0.5).sum())},
        "counted": counted(votes) if full else None,
        "problems": list(votes.problems) if full else [],
        "clusters": {"by": found.clustered, "count": found.fit.clusters},
        "placed": votes.placed,
        "reliability": found.reliability,
        "prior": found.prior,
        "degenerate": degenerate(found),
        "systems": [_row(found, int(k)) for k in order],
    }
    if not full:
        return told
    if len(names) <= MATRIX:
        told["matrix"] = {
            "systems": [names[k] for k in order],
            "wins": found.wins[np.ix_(order, order)].tolist(),
            "ties": found.ties[np.ix_(order, order)].tolist(),
        }
    told["methods"] = _methods(found, seed)
    told["apart"] = [_apart(found, x) for x in _differences(found, order.tolist(), against)]
    told |= _effects(found)
    return told | judged(votes, found)


def degenerate(found: Ranking) -> dict[str, Any]:
    """What leaves strengths without a bound, by name; empty where nothing does."""
    names = found.votes.systems
    shape = found.shape
    if shape.bounded:
        return {}
    parts = [[names[k] for k in np.flatnonzero(shape.parts == p)] for p in range(int(shape.parts.max()) + 1)]
    groups = [[names[k] for k in np.flatnonzero(shape.levels == v)] for v in np.unique(shape.levels)]
    return {
        "never_lost": [names[k] for k in shape.never_lost],
        "never_won": [names[k] for k in shape.never_won],
        "parts": parts if len(parts) > 1 else [],
        "levels": len(groups) if len(parts) == 1 else 0,
    }


def _row(found: Ranking, k: int) -> dict[str, Any]:
    """One system. rating: on the scale of Elo, 1000 on average, 400 points for odds of 10 to 1."""
    won, lost, tied = float(found.wins[k].sum()), float(found.wins[:, k].sum()), float(found.ties[k].sum())
    votes = found.votes
    own = (votes.first == k) | (votes.second == k)
    got = np.where(votes.first[own] == k, votes.outcome[own], 1 - votes.outcome[own])
    share = mean(got, votes.prompt[own])
    strength, low, high = float(found.fit.strength[k]), float(found.low[k]), float(found.high[k])
    return {
        "system": votes.systems[k],
        "part": int(found.shape.parts[k]),
        "rank": int(found.rank[k]),
        "rank_low": int(found.rank_low[k]),
        "rank_high": int(found.rank_high[k]),
        "strength": strength,
        "low": low,
        "high": high,
        "error": float(found.fit.error[k]),
        "rating": 1000 + POINTS * strength,
        "rating_low": 1000 + POINTS * low,
        "rating_high": 1000 + POINTS * high,
        "won": won,
        "tied": tied,
        "lost": lost,
        "win_rate": {"value": share.value, "low": max(share.low, 0.0), "high": min(share.high, 1.0), "n": share.n},
    }


def _methods(found: Ranking, seed: int) -> list[dict[str, Any]]:
    """What each method says, and how its order goes with that of the strengths."""
    from scipy.stats import rankdata

    from boresight.judging.rank import spearman

    told = []
    for name, what in METHODS.items():
        # Without a bound the plain fit does not exist.
        bounded = name != "bradley-terry" or not found.prior
        values = scores(found.votes, name, seed) if bounded else found.fit.strength
        known = bool(np.isfinite(values).all())
        ranks = rankdata(-values, method="min") if known else None
        told.append({
            "name": name,
            "what": what,
            "scores": dict(zip(found.votes.systems, values.tolist(), strict=True)) if known else None,
            "ranks": None if ranks is None else dict(zip(found.votes.systems, ranks.astype(int).tolist(), strict=True)),
            "spearman": float(spearman(values[None], found.fit.strength[None])[0]) if known else None,
        })  # fmt: skip
    return told


def _differences(found: Ranking, order: list[int], against: str | None) -> list[Apart]:
    """Each system less the next in order, or all less one."""
    if against is not None:
        base = found.votes.systems.index(against)
        return [apart(found, k, base) for k in order if k != base]
    return [apart(found, a, b) for a, b in pairwise(order)]


def _apart(found: Ranking, x: Apart) -> dict[str, Any]:
    names = found.votes.systems
    return {**x.__dict__, "a": names[x.a], "b": names[x.b], "told": x.told}


def _effects(found: Ranking) -> dict[str, Any]:
    """What place and style weigh, and the ranking with both held equal."""
    clusters = clusters_of(found.votes, found.clustered)[0]
    try:
        fitted, listed = effects.regression(found, clusters)
    except RunError:
        return {"effects": None, "controlled": None}
    strength, half = fitted.strength, fitted.half()
    rank = 1 + (strength[None] > strength[:, None] + 1e-9).sum(1)
    reach = half * fitted.error
    rows = {
        name: {
            "strength": float(strength[k]),
            "rating": float(1000 + POINTS * strength[k]),
            "rating_low": float(1000 + POINTS * (strength[k] - reach[k])),
            "rating_high": float(1000 + POINTS * (strength[k] + reach[k])),
            "rank": int(rank[k]),
        }
        for k, name in enumerate(found.votes.systems)
    }
    return {"effects": [e.to_dict() for e in listed], "controlled": rows if listed else None}


def judged(votes: Votes, found: Ranking | None = None) -> dict[str, Any]:
    """The judges of votes, and how far they agree."""
    listed = effects.judges(votes, found)
    told: dict[str, Any] = {
        "judges": [j.to_dict() for j in listed],
        "judges_in_all": len(np.unique(votes.judge[votes.judge >= 0])),
        "agreement": _agreement(votes),
    }
    if found is None:
        told |= {
            "name": votes.name,
            "counts": votes.counts,
            "counted": counted(votes),
            "problems": list(votes.problems),
        }
    return told


def _agreement(votes: Votes) -> dict[str, Any] | None:
    """Between the judges of one source: alpha, Fleiss' kappa where numbers are equal, and kappas of two at a time."""
    named = votes.judge >= 0
    if len(np.unique(votes.judge[named])) < 2:
        return None
    verdicts = turned(votes.verdicts(), votes.listed()[votes.item])
    # One verdict for each judge and item: the first.
    keys = votes.item[named] * len(votes.judges) + votes.judge[named]
    _, places = np.unique(keys, return_index=True)
    item, judge, verdict = (c[named][places] for c in (votes.item, votes.judge, verdicts))
    table = np.zeros((len(votes.items), 3))
    np.add.at(table, (item, verdict), 1)
    shared = table[table.sum(1) >= 2]
    if not len(shared):
        return None
    sizes = shared.sum(1)
    pairs = ((shared**2).sum(1) - sizes) / (sizes * (sizes - 1))
    told: dict[str, Any] = {
        "items": len(shared),
        "agree": mean(pairs).to_dict(),
        "alpha": alpha(shared, mirrored=True).to_dict(),
        "fleiss": fleiss(shared) if (sizes == sizes[0]).all() else None,
        "kappas": [],
    }
    counts = np.bincount(judge, minlength=len(votes.judges))
    top = [int(k) for k in np.argsort(-counts, kind="stable")[:PAIRED] if counts[k]]
    own = {k: dict(zip(item[judge == k].tolist(), verdict[judge == k].tolist(), strict=True)) for k in top}
    for at, a in enumerate(top):
        for b in top[at + 1 :]:
            both = [i for i in own[a] if i in own[b]]
            if len(both) >= SHARED:
                x, y = ([own[k][i] for i in both] for k in (a, b))
                same = proportion(sum(p == q for p, q in zip(x, y, strict=True)), len(both)).to_dict()
                # A tie lies between the sides.
                weighted = cohen(x, y, weights="linear", labels=(0, 2, 1))
                told["kappas"].append({
                    "a": votes.judges[a], "b": votes.judges[b], "items": len(both), "agree": same,
                    "kappa": cohen(x, y, labels=(0, 1, 2)), "weighted": weighted,
                })  # fmt: skip
    return told


def statements(told: Mapping[str, Any]) -> list[dict[str, str]]:
    """What can be said, each with its severity: note or warning; warnings have the mend in them."""
    said: list[dict[str, str]] = []

    def say(words: str, severity: str = "note") -> None:
        said.append({"words": words, "severity": severity})

    for one in told["judged"]:
        _odd(one, f"{one['name']}: " if len(told["judged"]) > 1 else "", say)
    full = [one for one in told["rankings"] if "methods" in one]
    for one in full:
        of = f"{one['name']}: " if len(full) > 1 else ""
        _ranked(one, of, say, first=one is full[0])
    groups = [one for one in told["rankings"] if "methods" not in one]
    open_ = [one["name"] for one in groups if one["degenerate"]]
    if open_:
        say(f"By {told['by']}, votes do not bound all strengths in {len(open_)} of {len(groups)} rankings "
            f"({_some(open_)}): systems in them never lost, never won or are not connected, and their order is rough. "
            "Mend: more votes of each.", "warning")  # fmt: skip
    for pair in told["between"] if len(told["between"]) <= SAID else []:
        if "spearman" in pair:
            s, top = pair["spearman"], pair["ceiling"]
            noise = f"; two rankings of one truth as noisy as these would have about {top:.2f}" if top else ""
            say(f"{pair['a']} and {pair['b']} rank {pair['systems']} systems with Spearman {_of(s)}{noise}.")
    return said


def counted(votes: Votes) -> str:
    """What was read, used and left out, in words; also where nothing was left out."""
    counts = votes.counts
    plain = ("examples", "votes", "used", "tied")
    left = ", ".join(f"{n:,} {what}" for what, n in counts.items() if what not in plain)
    return (
        f"{counts['votes']:,} votes in {counts['examples']:,} examples: {counts['used']:,} used, {counts['tied']:,} of "
        f"them ties; {left}"
    )


def _of(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _ranked(one: Mapping[str, Any], of: str, say: Any, *, first: bool) -> None:
    """What one ranking says."""
    rows, wrong = one["systems"], one["degenerate"]
    if wrong.get("parts"):
        named = "; ".join(_some(p) for p in wrong["parts"][:3])
        say(f"{of}votes do not connect all systems ({len(wrong['parts'])} parts: {named}): across parts the order "
            "means nothing. Mend: votes between a system of each part and one of another.", "warning")  # fmt: skip
    for key, words, missing in (
        ("never_lost", "never lost or tied", "upper"),
        ("never_won", "never won or tied", "lower"),
    ):
        if wrong.get(key):
            say(f"{of}{_some(wrong[key])} {words}: votes give no {missing} bound. Mend: votes against systems that are "
                "closer.", "warning")  # fmt: skip
    if wrong and wrong["levels"] > 1 and not (wrong["never_lost"] or wrong["never_won"]):
        say(f"{of}some systems lost to none of the rest: {wrong['levels']} groups, each above the next without bound. "
            "Mend: more votes between them.", "warning")  # fmt: skip
    if wrong:
        say(f"{of}strengths are held finite by one vote, half won, of each system against an average one.")
    clusters = one["clusters"]
    if clusters["by"] != "prompt":
        say(f"{of}fewer than three prompts: intervals take each {clusters['by']} as independent, which it may not be. "
            "Mend: votes on more prompts.", "warning")  # fmt: skip
    elif clusters["count"] < FEW:
        say(f"{of}only {clusters['count']} prompts: other prompts may order the systems otherwise, and intervals over "
            "so few are rough. Mend: votes on more prompts.", "warning")  # fmt: skip
    top = [r for r in rows if r["rank_low"] == 1]
    name = rows[0]["system"]
    if len(top) == 1:
        say(f"{of}{name} is first, and no other may be.")
    else:
        say(f"{of}{name} comes first, but {len(top)} of {len(rows)} systems may be first, as far as votes tell.")
    _moved(one, of, say, first)


def _moved(one: Mapping[str, Any], of: str, say: Any, first: bool) -> None:
    """What moves votes, methods and judges."""
    for effect in one.get("effects") or []:
        if effect["p"] >= 0.05 or not isfinite(effect["low"]):
            continue
        share = f"{effect['share']['value']:.1%} [{effect['share']['low']:.1%}, {effect['share']['high']:.1%}]"
        if effect["name"] == "first place":
            say(f"{of}between equals the one shown first wins {share}.")
        else:
            say(f"{of}between equals the one with more {effect['name']} (by a typical difference) wins {share}.")
    if one.get("controlled"):
        moved = [(abs(r["rank"] - one["controlled"][r["system"]]["rank"]), r) for r in one["systems"]]
        far, row = max(moved, key=lambda m: m[0])
        if far > 1:
            new = one["controlled"][row["system"]]["rank"]
            say(f"{of}with place and style held equal {row['system']} goes from rank {row['rank']} to {new}.")
    for method in (one.get("methods") or []) if first else []:
        if method["spearman"] is not None and method["spearman"] < 0.8 and len(one["systems"]) > 4:
            say(f"{of}{method['name']} orders the systems otherwise (Spearman {method['spearman']:.2f} with the "
                f"strengths): {method['what']}.")  # fmt: skip
    _odd(one, of, say)


def _odd(one: Mapping[str, Any], of: str, say: Any) -> None:
    """The judges that stand out."""
    odd = [j for j in one.get("judges") or [] if j["odd"]]
    if odd:
        names = _some([f"{j['name']} {j['odd'][0]}" for j in odd], 3)
        say(f"{of}{len(odd)} of {len(one['judges'])} judges stand out: {names}.")
