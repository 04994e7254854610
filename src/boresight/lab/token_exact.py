"""What is exactly known of policies of the token world: sums over all sequences, step by step or one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.drawn import Pairs
from boresight.lab.exact import ordered_share

MOST = 2_000_000
"""Responses that are written out one by one at most, over all seeds and prompts."""


class TokenExact:
    """The part of `TokenWorld` that measures. logits: (..., prompts, length, vocabulary + 1, vocabulary)."""

    reference: Tensor
    prompts: int
    vocabulary: int
    longest: int
    ends: bool
    tokens: Callable[[Tensor], Tensor]
    lengths: Callable[[Tensor], Tensor]
    cells: Callable[[Tensor, Tensor], Any]
    reward: Callable[..., Any]
    score: Callable[[str, Tensor, Tensor], Tensor]

    def reached(self, logits: Tensor) -> Tensor:
        """The chance that a response gets to each place with each previous token, (..., prompts, length, V + 1)."""
        chances = logits.double().softmax(-1)
        now = torch.zeros_like(chances[..., 0, :, 0])
        now[..., self.vocabulary] = 1.0
        found = [now]
        for place in range(self.longest - 1):
            after = (now[..., None] * chances[..., place, :, :]).sum(-2)
            if self.ends:
                after = torch.cat([torch.zeros_like(after[..., :1]), after[..., 1:]], -1)
            now = torch.cat([after, torch.zeros_like(after[..., :1])], -1)
            found.append(now)
        return torch.stack(found, -2)

    def expected_reward(self, logits: Tensor, name: str = "score") -> Tensor:
        """E[reward] under the policy, mean over prompts, (...). A reward of whole responses needs all written out."""
        table = self.reward(name)
        if isinstance(table, Tensor):
            each = (logits.double().softmax(-1) * table[:, :, None, :]).sum(-1)
            return (self.reached(logits) * each).sum((-1, -2)).mean(-1)
        codes = self.all_codes()
        values = self.score(name, torch.arange(self.prompts)[:, None], codes.expand(self.prompts, -1))
        return self.expected(self.log_prob_of_all(logits), values)

    def kl(self, logits: Tensor) -> Tensor:
        """KL(policy || reference) of whole responses in nats, mean over prompts, (...)."""
        log_policy = logits.double().log_softmax(-1)
        policy = log_policy.exp()
        ratio = torch.where(policy > 0, log_policy - self.reference, torch.zeros_like(policy))
        return (self.reached(logits) * (policy * ratio).sum(-1)).sum((-1, -2)).mean(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Entropy of whole responses in nats, mean over prompts, (...)."""
        log_policy = logits.double().log_softmax(-1)
        policy = log_policy.exp()
        each = torch.where(policy > 0, -policy * log_policy, torch.zeros_like(policy)).sum(-1)
        return (self.reached(logits) * each).sum((-1, -2)).mean(-1)

    def expected_length(self, logits: Tensor) -> Tensor:
        """Mean number of tokens, with the one that ends a response, mean over prompts, (...)."""
        return self.reached(logits).sum((-1, -2)).mean(-1)

    def tilted(self, beta: float, name: str = "score") -> Tensor:
        """Log-probs (prompts, length, vocabulary + 1, vocabulary) of reference * exp(reward / beta) / Z, the maximum of
        E[reward] - beta * KL. Raises InputError if the reward is no table: that policy is no table then.
        """
        table = self.reward(name)
        if beta <= 0:
            raise InputError(f"beta is {beta}", mend="give a positive number")
        if not isinstance(table, Tensor):
            raise InputError(f"the reward {name!r} is of whole responses", mend="give a table of token rewards")
        found, later = [], torch.zeros(self.prompts, self.vocabulary, dtype=torch.float64)
        for place in reversed(range(self.longest)):
            best = self.reference[:, place] + (table[:, place] / beta + later)[:, None, :]
            found.append(best.log_softmax(-1))
            later = best.logsumexp(-1)[:, : self.vocabulary]
            if self.ends:
                later = torch.cat([torch.zeros_like(later[:, :1]), later[:, 1:]], -1)
        return torch.stack(found[::-1], 1)

    def all_codes(self) -> Tensor:
        """The codes of all responses, ascending, (responses,)."""
        count = self.vocabulary**self.longest
        if count * self.prompts > MOST:
            raise InputError(f"{count} sequences are too many to write out", mend="take a smaller vocabulary or length")
        codes = torch.arange(count)
        if not self.ends:
            return codes
        tokens = self.tokens(codes)
        return codes[(tokens * ((tokens == 0).cumsum(-1) > 0)).sum(-1) == 0]

    def log_prob_of_all(self, logits: Tensor) -> Tensor:
        """Log-probs of all responses in the order of `all_codes`, (..., prompts, responses)."""
        table, tokens = logits.double().log_softmax(-1), self.tokens(self.all_codes())
        lengths, previous = self.lengths(tokens), torch.full_like(tokens[:, 0], self.vocabulary)
        if table[..., 0, 0, 0].numel() * len(tokens) > 16 * MOST:
            raise InputError("too many sequences to write out for so many seeds", mend="give a few seeds at a time")
        found = table.new_zeros((*table.shape[:-3], len(tokens)))
        for place in range(self.longest):
            found = found + table[..., place, previous, tokens[:, place]] * (place < lengths)
            previous = tokens[:, place]
        return found

    def expected(self, log_probs: Tensor, values: Tensor) -> Tensor:
        """Mean of values (prompts, responses) or (responses,) under `log_prob_of_all`, mean over prompts, (...)."""
        return (log_probs.exp() * values).sum(-1).mean(-1)

    def log_prob(self, logits: Tensor, prompt: Tensor, code: Tensor) -> Tensor:
        """Log-probs of responses, summed over tokens; logits with seeds in front, prompt and code (seeds, ...)."""
        shape = code.shape
        cells = self.cells(prompt.reshape(shape[0], -1, 1), code.reshape(shape[0], -1, 1))
        table = logits.double().log_softmax(-1)
        return table.new_zeros(cells.count).index_add(0, cells.owner, cells.of(table)).view(shape)

    def accuracy(
        self, logits: Tensor, pairs: Pairs | None = None, *, ratio: bool = True, name: str = "score"
    ) -> Tensor:
        """Share of couples of different true reward whose order the policy has right, by weight; equal ones count half.

        logits: with seeds in front. pairs: the couples; their labels do not matter. ratio: order by the log-ratio to
        the reference, else by the log-prob. Shape (seeds,).
        """
        if pairs is None:
            raise InputError("there are too many couples of sequences", mend="give pairs, drawn for the purpose")
        rows = pairs.rows()
        found = self.log_prob(logits, rows.prompt, rows.response)
        if ratio:
            found = found - self.log_prob(self.reference.expand_as(logits), rows.prompt, rows.response)
        gained = self.score(name, rows.prompt, rows.response)
        margin, truth = found[..., 0] - found[..., 1], gained[..., 0] - gained[..., 1]
        return ordered_share(margin, truth, pairs.weight)
