"""Rewards made of rewards: sums, minima, log-sigmoids, constraints, ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from boresight.paper import paper
from boresight.rewards.base import Content, Reward, Values


class _Combined(Reward):
    def __init__(self, parts: Sequence[Reward]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError("a combination needs at least one reward")

    def each(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """The attributes of all parts, (N, attributes of all)."""
        found = [part.score(prompts, responses) for part in self.parts]
        return np.concatenate([v[:, None] if v.ndim == 1 else v for v in found], 1)


class Sum(_Combined):
    """The weighted sum of all attributes of the parts. weights: one for each attribute; 1 by default."""

    def __init__(self, parts: Sequence[Reward], weights: Sequence[float] | None = None) -> None:
        super().__init__(parts)
        self.weights = None if weights is None else tuple(float(w) for w in weights)

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,). Raises ValueError if there are not as many weights as attributes."""
        values = self.each(prompts, responses)
        weights = np.ones(values.shape[1]) if self.weights is None else np.asarray(self.weights)
        if len(weights) != values.shape[1]:
            raise ValueError(f"{len(weights)} weights for {values.shape[1]} attributes")
        total: Values = values @ weights
        return total


class Minimum(_Combined):
    """The least of all attributes: as good as what is worst about a response."""

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,)."""
        least: Values = self.each(prompts, responses).min(1)
        return least


@paper("lsc-reward-transform")
class LogSigmoid(_Combined):
    """Sum over attributes of log sigmoid(r - r_ref): the log-probability of being good in all of them at once.

    Under Bradley-Terry sigmoid(r - r_ref) is the probability of beating a response of reward r_ref. What is good
    already gains little by more of it, so that improvement goes to what is poor.
    centre: r_ref of each attribute, as numbers for all prompts, or a function of prompts that gives (N, attributes);
    `quantiles` finds it from samples of the reference policy.
    Source: Wang et al. 2024, Transforming and combining rewards for aligning large language models, eqs. 1 and 2.
    """

    def __init__(
        self, parts: Sequence[Reward], centre: Sequence[float] | Callable[[Sequence[Content]], Values] = (0.0,)
    ) -> None:
        super().__init__(parts)
        self.centre = centre if callable(centre) else np.asarray(centre, float)

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,), at most 0."""
        values = self.each(prompts, responses)
        centre = self.centre(prompts) if callable(self.centre) else self.centre
        total: Values = -np.logaddexp(0, np.asarray(centre) - values).sum(1)
        return total


def quantiles(samples: Values, share: float = 0.85) -> Values:
    """The reference value of each prompt: the `share` quantile of the rewards of the reference policy's samples.

    samples: (prompts, samples) or (prompts, samples, attributes). Returns (prompts,) or (prompts, attributes).
    Raises ValueError if share lies outside [0, 1]. Source: as `LogSigmoid`, section 3 (.85 is theirs).
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must lie in [0, 1]")
    found: Values = np.quantile(np.asarray(samples, float), share, axis=1)
    return found


class Constrained(Reward):
    """A reward, less `penalty` for each unit by which another one falls below `least`.

    With penalty inf: -inf wherever the constraint is broken, so that best-of-n takes only what keeps it.
    """

    def __init__(self, reward: Reward, constraint: Reward, least: float, penalty: float = float("inf")) -> None:
        if not penalty >= 0:
            raise ValueError(f"penalty={penalty} must be 0 or more")
        self.parts, self.least, self.penalty = (reward, constraint), least, penalty

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,)."""
        value, other = (part.score(prompts, responses) for part in self.parts)
        short = np.maximum(self.least - other, 0)
        lost = np.where(short > 0, self.penalty * np.where(short > 0, short, 1), 0)  # inf * 0 is no number
        found: Values = value - lost
        return found


class Ensemble(_Combined):
    """Several rewards of one thing: their mean, less `caution` standard deviations; or with inf, the least of them.

    Source of the cautious forms: Coste et al. 2023, Reward model ensembles help mitigate overoptimization (worst-case
    and uncertainty-weighted optimisation; theirs takes the variance off, here it is the standard deviation, so that
    `caution` has no unit).
    """

    def __init__(self, parts: Sequence[Reward], caution: float = 0.0) -> None:
        super().__init__(parts)
        if not caution >= 0:
            raise ValueError(f"caution={caution} must be 0 or more")
        self.caution = caution

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,)."""
        values = self.each(prompts, responses)
        if np.isinf(self.caution):
            least: Values = values.min(1)
            return least
        found: Values = values.mean(1) - self.caution * self._spread(values)
        return found

    def uncertainty(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """The standard deviation over the parts, (N,); 0 for one part."""
        return self._spread(self.each(prompts, responses))

    @staticmethod
    def _spread(values: Values) -> Values:
        spread: Values = values.std(1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
        return spread
