"""Factors behind preferences: as players that beat each other (DecipherPref), and by order alone (PROFILE).

A factor is anything that a response has or has not, or has more or less of.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.judging.explain_fit import logistic
from boresight.paper import paper
from boresight.stats import Interval, mean

Floats = NDArray[np.float64]
Ties = Literal["a", "b", "gamma"]


@dataclass(frozen=True)
class Strengths:
    """Bradley-Terry-Luce strengths of K players.

    value: (K,) in logits, of mean 0. se: (K,) standard errors, clustered on comparisons of responses. wins: (K, K), how
    often the first beat the second. part: (K,) number of the component that a player belongs to: only within one can
    strengths be compared, as between two there was no comparison; -1 for a player without any. unbeaten: (K,) +1 where
    a player won all its comparisons, -1 where it lost all, and only the prior keeps its strength finite; else 0.
    """

    value: Floats
    se: Floats
    wins: Floats
    part: NDArray[np.int64]
    unbeaten: NDArray[np.int64]

    @property
    def order(self) -> NDArray[np.int64]:
        """Players, the strongest first; of equal ones the earlier."""
        return np.argsort(-self.value, kind="stable")

    def beats(self, i: int, j: int) -> float:
        """The probability that player i beats player j."""
        return float(1 / (1 + np.exp(self.value[j] - self.value[i])))


@paper("decipherpref")
def decipherpref(chosen: ArrayLike, rejected: ArrayLike, *, penalty: float = 0.1) -> Strengths:
    """Strengths of factors: each that only the winner has beats each that only the loser has.

    chosen, rejected: (n, K), whether the preferred and the other response of each pair have each factor. A factor that
    both or neither has takes no part in that pair. penalty: 1 / variance of a normal prior on the strengths (standard
    deviation 3.2 logits), which decides where data do not, such as of a factor that always wins. As the penalty goes
    to 0 the strengths become those of maximum likelihood, which MM updates find.
    Raises InputError if the shapes disagree.
    Source: Hu et al. 2023 (DecipherPref), P(i beats j) = exp(b_i) / (exp(b_i) + exp(b_j)). How the paper makes wins of
    factors from wins of outputs was not found; the rule above is the catalogue's.
    """
    won, lost = np.asarray(chosen, bool), np.asarray(rejected, bool)
    if won.ndim != 2 or won.shape != lost.shape:
        raise InputError(f"factors have shapes {won.shape} and {lost.shape}", mend="give (pairs, factors) twice")
    return strengths(won & ~lost, lost & ~won, penalty=penalty)


def strengths(winners: ArrayLike, losers: ArrayLike, *, penalty: float = 0.1) -> Strengths:
    """Bradley-Terry-Luce where in each comparison each of `winners` beats each of `losers`; (n, K) bool each."""
    a, b = np.asarray(winners, np.float64), np.asarray(losers, np.float64)
    wins, count = a.T @ b, a.shape[1]
    first, second = np.nonzero(wins)
    rows = np.zeros((len(first), count))
    rows[np.arange(len(first)), first], rows[np.arange(len(first)), second] = 1.0, -1.0
    value = logistic(rows, None, wins[first, second], penalty=penalty)
    p = 1 / (1 + np.exp(value[None, :] - value[:, None]))  # that the first beats the second
    surprise = 1 - p
    scores = a * (b @ surprise.T) - b * (a @ surprise)
    games = wins + wins.T
    curve = -games * p * surprise
    np.fill_diagonal(curve, 0.0)
    curve = curve - np.diag(curve.sum(1)) + penalty * np.eye(count)
    part = _parts(games)
    # A component's mean is decided by the prior alone, and no score has to do with it: keep it out of the inverse.
    inverse = np.linalg.inv(curve + (part[:, None] == part) * (part >= 0))
    se = np.sqrt(np.diag(inverse @ (scores.T @ scores) @ inverse).clip(0))
    won, lost = wins.sum(1), wins.sum(0)
    unbeaten = np.where((won > 0) & (lost == 0), 1, np.where((lost > 0) & (won == 0), -1, 0))
    return Strengths(value, se, wins, part, unbeaten)


@paper("profile")
def profile(differences: ArrayLike, preferred: ArrayLike | None = None, *, ties: Ties = "b") -> Floats:
    """Factor scores, (K,) in [-1, 1]: how far the order of a factor goes with the order of preference.

    differences: (n, K), the factor of the first response less that of the second; its sign alone counts. preferred:
    (n,) 1 where the first is preferred, 0 the second, 0.5 for a tie; 1 for all if not given. A pair is concordant (C)
    where both have the same sign, discordant (D) where opposite. ties: "a" (C - D) / n, a tie in either counting as
    nothing; "b" Kendall's (C - D) / sqrt((C + D + F) (C + D + P)), F pairs tied in the factor alone, P in the
    preference alone; "gamma" (C - D) / (C + D), ties left out. A factor of which nothing can be said scores nan.
    Raises InputError if the shapes disagree.
    Source: Oh et al. 2024 (PROFILE), a Kendall's tau for each factor. How the paper treats ties was not found.
    """
    x = np.sign(np.asarray(differences, np.float64))
    if x.ndim != 2:
        raise InputError(f"differences have shape {x.shape}", mend="give them as (pairs, factors)")
    y = np.ones(len(x)) if preferred is None else np.sign(np.asarray(preferred, np.float64) - 0.5)
    if y.shape != x.shape[:1]:
        raise InputError(f"{len(x)} pairs but {len(y)} preferences", mend="give one for each pair")
    if ties not in ("a", "b", "gamma"):
        raise InputError(f"ties {ties!r} is unknown", mend="give a, b or gamma")
    agree = (x * y[:, None]).sum(0)
    decided = (x != 0) & (y != 0)[:, None]
    both = decided.sum(0).astype(np.float64)
    if ties == "a":
        below = np.full(x.shape[1], float(len(x)))
    elif ties == "gamma":
        below = both
    else:
        only_factor = ((x == 0) & (y != 0)[:, None]).sum(0)
        only_preference = ((x != 0) & (y == 0)[:, None]).sum(0)
        below = np.sqrt((both + only_factor) * (both + only_preference))
    return np.divide(agree, below, out=np.full(x.shape[1], nan), where=below > 0)


def profile_interval(
    differences: ArrayLike, preferred: ArrayLike | None = None, prompts: ArrayLike | None = None
) -> list[Interval]:
    """The scores of `profile` with ties "a" and their 95% intervals, clustered on prompts where these are given."""
    x = np.sign(np.asarray(differences, np.float64))
    y = np.ones(len(x)) if preferred is None else np.sign(np.asarray(preferred, np.float64) - 0.5)
    codes = None if prompts is None else np.asarray(prompts)
    return [mean(column * y, codes) for column in x.T]


def generated(factors: ArrayLike, worth: ArrayLike, prompts: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Differences and preferences for `profile` from what a model generates: outputs that it means to be better.

    factors: (m, K) of each output. worth: (m,) the quality asked for, or the model's own log-prob; higher is better.
    prompts: (m,), so that only outputs to one prompt are compared. Every couple once, in the order given.
    """
    x, value = np.asarray(factors, np.float64), np.asarray(worth, np.float64)
    codes = np.zeros(len(x), np.int64) if prompts is None else np.asarray(prompts)
    first, second = np.triu_indices(len(x), 1)
    same = codes[first] == codes[second]
    first, second = first[same], second[same]
    return x[first] - x[second], (np.sign(value[first] - value[second]) + 1) / 2


def agreement(
    human: ArrayLike, model: ArrayLike, *, by: Literal["kendall", "pearson", "spearman"] = "kendall"
) -> float:
    """How alike two vectors of factor scores are, in [-1, 1]; nan where fewer than two factors are known of both.

    The gap between a human and a model is 1 less this. Source: Oh et al. 2024 compare rankings of factors.
    """
    from scipy.stats import kendalltau, pearsonr, spearmanr

    a, b = np.asarray(human, np.float64), np.asarray(model, np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return nan
    return float({"kendall": kendalltau, "pearson": pearsonr, "spearman": spearmanr}[by](a, b).statistic)


def _parts(games: Floats) -> NDArray[np.int64]:
    from scipy.sparse.csgraph import connected_components

    part = connected_components(games > 0, directed=False)[1].astype(np.int64)
    return np.where(games.sum(1) > 0, part, -1)
