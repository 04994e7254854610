"""Rankings of systems from votes: win matrices, scores by several methods, what makes a ranking degenerate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from boresight.errors import InputError
from boresight.judging.ranking_fit import Fit, Floats, Ints, cluster_weights, fit, refit
from boresight.judging.votes import Votes

METHODS = {
    "bradley-terry": "strength in logits; a tie is half a win",
    "elo": "points after one game for each vote, K = 4 from 1000; the mean over orders of the votes",
    "newman": "Bradley-Terry with a parameter of its own for ties (Newman 2023), in logits",
    "pagerank": "where a walk from losers to winners is found, damping 0.85; it grows with how often one is compared",
    "average-win-rate": "the mean over opponents of the share won, a tie half",
    "eigen": "the first eigenvector of wins, a tie half",
}
ELO_ORDERS = 20
"""Orders of the votes that Elo is averaged over: it depends on their order, a ranking should not."""
POINTS = 400 / np.log(10)
"""Points of the Elo scale to a logit: 400 points more mean odds of 10 to 1."""
PRIOR = 1.0
"""Votes against an average system, half won, that each system is given where votes do not bound strengths."""
LEAST_CLUSTERS = 3


@dataclass(frozen=True)
class Shape:
    """What a ranking can be made of. parts: (systems,), numbers of the unconnected parts, the largest 0. levels:
    (systems,), numbers of groups of systems that beat each other in circles, 0 the highest: with more than one in a
    part, strengths of a higher group have no bound. never_lost, never_won: systems without any loss or tie, win or tie.
    """

    parts: Ints
    levels: Ints
    never_lost: Ints
    never_won: Ints

    @property
    def bounded(self) -> bool:
        """Whether the Bradley-Terry fit exists: every system beats every other, if by way of others."""
        return int(self.levels.max()) == 0


def matrices(votes: Votes) -> tuple[Floats, Floats]:
    """Wins of the row's system over the column's, and ties (symmetric), by weight, (systems, systems) each."""
    from evalica import matrices as count

    found = count(*_columns(votes), weights=votes.weight.tolist())
    return found.win_matrix, found.tie_matrix


def _columns(votes: Votes, order: Ints | None = None) -> tuple[list[int], list[int], list[Any], Any]:
    """What evalica takes: numbers of systems, verdicts, and the index of all numbers."""
    import pandas as pd  # type: ignore[import-untyped]
    from evalica import Winner

    words = np.array([Winner.Y, Winner.Draw, Winner.X], dtype=object)
    winners = words[np.round(2 * votes.outcome).astype(int)]
    some = slice(None) if order is None else order
    names = pd.Index(range(len(votes.systems)))
    return votes.first[some].tolist(), votes.second[some].tolist(), winners[some].tolist(), names


def scores(votes: Votes, method: str, seed: int = 0) -> Floats:
    """One score for each system, higher is better; see METHODS. nan where the method gives none.

    Elo knows no weights of votes. Raises InputError for an unknown method.
    """
    import evalica

    from boresight.errors import nearest

    if method not in METHODS:
        raise InputError(f"no ranking method is called {method}", mend=nearest(method, METHODS))
    if method == "elo":
        random = np.random.default_rng(seed)
        orders = [random.permutation(len(votes)) for _ in range(ELO_ORDERS)]
        return np.mean([_values(votes, evalica.elo(*_columns(votes, order))) for order in orders], 0)
    options: dict[str, Any] = {"weights": votes.weight.tolist()}
    if method == "eigen" and _eigen_is_turned():
        votes = replace(votes, outcome=1 - votes.outcome)
    if method != "average-win-rate":
        options |= {"tolerance": 1e-10, "limit": 10_000}
    found = getattr(evalica, method.replace("-", "_"))(*_columns(votes), **options)
    values = _values(votes, found)
    if method in ("bradley-terry", "newman"):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(values)
        values = values - values.mean() if np.isfinite(values).all() else np.full(len(values), np.nan)
    return values


@cache
def _eigen_is_turned() -> bool:
    """evalica 0.4.2 multiplies by the transposed matrix, which puts losers first; looked at, lest that be mended."""
    import evalica

    firsts, seconds = [0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 1]
    found = evalica.eigen(firsts, seconds, [evalica.Winner.X] * 6, weights=[3.0, 3.0, 3.0, 1.0, 1.0, 1.0]).scores
    return bool(found[0] < found[2])


def _values(votes: Votes, found: Any) -> Floats:
    return np.asarray(found.scores.reindex(range(len(votes.systems))), np.float64)


def shape(wins: Floats, ties: Floats) -> Shape:
    """Parts and levels of the graph of who scored against whom; matrices as of `matrices`."""
    from scipy.sparse.csgraph import connected_components

    scored = (wins + ties > 0).astype(np.int8)
    _, parts = connected_components(scored, directed=False)
    sizes = np.bincount(parts)
    parts = np.argsort(np.argsort(-sizes, kind="stable"), kind="stable")[parts]
    count, strong = connected_components(scored, directed=True, connection="strong")
    # Who is beaten by a higher group stands one level below the lowest of those that beat it.
    beats = np.zeros((count, count), bool)
    np.logical_or.at(beats, (strong[:, None].repeat(len(strong), 1), strong[None].repeat(len(strong), 0)), scored > 0)
    np.fill_diagonal(beats, False)
    level = np.zeros(count, np.int64)
    for _ in range(count):
        below = np.where(beats, level[:, None] + 1, 0).max(0, initial=0)
        if (below <= level).all():
            break
        level = np.maximum(level, below)
    against = (wins + ties).T.sum(1)
    own = (wins + ties).sum(1)
    # Unconnected parts have levels of their own, but no level of one bounds the other: they differ as well.
    levels = level[strong] + parts * count
    return Shape(parts.astype(np.int64), levels, np.flatnonzero(against == 0), np.flatnonzero(own == 0))


@dataclass(frozen=True)
class Ranking:
    """Systems of some votes with their Bradley-Terry strengths, in logits of mean 0; rows as in `votes.systems`.

    rounds: (rounds, systems), strengths of bootstrap rounds, nan in one that did not settle; empty where there were too
    few clusters. low, high: 95%
    interval of each strength, infinite where votes give no bound. rank, rank_low, rank_high: place from 1 and its
    interval (of each system by itself). clustered: what the rounds and errors take as independent: prompt, item, vote.
    """

    votes: Votes
    wins: Floats
    ties: Floats
    shape: Shape
    fit: Fit
    rounds: Floats
    low: Floats
    high: Floats
    rank: Ints
    rank_low: Ints
    rank_high: Ints
    prior: float
    clustered: str

    @property
    def reliability(self) -> float:
        """Share of the variance of strengths that is not noise, from 0 to 1; nan where errors are not known.

        1 - mean squared error / variance of the strengths, as for tests (Wright and Masters 1982, separation).
        """
        spread = float(np.var(self.fit.strength, ddof=1)) if len(self.fit.strength) > 1 else 0.0
        noise = float(np.mean(self.fit.error**2))
        return max(0.0, 1 - noise / spread) if spread > 0 else float("nan")


def clusters_of(votes: Votes, by: str = "prompt") -> tuple[Ints, str]:
    """What each vote depends on, (n,), and its name: its prompt; where there are fewer than three its item, or itself.

    Raises InputError for another word than prompt, item and vote.
    """
    from boresight.errors import nearest

    columns = {"prompt": votes.prompt, "item": votes.item, "vote": np.arange(len(votes))}
    if by not in columns:
        raise InputError(f"votes cannot be clustered by {by}", mend=nearest(by, columns))
    names = list(columns)
    for name in names[names.index(by) :]:
        if len(np.unique(columns[name])) >= LEAST_CLUSTERS:
            break
    return columns[name], name


def ranking(
    votes: Votes, *, rounds: int = 1000, by: str = "prompt", seed: int = 0, weights: Floats | None = None
) -> Ranking:
    """Fit strengths and their intervals by a bootstrap over clusters, `rounds` of it.

    weights: (rounds, clusters) of the bootstrap, to share them with another ranking: a column for each number in
    `votes.prompt`. Where the votes leave strengths without a bound (unconnected systems, a system that never lost or
    never won, groups that always beat others), each system is given PRIOR votes against an average one.
    Raises InputError without votes, or with fewer than two systems.
    """
    if not len(votes) or not votes.ranked or len(votes.systems) < 2:
        what = f"{votes.name}: {len(votes)} votes on {len(votes.systems) if votes.ranked else 0} systems"
        raise InputError(f"{what}: nothing to rank", mend="give votes between two named systems or more")
    wins, ties = matrices(votes)
    found = shape(wins, ties)
    prior = 0.0 if found.bounded else PRIOR
    clusters, clustered = clusters_of(votes, by)
    size = len(votes.systems)
    fitted = fit(
        votes.first, votes.second, votes.outcome, size, weight=votes.weight, clusters=clusters, prior=prior
    )  # fmt: skip
    drawn = np.empty((0, size))
    if weights is not None and clustered != "prompt":
        rounds, weights = len(weights), None
    if weights is None and rounds:
        clusters = np.unique(clusters, return_inverse=True)[1]
        count = int(clusters.max()) + 1
        weights = cluster_weights(count, rounds, seed) if count >= LEAST_CLUSTERS else None
    if weights is not None:
        drawn = refit(
            votes.first, votes.second, votes.outcome, size, clusters, weights, fitted.strength,
            weight=votes.weight, prior=prior,
        )  # fmt: skip
    settled = drawn[np.isfinite(drawn).all(1)]
    low, high = _interval(fitted, settled)
    high[found.never_lost], low[found.never_won] = np.inf, -np.inf
    rank = 1 + (fitted.strength[None] > fitted.strength[:, None] + 1e-9).sum(1)
    rank_low, rank_high = rank_intervals(fitted.strength, settled)
    return Ranking(
        votes, wins, ties, found, fitted, drawn, low, high, rank, rank_low, rank_high, prior, clustered
    )  # fmt: skip


def _interval(fitted: Fit, drawn: Floats) -> tuple[Floats, Floats]:
    """Strength -+ t times the bootstrap's standard error, or without rounds the sandwich's."""
    error = drawn.std(0, ddof=1) if len(drawn) > 1 else fitted.error
    half = np.where(np.isfinite(error), error * fitted.half(), np.inf)
    return fitted.strength - half, fitted.strength + half


def rank_intervals(strength: Floats, drawn: Floats, confidence: float = 0.95) -> tuple[Ints, Ints]:
    """The best and the worst rank that each system may have, (systems,) each, for each by itself.

    A system is surely below as many others as differ from it by more than the largest studentised difference, over
    all others, of `confidence` of the rounds (Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks").
    drawn: (rounds, systems); without rounds every rank is possible.
    """
    size = len(strength)
    if len(drawn) < 2:
        return np.ones(size, np.int64), np.full(size, size, np.int64)
    best, worst = np.empty(size, np.int64), np.empty(size, np.int64)
    for k in range(size):
        away = np.delete(drawn - drawn[:, k : k + 1], k, 1)
        real = np.delete(strength - strength[k], k)
        error = np.maximum(away.std(0, ddof=1), 1e-12)
        reach = np.quantile(np.abs(away - real).__truediv__(error).max(1), confidence)
        best[k] = 1 + int((real > reach * error).sum())
        worst[k] = size - int((real < -reach * error).sum())
    return best, worst
