"""What is drawn from a tabular world: pairs, lists, labelled responses, and whole populations of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from boresight.errors import InputError, nearest
from boresight.lab.drawn import Lists, Pairs, Responses
from boresight.lab.grid import generator, stacked


class TabularDraws:
    """The part of `TabularWorld` that draws data. proposal: logits that responses are drawn from, the reference if not
    given. prompts: how frequent each prompt is, (prompts,), alike if not given. by: the reward that annotators see.
    """

    reward: Tensor
    reference: Tensor
    rewards: Mapping[str, Tensor]

    def table(self, name: str) -> Tensor:
        """The rewards of that name, (prompts, responses); "score" is the true one."""
        if name not in self.rewards:
            raise InputError(f"the world has no rewards {name!r}", mend=nearest(name, self.rewards))
        return self.rewards[name]

    def preference(
        self, prompt: Tensor, first: Tensor, second: Tensor, *, certainty: float = 1.0, by: str = "score"
    ) -> Tensor:
        """Bradley-Terry: the probability that `first` is preferred to `second`, sigmoid(certainty * reward difference).

        With infinite certainty the better one always, and of two alike either.
        """
        reward = self.table(by)
        return surely(reward[prompt, first] - reward[prompt, second], certainty).sigmoid()

    def sample_pairs(
        self,
        n: int,
        seeds: int | Sequence[int],
        *,
        flip: float = 0.0,
        certainty: float = 1.0,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
    ) -> Pairs:
        """`n` pairs for each seed, drawn from `population` (two different responses of `proposal`, and an annotator's
        Bradley-Terry choice), each turned over with probability `flip`.
        """
        check_rate(flip)
        clean = self.population(certainty=certainty, proposal=proposal, prompts=prompts, by=by)
        drawn = []
        for seed in (names := check_seeds(seeds)):
            rng = torch.Generator().manual_seed(seed)
            place = torch.multinomial(clean.weight[0], n, replacement=True, generator=rng)
            flipped = torch.rand(n, generator=rng, dtype=torch.float64) < flip
            winner, loser = clean.chosen[0, place], clean.rejected[0, place]
            chosen, rejected = torch.where(flipped, loser, winner), torch.where(flipped, winner, loser)
            drawn.append((clean.prompt[0, place], chosen, rejected, flipped, torch.ones(n, dtype=torch.float64)))
        return stacked(Pairs, drawn, names)

    def population(
        self,
        *,
        flip: float = 0.0,
        certainty: float = 1.0,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
        rejected: Tensor | None = None,
    ) -> Pairs:
        """Infinite data: every pair (chosen, rejected), weighted by how often it occurs when both responses are drawn
        independently from `proposal` until they differ. Weights sum to the number of pairs. One seed.

        rejected: logits that the rejected are drawn from, and the chosen from `proposal`, in the place of a choice.
        """
        check_rate(flip)
        table = (self.reference if proposal is None else proposal.double()).softmax(-1)
        count, responses = table.shape
        grid = torch.cartesian_prod(torch.arange(count), torch.arange(responses), torch.arange(responses))
        prompt, first, second = grid[grid[:, 1] != grid[:, 2]].unbind(1)
        if rejected is None:
            wins = self.preference(prompt, first, second, certainty=certainty, by=by)
            weight = table[prompt, first] * table[prompt, second] * ((1 - flip) * wins + flip * (1 - wins))
        else:
            other = rejected.double().softmax(-1)
            there, turned = (table[prompt, a] * other[prompt, b] for a, b in ((first, second), (second, first)))
            weight = (1 - flip) * there + flip * turned
        if prompts is not None:
            weight = weight * prompts.double()[prompt]
        return Pairs.of(prompt, first, second, weight * weight.numel() / weight.sum())

    def sample_lists(
        self,
        n: int,
        k: int,
        seeds: int | Sequence[int],
        *,
        noise: float = 0.0,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
    ) -> Lists:
        """`n` lists of `k` different responses for each seed, drawn one after the other without putting back, graded
        by their reward plus normal noise of that standard deviation.
        """
        table = (self.reference if proposal is None else proposal.double()).softmax(-1)
        if not 2 <= k <= table.shape[1]:
            raise InputError(f"lists of {k} responses", mend=f"give 2 to {table.shape[1]}, as many as there are")
        reward = self.table(by)
        drawn = []
        for seed in (names := check_seeds(seeds)):
            rng = generator("lists", seed)
            prompt = draw_prompts(n, len(table), prompts, rng)
            response = torch.multinomial(table[prompt], k, generator=rng)
            grades = reward[prompt[:, None], response]
            grades = grades + noise * torch.randn(grades.shape, generator=rng, dtype=torch.float64)
            drawn.append((prompt, response, grades, torch.ones(n, dtype=torch.float64)))
        return stacked(Lists, drawn, names)

    def sample_responses(
        self,
        n: int,
        seeds: int | Sequence[int],
        *,
        flip: float = 0.0,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
    ) -> Responses:
        """`n` single responses for each seed, each said to be desirable with probability sigmoid(reward - the mean
        reward of `proposal` on its prompt), turned over with probability `flip`.
        """
        check_rate(flip)
        table = (self.reference if proposal is None else proposal.double()).softmax(-1)
        reward = self.table(by)
        good = torch.sigmoid(reward - (table * reward).sum(-1, keepdim=True))
        good, drawn = (1 - flip) * good + flip * (1 - good), []
        for seed in (names := check_seeds(seeds)):
            rng = generator("responses", seed)
            prompt = draw_prompts(n, len(table), prompts, rng)
            response = torch.multinomial(table[prompt], 1, generator=rng)[:, 0]
            desirable = torch.rand(n, generator=rng, dtype=torch.float64) < good[prompt, response]
            drawn.append((prompt, response, desirable, torch.ones(n, dtype=torch.float64)))
        return stacked(Responses, drawn, names)


def draw_prompts(n: int, count: int, frequency: Tensor | None, rng: torch.Generator) -> Tensor:
    """`n` of `count` prompts, each as often as said; all alike if nothing is."""
    shares = torch.ones(count, dtype=torch.float64) if frequency is None else frequency.double()
    return torch.multinomial(shares, n, replacement=True, generator=rng)


def check_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """One seed or several, as a tuple. Raises InputError if there is none."""
    names = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    if not names:
        raise InputError("there are no seeds", mend="give one or more")
    return names


def surely(gap: Tensor, certainty: float) -> Tensor:
    """certainty * gap, where infinity times nothing is nothing."""
    return torch.where(gap == 0, gap, certainty * gap)


def check_rate(flip: float) -> None:
    """Raise InputError unless it is a share."""
    if not 0 <= flip <= 1:
        raise InputError(f"flip is {flip}", mend="give a share between 0 and 1")
