"""What is drawn from a token world: responses, pairs, lists, labelled responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.drawn import Lists, Pairs, Responses
from boresight.lab.grid import generator, stacked
from boresight.lab.tabular_draws import check_rate, check_seeds, draw_prompts, surely

TRIES = 200
"""How often a response that is there already is drawn again."""


class TokenDraws:
    """The part of `TokenWorld` that draws data. proposal: logits that responses are drawn from, the reference if not
    given. prompts: how frequent each prompt is, (prompts,), alike if not given. by: the reward that annotators see.
    """

    reference: Tensor
    prompts: int
    vocabulary: int
    longest: int
    ends: bool
    tokens: Callable[[Tensor], Tensor]
    lengths: Callable[[Tensor], Tensor]
    code: Callable[[Tensor], Tensor]
    reward: Callable[..., Any]
    score: Callable[[str, Tensor, Tensor], Tensor]

    def sample(self, table: Tensor, prompt: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """Codes of responses drawn from one seed's table of logits, prompt: (n,). Shape (n, count)."""
        chances, row = table.softmax(-1), prompt.repeat_interleave(count)
        previous, drawn = torch.full_like(row, self.vocabulary), []
        for place in range(self.longest):
            each = chances[row, place, previous]
            previous = torch.multinomial(each, 1, generator=rng)[:, 0] if len(each) else row
            drawn.append(previous)
        return self.code(torch.stack(drawn, -1)).view(len(prompt), count)

    def sample_pairs(
        self,
        n: int,
        seeds: int | Sequence[int],
        *,
        flip: float = 0.0,
        certainty: float = 1.0,
        length_bias: float = 0.0,
        edits: int = 0,
        decisive: bool = False,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
    ) -> Pairs:
        """`n` pairs for each seed: two different responses and an annotator's choice, turned over with probability
        `flip`. The first is preferred with probability sigmoid(certainty * difference of rewards + length_bias *
        difference of lengths); with infinite certainty the better one always, and of two alike either.

        edits: the second response is the first with so many tokens exchanged, as many as it has at most, in place of
        a second draw: at any places, or with `decisive` only where tokens differ in reward. The token that ends a
        response stays, and no other becomes it. Raises InputError if two draws do not come to differ.
        """
        check_rate(flip)
        table = (self.reference if proposal is None else proposal).double().log_softmax(-1)
        drawn = []
        for seed in (names := check_seeds(seeds)):
            rng = generator("pairs", seed)
            prompt = draw_prompts(n, self.prompts, prompts, rng)
            if edits:
                first = self.sample(table, prompt, 1, rng)[:, 0]
                second = self.edited(prompt, first, edits, rng, by=by if decisive else None)
            else:
                first, second = self._different(table, prompt, 2, rng).unbind(1)
            gap, longer = self._gap(prompt, first, second, by)
            wins = torch.sigmoid(surely(gap, certainty) + length_bias * longer)
            preferred = torch.rand(n, generator=rng, dtype=torch.float64) < wins
            flipped = torch.rand(n, generator=rng, dtype=torch.float64) < flip
            order = preferred != flipped
            chosen, rejected = torch.where(order, first, second), torch.where(order, second, first)
            drawn.append((prompt, chosen, rejected, flipped, torch.ones(n, dtype=torch.float64)))
        return stacked(Pairs, drawn, names)

    def edited(
        self, prompt: Tensor, code: Tensor, edits: int, rng: torch.Generator, *, by: str | None = None
    ) -> Tensor:
        """Responses (n,) with `edits` tokens of each exchanged, where there are so many.

        by: only at places where the tokens differ in this reward, which must be a table.
        """
        tokens = self.tokens(code)
        may = torch.arange(self.longest) < self.lengths(tokens)[:, None]
        if self.ends:
            may = may & (tokens != 0)
        if by is not None:
            table = self.reward(by)
            if not isinstance(table, Tensor):
                raise InputError(f"the reward {by!r} is of whole responses", mend="give a table of token rewards")
            may = may & (table[prompt].amax(-1) != table[prompt].amin(-1))
        rank = torch.rand(may.shape, generator=rng).masked_fill(~may, 2.0).argsort(1).argsort(1)
        # Another token, each as likely: a step of 1 to choices - 1 around those that may stand here.
        first = int(self.ends)
        choices = self.vocabulary - first
        if choices < 2:
            raise InputError("there is no other token to exchange one for", mend="take a larger vocabulary")
        step = torch.randint(1, choices, tokens.shape, generator=rng)
        other = (tokens - first + step) % choices + first
        return self.code(torch.where(may & (rank < edits), other, tokens))

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
        """`n` lists of `k` different responses for each seed, graded by their reward plus normal noise of that standard
        deviation. Raises InputError if so many do not come to differ.
        """
        table = (self.reference if proposal is None else proposal).double().log_softmax(-1)
        drawn = []
        for seed in (names := check_seeds(seeds)):
            rng = generator("lists", seed)
            prompt = draw_prompts(n, self.prompts, prompts, rng)
            response = self._different(table, prompt, k, rng)
            grades = self.score(by, prompt[:, None].expand_as(response), response)
            grades = grades + noise * torch.randn(grades.shape, generator=rng, dtype=torch.float64)
            drawn.append((prompt, response, grades, torch.ones(n, dtype=torch.float64)))
        return stacked(Lists, drawn, names)

    def sample_responses(
        self,
        n: int,
        seeds: int | Sequence[int],
        *,
        flip: float = 0.0,
        threshold: float = 0.0,
        proposal: Tensor | None = None,
        prompts: Tensor | None = None,
        by: str = "score",
    ) -> Responses:
        """`n` single responses for each seed, each said to be desirable with probability sigmoid(reward - threshold),
        turned over with probability `flip`.
        """
        check_rate(flip)
        table = (self.reference if proposal is None else proposal).double().log_softmax(-1)
        drawn = []
        for seed in (names := check_seeds(seeds)):
            rng = generator("responses", seed)
            prompt = draw_prompts(n, self.prompts, prompts, rng)
            response = self.sample(table, prompt, 1, rng)[:, 0]
            good = torch.sigmoid(self.score(by, prompt, response) - threshold)
            desirable = torch.rand(n, generator=rng, dtype=torch.float64) < (1 - flip) * good + flip * (1 - good)
            drawn.append((prompt, response, desirable, torch.ones(n, dtype=torch.float64)))
        return stacked(Responses, drawn, names)

    def _gap(self, prompt: Tensor, first: Tensor, second: Tensor, by: str) -> tuple[Tensor, Tensor]:
        """First minus second: rewards and lengths, (n,) each."""
        one, other = (self.lengths(self.tokens(code)) for code in (first, second))
        return self.score(by, prompt, first) - self.score(by, prompt, second), (one - other).double()

    def _different(self, table: Tensor, prompt: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """k different responses of each prompt, (n, k): each drawn again while it is there already."""
        found = self.sample(table, prompt, 1, rng)
        while found.shape[1] < k:
            new = self.sample(table, prompt, 1, rng)
            for _ in range(TRIES):
                again = (found == new).any(1).nonzero()[:, 0]
                if not len(again):
                    break
                new[again] = self.sample(table, prompt[again], 1, rng)
            else:
                raise InputError(
                    f"{k} different responses were not drawn in {TRIES} tries", mend="take a wider proposal, or fewer"
                )
            found = torch.cat([found, new], 1)
        return found
