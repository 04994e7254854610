"""Preference dissection: what each judge prefers in each scenario, by a Bayesian regression on properties.

The weight of a property says how much log-odds a judge gives to a response for having it; 1 / (1 + exp(-weight)) is the
probability that a response is preferred that is better in this property and alike in all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.judging.explain_fit import logistic
from boresight.paper import paper

Floats = NDArray[np.float64]
CHAINS, WARMUP = 4, 300


@dataclass(frozen=True)
class Dissected:
    """The posterior of a judge's weights in a scenario: mean or mode w (d,), sd (d,), and of how many pairs.

    low, high: (d,) the central 95% of the posterior. rhat: (d,) of the chains where it was sampled (1 where they
    agree), else None.
    """

    w: Floats
    sd: Floats
    low: Floats
    high: Floats
    n: int
    rhat: Floats | None = None

    @property
    def share(self) -> Floats:
        """The probability of being preferred for each property alone, all else alike, (d,)."""
        return np.asarray(1 / (1 + np.exp(-self.w)))


@paper("preference-dissection")
def dissect(
    differences: ArrayLike,
    preferred: ArrayLike | None = None,
    *,
    prior: Literal["normal", "laplace"] = "normal",
    scale: float = 0.1,
    draws: int = 500,
    seed: int = 0,
) -> Dissected:
    """The posterior of w in P(first preferred) = sigmoid(w . d), without intercept.

    differences: (n, d), property of the first response less that of the second; the paper takes 1, 0 and -1.
    preferred: (n,) in [0, 1], 1 for all if not given. prior: "laplace", independent with this `scale`, is the paper's;
    its posterior is drawn by Hamiltonian Monte Carlo (4 chains, `draws` of each kept) and w is its mean. "normal" has
    the same variance, 2 * scale^2: w is the mode, with the normal approximation of the posterior, which takes
    milliseconds. Both keep w finite whatever the data; a property that never differs stays at 0 with the prior's sd.
    Raises InputError if the shapes disagree or the scale is not positive.
    Source: Li et al. 2024, "Dissecting Human and LLM Preferences"; prior and scale from GAIR-NLP/Preference-Dissection,
    visualization/app.py (a Laplace prior of scale 0.1 sampled by NUTS, weights averaged over ten fits on nine tenths
    of the data; here all data are fitted at once).
    """
    if not scale > 0:
        raise InputError(f"scale is {scale}", mend="give a positive number")
    if prior not in ("normal", "laplace"):
        raise InputError(f"prior {prior!r} is unknown", mend="give normal or laplace")
    x = np.asarray(differences, np.float64)
    penalty = 1 / (2 * scale**2)
    mode = logistic(x, preferred, penalty=penalty)
    y = np.ones(len(x)) if preferred is None else np.asarray(preferred, np.float64)
    p = 1 / (1 + np.exp(-x @ mode))
    covariance = np.asarray(np.linalg.inv((x.T * (p * (1 - p))) @ x + penalty * np.eye(len(mode))), np.float64)
    if prior == "normal":
        sd = np.sqrt(np.diag(covariance))
        return Dissected(mode, sd, mode - 1.959964 * sd, mode + 1.959964 * sd, len(x))
    drawn = _sampled(x, y, scale, mode, covariance, draws, seed)
    whole = drawn.reshape(-1, drawn.shape[-1])
    low, high = np.quantile(whole, [0.025, 0.975], axis=0)
    return Dissected(whole.mean(0), whole.std(0, ddof=1), low, high, len(x), _rhat(drawn))


def similarity(first: Mapping[str, Dissected], second: Mapping[str, Dissected]) -> float:
    """How alike two judges are: Pearson's correlation of their weights, averaged over the scenarios both were seen in.

    A scenario in which a judge's weights are all the same says nothing and is left out; nan where none is left.
    """
    found = []
    for scenario in first.keys() & second.keys():
        a, b = first[scenario].w, second[scenario].w
        if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
            found.append(float(np.corrcoef(a, b)[0, 1]))
    return float(np.mean(found)) if found else nan


def pick(properties: ArrayLike, judge: Dissected) -> int:
    """Which of several responses, (m, d) properties, this judge is expected to like best; of equal ones the first."""
    return int(np.argmax(np.asarray(properties, np.float64) @ judge.w))


def _sampled(x: Floats, y: Floats, scale: float, mode: Floats, covariance: Floats, draws: int, seed: int) -> Floats:
    """Draws (CHAINS, draws, d) by Hamiltonian Monte Carlo, in coordinates in which the normal approximation is round.

    The density has kinks at 0; leapfrog steps stay reversible there, so that accepting by the true density is exact.
    """
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(covariance)
    z = x @ root

    def slope(u: Floats) -> tuple[Floats, Floats]:
        """Negative log density (CHAINS,) and its gradient (CHAINS, d) at u, where w = mode + root u."""
        w = mode + u @ root.T
        m = w @ x.T
        value = (y * np.logaddexp(0, -m) + (1 - y) * np.logaddexp(0, m)).sum(-1) + np.abs(w).sum(-1) / scale
        return value, (1 / (1 + np.exp(-m)) - y) @ z + np.sign(w) @ root / scale

    u = rng.normal(size=(CHAINS, len(mode)))
    value, gradient = slope(u)
    size, kept = 0.8 / max(len(mode), 1) ** 0.25, np.empty((CHAINS, draws, len(mode)))
    for k in range(WARMUP + draws):
        momentum = rng.normal(size=u.shape)
        before = value + (momentum**2).sum(-1) / 2
        at, then, pull, step = u, value, gradient, size * rng.uniform(0.7, 1.3)
        for _ in range(max(1, round(1.5 / size))):
            momentum = momentum - step / 2 * pull
            at = at + step * momentum
            then, pull = slope(at)
            momentum = momentum - step / 2 * pull
        taken = np.log(rng.uniform(size=CHAINS)) < before - then - (momentum**2).sum(-1) / 2
        u, gradient = np.where(taken[:, None], at, u), np.where(taken[:, None], pull, gradient)
        value = np.where(taken, then, value)
        if k < WARMUP:
            size *= 1.02 if taken.mean() > 0.8 else 0.97
        else:
            kept[:, k - WARMUP] = mode + u @ root.T
    return kept


def _rhat(drawn: Floats) -> Floats:
    """Gelman and Rubin's, of chains (C, n, d) each cut in half."""
    half = drawn.shape[1] // 2
    parts = np.concatenate([drawn[:, :half], drawn[:, half : 2 * half]])
    within = parts.var(1, ddof=1).mean(0)
    between = half * parts.mean(1).var(0, ddof=1)
    total = (half - 1) / half * within + between / half
    return np.asarray(np.sqrt(np.divide(total, within, out=np.ones_like(within), where=within > 0)))


def spread(scale: float) -> float:
    """The standard deviation of the prior, in logits: sqrt(2) * scale."""
    return sqrt(2) * scale
