"""What policies and batches ask of an exact world, and where a response's tokens stand in its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from boresight.lab.drawn import Pairs
from boresight.lab.grid import Rows

TIE = 1e-12
"""Margins of log-probs, in nats, that are equal but for rounding."""


@dataclass(frozen=True)
class Cells:
    """The tokens of a grid (seeds, n, K) of responses and where they stand in a world's tables, all (tokens,) int64.

    context: seed, prompt, and what else a distribution depends on. action: what it is a distribution of. row, column,
    position: place in the grid and in the response. share: tokens among which the cell is spread, or None. count:
    seeds * n * K.
    """

    context: tuple[Tensor, ...]
    action: Tensor
    owner: Tensor
    row: Tensor
    column: Tensor
    position: Tensor
    count: int
    share: Tensor | None = None

    def of(self, table: Tensor) -> Tensor:
        """A table (*contexts, actions) at these cells, (tokens,)."""
        return self._spread(table[(*self.context, self.action)])

    def there(self, table: Tensor) -> Tensor:
        """A table (*contexts) at these cells, (tokens,)."""
        return self._spread(table[self.context])

    def _spread(self, values: Tensor) -> Tensor:
        return values if self.share is None else values / self.share


class World(Protocol):
    """What a policy asks of its world."""

    @property
    def reference(self) -> Tensor:
        """Log-probs, (*contexts, actions)."""

    @property
    def embedding(self) -> Tensor:
        """(prompts, width)."""

    @property
    def longest(self) -> int:
        """Most tokens of a response."""

    def expected_reward(self, logits: Tensor, name: str = "score") -> Tensor:
        """Exact, mean over prompts, (seeds,)."""

    def kl(self, logits: Tensor) -> Tensor:
        """Exact KL(policy || reference) in nats, mean over prompts, (seeds,)."""

    def accuracy(
        self, logits: Tensor, pairs: Pairs | None = None, *, ratio: bool = True, name: str = "score"
    ) -> Tensor:
        """How often the policy orders two responses as the true reward does, (seeds,)."""

    def cells(self, prompt: Tensor, response: Tensor) -> Cells:
        """Where the tokens of a grid (seeds, n, K) of responses stand."""

    def score(self, name: str, prompt: Tensor, response: Tensor) -> Tensor:
        """Scores of that name, in the shape of `prompt`."""

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of all its scores; the true reward is "score"."""

    def steps(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The step of each token and that step's score, (seeds, n, K, longest) each."""

    def differences(self, rows: Rows) -> Tensor:
        """Whether each token of a pair differs from the other response, (seeds, n, 2, longest) bool."""

    def sample(self, table: Tensor, prompt: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """Responses drawn from one seed's table of logits, prompt: (n,). Shape (n, count)."""


@dataclass(frozen=True)
class Moment:
    """What a batch knows of the training around it.

    memo: what was made of the same data at an earlier step and does not depend on the policy, by name.
    """

    progress: float | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    heads: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)


def ordered_share(margin: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted share of margins with the sign of the truth, where that is not 0; a tie counts half.

    (seeds, couples) each; (seeds,).
    """
    weight = weight * (truth != 0)
    tie = margin.abs() <= TIE
    right = ((margin * truth > 0) & ~tie) + 0.5 * tie
    return (right * weight).sum(1) / weight.sum(1)
