"""Data of the exact worlds: pairs, lists and labelled responses, for many seeds at once.

A response is a whole number: its column in a tabular world, its code in the token world. Whatever else is known of an
example goes into `extra`, by the name under which an objective finds it: scores (seeds, n, K) or (seeds, n, K, tokens)
for what is known of each token, `samples` (seeds, n, how many); K is 2 for pairs (chosen, rejected), 1 for responses.
What is in `extra` is used in the place of what the world itself knows:

    noisy = pairs.scored("score", chosen=world.reward_of(...) + noise, rejected=...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.grid import Drawn, Rows, generator


@dataclass(frozen=True)
class Pairs(Drawn):
    """Preference pairs of each seed: prompt, chosen, rejected (int64), flipped (bool), weight; all (seeds, pairs).

    rejected_prompt: the rejected response's own prompt, where it is another. seeds: their numbers.
    """

    prompt: Tensor
    chosen: Tensor
    rejected: Tensor
    flipped: Tensor
    weight: Tensor
    rejected_prompt: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        prompt: Tensor,
        chosen: Tensor,
        rejected: Tensor,
        weight: Tensor | None = None,
        *,
        rejected_prompt: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Pairs:
        """From (seeds, pairs) or (pairs,) tensors, nothing flipped, all of weight 1 if none is given."""
        prompt, chosen, rejected = (x if x.ndim == 2 else x[None] for x in (prompt, chosen, rejected))
        weight = torch.ones(prompt.shape, dtype=torch.float64) if weight is None else weight.double().view_as(prompt)
        if rejected_prompt is not None:
            rejected_prompt = rejected_prompt.view_as(prompt)
        flipped, names = torch.zeros(prompt.shape, dtype=torch.bool), None if seeds is None else tuple(seeds)
        return cls(prompt, chosen, rejected, flipped, weight, rejected_prompt, {}, names)

    def scored(self, name: str, chosen: Tensor, rejected: Tensor) -> Pairs:
        """The same with scores of that name, (seeds, pairs) each."""
        return self.knowing(**{name: torch.stack([chosen, rejected], 2).double()})

    def rows(self) -> Rows:
        """Chosen at place 0, rejected at place 1."""
        other = self.prompt if self.rejected_prompt is None else self.rejected_prompt
        prompt, response = torch.stack([self.prompt, other], 2), torch.stack([self.chosen, self.rejected], 2)
        return Rows(prompt, response, self.weight, self.extra, self.names)

    def lists(self) -> Lists:
        """Lists of two, the chosen graded 1 and the rejected 0."""
        if self.rejected_prompt is not None:
            raise InputError("pairs over two prompts make no lists", mend="give pairs without rejected_prompt")
        response = torch.stack([self.chosen, self.rejected], 2)
        grades = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(response.shape)
        return Lists(self.prompt, response, grades, self.weight, self.extra, self.seeds)

    def responses(self) -> Responses:
        """The chosen as desirable, then the rejected as not: (seeds, 2 * pairs)."""
        rows = self.rows()

        def flat(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(1, 2)

        count = self.prompt.shape[1]
        desirable = (torch.arange(2 * count) < count).expand(len(self.weight), -1)
        extra = {
            name: torch.cat([known] * 2, 1) if name == "samples" else torch.cat(known.split(1, 2), 1)
            for name, known in self.extra.items()
        }
        weight = torch.cat([self.weight] * 2, 1)
        return Responses(flat(rows.prompt), flat(rows.response), desirable, weight, extra, self.seeds)


@dataclass(frozen=True)
class Responses(Drawn):
    """Single responses of each seed: prompt, response (int64), desirable (bool), weight; all (seeds, n)."""

    prompt: Tensor
    response: Tensor
    desirable: Tensor
    weight: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None

    def only(self, desirable: bool) -> Responses:
        """The same with weight 0 for all that are labelled otherwise."""
        return replace(self, weight=self.weight * (self.desirable == desirable))

    def rows(self) -> Rows:
        """One response each."""
        grid = self.prompt[:, :, None], self.response[:, :, None]
        return Rows(*grid, self.weight, self.extra, self.names, desirable=self.desirable)


@dataclass(frozen=True)
class Lists(Drawn):
    """Lists of K responses to one prompt: prompt, weight (seeds, lists); response, grades (seeds, lists, K)."""

    prompt: Tensor
    response: Tensor
    grades: Tensor
    weight: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None

    def rows(self) -> Rows:
        """K responses each."""
        prompt = self.prompt[:, :, None].expand_as(self.response)
        return Rows(prompt, self.response, self.weight, self.extra, self.names, grades=self.grades)

    def best(self) -> Responses:
        """The first of the highest grade in each list, as a desirable response."""
        place = self.grades.argmax(2, keepdim=True)
        extra = self._at(place)
        chosen = self.response.gather(2, place)[..., 0]
        desirable = torch.ones(chosen.shape, dtype=torch.bool)
        return Responses(self.prompt, chosen, desirable, self.weight, extra, self.seeds)

    def pairs(self, which: str = "best-worst", seed: int = 0) -> Pairs:
        """Pairs by grade: of each list the best and the worst ("best-worst"), a couple drawn from `seed` ("random"),
        or every couple ("all", list after list). A couple of equal grades has weight 0.
        """
        seeds, count, k = self.response.shape
        if which == "all":
            first, second = torch.combinations(torch.arange(k)).unbind(1)
            couples = torch.stack([first, second], 1).expand(seeds, count, -1, 2)
        elif which == "random":
            drawn = [torch.rand(count, k, generator=generator("couple", seed, n)).argsort(1)[:, :2] for n in self.names]
            couples = torch.stack(drawn)[:, :, None]
        elif which == "best-worst":
            couples = torch.stack([self.grades.argmax(2), self.grades.argmin(2)], 2)[:, :, None]
        else:
            raise InputError(f"there are no {which!r} pairs", mend='give "best-worst", "random" or "all"')
        each = couples.shape[2]
        grade = self.grades[:, :, None].expand(-1, -1, each, -1).gather(3, couples)
        couples = torch.where((grade[..., :1] >= grade[..., 1:]).expand_as(couples), couples, couples.flip(3))
        response = self.response[:, :, None].expand(-1, -1, each, -1).gather(3, couples).flatten(1, 2)
        weight = (self.weight[:, :, None] * (grade[..., 0] != grade[..., 1])).flatten(1)
        extra = {name: known.flatten(1, 2) for name, known in self._at_all(couples).items()}
        prompt = self.prompt[:, :, None].expand(-1, -1, each).flatten(1)
        flipped = torch.zeros(weight.shape, dtype=torch.bool)
        return Pairs(prompt, response[..., 0], response[..., 1], flipped, weight, None, extra, self.seeds)

    def _at(self, place: Tensor) -> dict[str, Tensor]:
        return {name: known[:, :, 0] for name, known in self._at_all(place[:, :, None]).items()}

    def _at_all(self, places: Tensor) -> dict[str, Tensor]:
        """What `extra` knows at places (seeds, lists, m, some) of each list: (seeds, lists, m, some, ...)."""
        seed = torch.arange(places.shape[0])[:, None, None, None]
        row = torch.arange(places.shape[1])[None, :, None, None]
        found = {}
        for name, known in self.extra.items():
            if name == "samples":
                found[name] = known[:, :, None].expand(-1, -1, places.shape[2], -1)
            else:
                found[name] = known[seed, row, places]
        return found
