"""Batches of lists: several responses to each prompt, graded or not."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.objectives._given import Carrying, Given
from boresight.objectives._logprobs import LogProbs


class ListLogProbs(Carrying[LogProbs]):
    """A batch of `count` lists of responses to one prompt each.

    policy, reference: log-probs of all responses, list after list. list_of: (responses,) int64, ascending, the list
    that each belongs to. grades: (responses,), higher is better. Raises ValueError if the shapes disagree.
    """

    def __init__(
        self,
        policy: LogProbs,
        reference: LogProbs | None = None,
        *,
        list_of: Tensor,
        count: int,
        grades: Tensor | None = None,
        given: Given | None = None,
    ) -> None:
        if reference is not None and reference.count != policy.count:
            raise ValueError(f"{policy.count} responses of the policy, {reference.count} of the reference")
        for name, known in (("list_of", list_of), ("grades", grades)):
            if known is not None and known.shape != (policy.count,):
                raise ValueError(f"{name} must have shape ({policy.count},), not {tuple(known.shape)}")
        self.policy = policy
        self._reference = reference
        self.list_of = list_of
        self.count = count
        self._grades = grades
        self.given = given or Given()

    def __len__(self) -> int:
        return self.count

    @property
    def has_grades(self) -> bool:
        """Whether the responses are graded."""
        return self._grades is not None

    @property
    def grades(self) -> Tensor:
        """(responses,), higher is better. Raises ValueError if the responses are not graded."""
        if self._grades is None:
            raise ValueError("this objective needs graded responses, and the batch has none")
        return self._grades

    def gains(self) -> Tensor:
        """log policy - log reference, summed over tokens, (responses,)."""
        return self.policy.sum() - self.reference.sum()

    def sizes(self) -> Tensor:
        """Number of responses of each list, (lists,), int64."""
        return self.list_of.new_zeros(self.count).index_add(0, self.list_of, torch.ones_like(self.list_of))

    def sum(self, values: Tensor) -> Tensor:
        """Sum of (responses,) values over each list, (lists,)."""
        return values.new_zeros(self.count).index_add(0, self.list_of, values)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over each list, (lists,); 0 for a list without responses."""
        return self.sum(values) / self.sizes().clamp(min=1)

    def max(self, values: Tensor) -> Tensor:
        """Largest of each list, (lists,); -inf for a list without responses."""
        return values.new_full((self.count,), -torch.inf).scatter_reduce(0, self.list_of, values, "amax")

    def min(self, values: Tensor) -> Tensor:
        """Smallest of each list, (lists,); inf for a list without responses."""
        return -self.max(-values)

    def logsumexp(self, values: Tensor) -> Tensor:
        """log of the sum of exp(values) over each list, (lists,); -inf for a list without responses."""
        top = self.max(values).detach()
        top = torch.where(top.isfinite(), top, torch.zeros_like(top))
        return self.sum((values - top[self.list_of]).exp()).log() + top

    def log_softmax(self, values: Tensor) -> Tensor:
        """Log-softmax within each list, (responses,)."""
        return values - self.logsumexp(values)[self.list_of]

    def rank(self, values: Tensor) -> Tensor:
        """Place of each response in its list when sorted by falling `values`, from 1, (responses,) int64.

        Equal values keep their order.
        """
        order = torch.argsort(values, descending=True, stable=True)
        order = order[torch.argsort(self.list_of[order], stable=True)]
        sizes = self.sizes()
        starts = sizes.cumsum(0) - sizes
        places = torch.empty_like(self.list_of)
        places[order] = torch.arange(len(order), device=places.device) - starts[self.list_of[order]] + 1
        return places

    def couples(self) -> tuple[Tensor, Tensor]:
        """All ordered couples of different responses of a list: places of first and second, (couples,) int64 each."""
        sizes = self.sizes()[self.list_of]
        first = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        starts = (self.sizes().cumsum(0) - self.sizes())[self.list_of]
        ends = sizes.cumsum(0)
        second = torch.arange(len(first), device=sizes.device) - (ends - sizes)[first] + starts[first]
        different = first != second
        return first[different], second[different]

    def better(self) -> tuple[Tensor, Tensor]:
        """The couples whose first has the higher grade: places of the better and the worse, (couples,) int64 each."""
        first, second = self.couples()
        above = self.grades[first] > self.grades[second]
        return first[above], second[above]

    def best(self) -> Tensor:
        """(responses,) bool: the first of the highest grade in its list."""
        return self.rank(self.grades) == 1
