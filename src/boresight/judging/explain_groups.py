"""Who prefers what: coefficients shared by all domains, annotators or judges, and what is special to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.errors import InputError, nearest
from boresight.judging.concepts import Hierarchy, chosen
from boresight.judging.explain_alone import flipped, share
from boresight.judging.explain_fit import fitted, logistic, root_mean_square
from boresight.judging.explain_held import Margins, held_out
from boresight.judging.explain_pairs import GROUPS, Compared
from boresight.stats import holm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAST, MOST = 10, 12
"""Pairs that a group needs, and how many groups are set apart: the largest."""
CONDITION = 30.0
"""How many times as much a coefficient must be known as the prior says, for its difference to be tested."""
POOLED, SEPARATE, BOTH = "one for all", "one for each", "shared + specific"


def by_group(pairs: Compared, by: str, *, seed: int = 0, penalty: float = 1.0) -> dict[str, Any]:
    """What is shared and what is special, by the groups that `by` names (one of GROUPS); ready for JSON.

    groups: each with its pairs, its coefficients (shared + specific, of differences divided by their root mean square
    over all), what is special in them, and the share of each feature: of the group's pairs that differ in it, those in
    which the response with more is preferred (p_adjusted for all groups and features, by turning pairs over).
    differences: where a group's coefficient differs from the other groups' (p by Holm over all groups and features;
    from a joint regression with that group's own terms, clustered on prompts where there are enough). held_out: one
    regression for all, one for each group, and shared + specific, on prompts not fitted on (by="prompt": on other pairs
    of the same prompts).
    similarity: Pearson's correlation of the coefficients of each two groups, fitted apart.
    Raises InputError if `by` is unknown or the data sets nothing apart by it.
    """
    if by not in GROUPS:
        raise InputError(f"there is no grouping {by!r}", mend=nearest(by, GROUPS))
    counts = Counter(pairs.groups[by])
    names = [name for name, count in counts.most_common(MOST) if count >= LEAST]
    if len(names) < 2:
        mend = f"{by} must tell two groups of {LEAST} pairs apart; there are " + (
            ", ".join(f"{name[:40]} ({count:,})" for name, count in counts.most_common(3)) or "none"
        )
        raise InputError(f"the pairs cannot be set apart by {by}", mend=mend)
    place = {name: k for k, name in enumerate(names)}
    kept = np.array([i for i, name in enumerate(pairs.groups[by]) if name in place])
    some = pairs.take(kept)
    domain = np.array([place[name] for name in some.groups[by]])
    scale = root_mean_square(some.x)
    z = some.x / np.where(scale > 0, scale, inf)
    if by == "prompt":
        some.prompt = np.arange(len(some))
    found = chosen(z, domain, some.y, some.prompt, seed=seed, domains=len(names), **_TRIED)
    apart = [logistic(z[domain == k], some.y[domain == k], penalty=penalty) for k in range(len(names))]
    tests = _differences(z, some, domain, len(names), penalty)
    corrected = holm([p for *_, p in tests]) if tests else np.zeros(0)
    settled = np.sign(some.x) * (some.y != 0.5)[:, None]
    signs = np.column_stack([settled * (domain == k)[:, None] for k in range(len(names))])
    sure = flipped(signs, some.clusters, seed=seed).reshape(len(names), -1)
    count = len(names)
    models = {
        POOLED: _model(lambda x, y, d, p: Hierarchy(logistic(x, y), np.zeros((count, x.shape[1])), True)),
        SEPARATE: _model(lambda x, y, d, p: _each(x, y, d, count, penalty)),
        BOTH: _model(lambda x, y, d, p: chosen(x, d, y, p, seed=seed, domains=count, **_TRIED).fit),
    }
    return {
        "by": by,
        "left_out": len(pairs) - len(kept),
        "penalties": {"shared": found.shared, "specific": found.specific},
        "shared": dict(zip(pairs.ids, map(float, found.fit.shared), strict=True)),
        "groups": [
            {
                "name": name,
                "pairs": int((domain == k).sum()),
                "coefficients": dict(zip(pairs.ids, map(float, found.fit.coefficients(k)), strict=True)),
                "specific": dict(zip(pairs.ids, map(float, found.fit.specific[k]), strict=True)),
                "shares": _shares(settled[domain == k], some.clusters[domain == k], sure[k], pairs.ids),
            }
            for k, name in enumerate(names)
        ],
        "differences": [
            {"group": names[k], "feature": pairs.ids[f], "value": value, "low": low, "high": high, "p_holm": float(p)}
            for (k, f, value, low, high, _), p in zip(tests, corrected, strict=True)
        ],
        "held_out": [one.to_dict() for one in held_out(_marked(some, domain), models, seed=seed, base=POOLED)],
        "similarity": _similar(apart),
    }


_TRIED: dict[str, Any] = {"shared": (0.01, 0.05), "specific": (0.02, 0.1, 0.3), "count": 3}


def _marked(pairs: Compared, domain: NDArray[np.int64]) -> Compared:
    """The pairs with their group's number as a name, so that it goes along where some of them are taken."""
    made = pairs.take(np.arange(len(pairs)))
    made.groups["_number"] = [str(k) for k in domain]
    return made


def _model(fit: Callable[[Floats, Floats, Ints, Ints], Hierarchy]) -> Margins:
    def margins(kept: Compared, tested: Compared) -> Floats:
        size = root_mean_square(kept.x)
        size = np.where(size > 0, size, inf)
        number, other = (np.array([int(k) for k in some.groups["_number"]]) for some in (kept, tested))
        made = fit(kept.x / size, kept.y, number, kept.prompt)
        return made.margins(tested.x / size, other)

    return margins


def _each(x: Floats, y: Floats, domain: NDArray[np.int64], count: int, penalty: float) -> Hierarchy:
    own = [logistic(x[domain == k], y[domain == k], penalty=penalty) for k in range(count)]
    return Hierarchy(np.zeros(x.shape[1]), np.stack(own), True)


def _differences(
    z: Floats, pairs: Compared, domain: NDArray[np.int64], count: int, penalty: float
) -> list[tuple[int, int, float, float, float, float]]:
    """(group, feature, difference from the other groups, low, high, p), where the data know it."""
    found = []
    ones = np.ones(2 * z.shape[1])
    for k in range(count):
        own = z * (domain == k)[:, None]
        fit = fitted(np.column_stack([z, own]), pairs.y, prompts=pairs.clusters, penalty=penalty, scale=ones)
        for f in range(z.shape[1]):
            at = z.shape[1] + f
            if (own[:, f] ** 2).sum() / 4 >= CONDITION and isfinite(fit.se[at]):
                values = (float(fit.w[at]), float(fit.low[at]), float(fit.high[at]), float(fit.p[at]))
                found.append((k, f, *values))
    return found


def _shares(signs: Floats, prompts: Ints, sure: Floats, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The share of each feature that differs in a group, the surest first."""
    rows = []
    for k in np.argsort(sure, kind="stable").tolist():
        if signs[:, k].any():
            rows.append({"feature": ids[k], **share(signs[:, k], prompts)[0].to_dict(), "p_adjusted": float(sure[k])})
    return rows


def _similar(weights: Sequence[Floats]) -> list[list[float | None]]:
    def one(a: Floats, b: Floats) -> float | None:
        return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0 else None

    return [[one(a, b) for b in weights] for a in weights]
