"""Preferences that go round in a circle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from boresight.data.checks._base import Check, Finding, Kind
from boresight.data.checks._columns import Ints, Votes, numbered


class Cycles(Check):
    """A over B, B over C, C over A: no reward agrees with all of them."""

    kinds = (
        Kind(
            "preference-cycles",
            "warning",
            "prompts whose preferences go round in a circle",
            "no reward can agree with all these pairs: a Bradley-Terry model learns their average",
            "look at the prompts; ask for more votes, or use a method made for general preferences",
            "prompts",
        ),
    )

    def findings(self) -> Iterator[Finding]:
        """Prompts, each once, by the majority of the votes on each two responses."""
        votes = self.setting.columns.decided
        if len(votes) < 3:
            return
        circling = in_cycle(votes)
        if circling.any():
            prompts, count = numbered(votes.prompt[circling])
            rows, of = votes.row[circling], len(np.unique(votes.prompt))
            one = np.unique(rows[prompts == 0])  # one circle tells more than the beginnings of three
            yield self.found("preference-cycles", count, of, rows, show=one)


def in_cycle(votes: Votes) -> Ints:
    """Which votes lie in a circle of three or more, (votes,) bool.

    Votes on the same two responses are summed and even ones left out, so that two responses alone make no circle. A
    strongly connected part of what is left that has more than one response then holds a circle.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    items, count = numbered(votes.item)
    balance = np.bincount(items, np.where(votes.up, 1, -1), count)
    leading = np.where(votes.up, 1, -1) * np.sign(balance)[items] > 0
    nodes, total = numbered(np.concatenate([votes.better, votes.worse]))
    better, worse = nodes[: len(votes)], nodes[len(votes) :]
    kept = leading & (better != worse)
    graph = coo_matrix((np.ones(kept.sum()), (better[kept], worse[kept])), shape=(total, total))
    part = connected_components(graph, directed=True, connection="strong")[1]
    return kept & (part[better] == part[worse])
