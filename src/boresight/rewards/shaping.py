"""Designed rewards for tabular decision processes: potentials, and a sparse reward that a teacher gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boresight.errors import InputError
from boresight.paper import paper

Table = NDArray[np.float64]
TIE = 1e-8
"""Actions whose values differ by no more than this share of the largest are equally good."""
MISSED = 1e4
"""What a unit of a broken constraint costs while states are searched for."""


@dataclass(frozen=True)
class Process:
    """A decision process.

    move: (states, actions, states), probabilities; reward: (states, actions); discount: from 0 to below 1. An end is a
    state that stays where it is without reward. Raises InputError for what is none.
    """

    move: Table
    reward: Table
    discount: float

    def __post_init__(self) -> None:
        states, actions = self.reward.shape
        if self.move.shape != (states, actions, states) or not np.isfinite(self.reward).all():
            raise InputError(
                f"move has shape {self.move.shape} and reward {self.reward.shape}",
                mend="give (states, actions, states) and (states, actions), finite",
            )
        if (self.move < 0).any() or not np.allclose(self.move.sum(2), 1):
            raise InputError("move holds no probabilities", mend="let move[s, a] sum to 1, without negative numbers")
        if not 0 <= self.discount < 1:
            raise InputError(f"discount={self.discount}", mend="give a number from 0 to below 1")


def value_iteration(process: Process, tolerance: float = 1e-12) -> tuple[Table, Table]:
    """V* (states,) and Q* (states, actions), up to tolerance * the largest reward."""
    values = np.zeros(len(process.reward))
    limit = tolerance * max(1.0, float(np.abs(process.reward).max(initial=0)))
    while True:
        action_values = process.reward + process.discount * process.move @ values
        new = action_values.max(1)
        moved = float(np.abs(new - values).max())
        values = new
        # The distance to V* is at most this, by contraction.
        if moved * process.discount <= limit * (1 - process.discount):
            return values, process.reward + process.discount * process.move @ values


def optimal(process: Process) -> NDArray[np.bool_]:
    """Which actions are optimal, (states, actions); several where values tie."""
    best = value_iteration(process)[1]
    return best >= best.max(1, keepdims=True) - TIE * max(1.0, float(np.abs(best).max()))


def potential_shaping(process: Process, potential: ArrayLike | None = None) -> Process:
    """The process with R'(s, a) = R(s, a) + discount * E[potential(s')] - potential(s); V* by default.

    Whatever the potential, Q' = Q - potential(s), so that what is optimal stays so. With V* an action's reward is its
    advantage: at once 0 for the optimal ones and below 0 for the others.
    Source: Ng et al. 1999, Policy invariance under reward transformations, theorem 1.
    """
    given = value_iteration(process)[0] if potential is None else np.asarray(potential, float)
    return replace(process, reward=process.reward + process.discount * process.move @ given - given[:, None])


def horizon_values(process: Process, policy: Table, horizon: int | None) -> Table:
    """The linear map from rewards to the policy's values after `horizon` steps (None: all), flat (s a, s a).

    policy: (states, actions), probabilities. Q_h = sum over t < h of (discount * P)^t R.
    """
    states, actions = process.reward.shape
    step = process.discount * np.einsum("sat,tb->satb", process.move, policy).reshape(states * actions, -1)
    identity = np.eye(states * actions)
    if horizon is None:
        whole: Table = np.linalg.inv(identity - step)
        return whole
    total = np.zeros_like(identity)
    for _ in range(horizon):
        total = identity + step @ total
    return total


@dataclass(frozen=True)
class Designed:
    """reward: (states, actions), nonzero only at `states`; informativeness: what it has of what was maximised."""

    reward: Table
    states: tuple[int, ...]
    informativeness: float


@paper("reward-design-rl")
def design(
    process: Process,
    most: int,
    *,
    horizons: Sequence[int] = (1, 2, 4, 8),
    cap: float = 0.1,
    margin: float = 1e-2,
    bound: float = 1.0,
    weights: Table | None = None,
    exact: int = 500,
) -> Designed:
    """A reward that is nonzero on at most `most` states, keeps what is optimal, and tells soon what is not.

    Maximises the sum over states, worse actions a and horizons h of weight(s, a) * min(cap, gap_h(s, a)), gap_h being
    Q_h(s, optimal) - Q_h(s, a) of the optimal policy over the next h steps under the new reward; subject to: actions
    that are optimal stay equally good over all steps, the others stay worse by `margin` at least, and no reward is
    larger than `bound`. For given states that is a linear programme, solved exactly; states are found by trying all
    sets where there are at most `exact` of them, else greedily, one after another.
    weights: (states, actions), 1 each by default; `toward` makes them of a learner's policy, which adapts the reward.
    Source: Devidze, Reward design for reinforcement learning agents (thesis), explicable reward design. The exact
    programme was not found: the hinge at `cap`, the margin and equal weights are chosen here.
    Raises InputError if no such reward exists, or for unusable options.
    """
    states = len(process.reward)
    if not 1 <= most <= states or not horizons or min(horizons) < 1 or not (cap > 0 and bound > 0 and margin > 0):
        raise InputError(
            f"most={most}, horizons={list(horizons)}, cap={cap}, margin={margin}, bound={bound}",
            mend=f"most from 1 to {states}, horizons of at least 1, the others above 0",
        )
    solve = _Programme(process, horizons, cap, margin, bound, weights)
    if comb(states, most) <= exact:
        best = max((solve(chosen) for chosen in combinations(range(states), most)), key=lambda d: d.informativeness)
    else:
        best = solve(())
        for _ in range(most):
            more = (solve((*best.states, s)) for s in range(states) if s not in best.states)
            best = max(more, key=lambda d: d.informativeness)
    if solve.short(best.reward) > 1e-6:
        raise InputError(
            f"no reward on {most} states, at most {bound}, keeps the optimal policy by a margin of {margin}"
            + ("" if comb(states, most) <= exact else ", or greedy search finds none"),
            mend="allow more states, or a smaller margin",
        )
    return best


class _Programme:
    """The linear programme of `design` for any set of states."""

    def __init__(
        self, process: Process, horizons: Sequence[int], cap: float, margin: float, bound: float, weights: Table | None
    ) -> None:
        self.shape, self.cap, self.margin, self.bound = process.reward.shape, cap, margin, bound
        good = optimal(process)
        policy = good / good.sum(1, keepdims=True)
        best = np.repeat(policy, self.shape[1], 0)  # for each (s, a) the mix of optimal actions at s

        def gaps(horizon: int | None) -> Table:
            values = horizon_values(process, policy, horizon)
            by_state = values.reshape(*self.shape, -1)
            found: Table = np.einsum("ka,kaz->kz", best, np.repeat(by_state, self.shape[1], 0)) - values
            return found

        worse, whole = ~good.reshape(-1), gaps(None)
        self.worse, self.ties = whole[worse], whole[~worse]
        self.told = np.concatenate([gaps(h)[worse] for h in horizons])
        given = np.ones(self.shape) if weights is None else np.asarray(weights, float)
        if given.shape != self.shape or not (np.isfinite(given).all() and (given >= 0).all()):
            raise InputError(f"weights have shape {given.shape}", mend=f"give {self.shape}, not negative")
        self.weights = np.tile(given.reshape(-1)[worse], len(horizons))

    def short(self, reward: Table) -> float:
        """By how much the constraints are missed, in sum."""
        flat = reward.reshape(-1)
        return float(np.maximum(self.margin - self.worse @ flat, 0).sum() + np.abs(self.ties @ flat).sum())

    def __call__(self, chosen: Sequence[int]) -> Designed:
        """The best reward on these states; what it misses of the constraints is taken off at a high price."""
        from scipy.optimize import linprog

        actions = self.shape[1]
        places = np.array([s * actions + a for s in chosen for a in range(actions)], int)
        count, told, worse, ties = len(places), len(self.told), len(self.worse), len(self.ties)
        # Variables: rewards, hinged gaps, what is missed of the margins, and of the ties in either direction.
        columns = count + told + worse + 2 * ties
        above, equal = np.zeros((told + worse, columns)), np.zeros((ties, columns))
        above[:told, :count], above[:told, count : count + told] = -self.told[:, places], np.eye(told)
        above[told:, :count] = -self.worse[:, places]
        above[told:, count + told : count + told + worse] = -np.eye(worse)
        equal[:, :count] = self.ties[:, places]
        equal[:, -2 * ties : columns - ties], equal[:, columns - ties :] = np.eye(ties), -np.eye(ties)
        cost = np.concatenate([np.zeros(count), -self.weights, np.full(worse + 2 * ties, MISSED)])
        limits = [(-self.bound, self.bound)] * count + [(None, self.cap)] * told + [(0, None)] * (worse + 2 * ties)
        right = np.concatenate([np.zeros(told), np.full(worse, -self.margin)])
        found = linprog(cost, above, right, equal, np.zeros(ties), limits, method="highs")
        reward = np.zeros(self.shape[0] * actions)
        reward[places] = found.x[:count]
        return Designed(reward.reshape(self.shape), tuple(chosen), float(-found.fun))


def toward(process: Process, policy: ArrayLike, start: ArrayLike) -> Table:
    """Weights of what a learner does now: how often it is at s and takes a, (states, actions), summing to 1.

    policy: (states, actions), the learner's probabilities; start: (states,), where it begins. Solving `design` again
    with these as training goes on adapts the reward to the learner.
    """
    chances, first = np.asarray(policy, float), np.asarray(start, float)
    step = np.einsum("sa,sat->st", chances, process.move)
    visits = (1 - process.discount) * np.linalg.solve(np.eye(len(first)) - process.discount * step.T, first)
    weights: Table = visits[:, None] * chances
    return weights
