"""The tabular world: a few prompts, a few responses, and everything known exactly.

A policy is a table of logits over (prompt, response). Expected reward, KL and the best KL-regularised policy are
sums over the table, so a claim about an objective can be tested against a closed form. Every production objective
trains on it through `fit`, and many seeds train at once: tables have shape (seeds, prompts, responses), and since
both the loss and Adam work element by element, each seed is what it would be alone. All numbers are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.objectives import (
    LogProbs,
    Objective,
    PairLogProbs,
    PairScores,
    PairSide,
    ResponseLogProbs,
    find,
)


@dataclass(frozen=True)
class Pairs:
    """Preference pairs of each seed: prompt, chosen, rejected (int64), flipped (bool), weight; all (seeds, pairs)."""

    prompt: Tensor
    chosen: Tensor
    rejected: Tensor
    flipped: Tensor
    weight: Tensor

    def take(self, columns: Tensor) -> Pairs:
        """Some pairs of each seed, columns: (seeds, n) int64."""
        return Pairs(*(getattr(self, f).gather(1, columns) for f in self.__dataclass_fields__))

    def of_seed(self, seed: int) -> Pairs:
        """The pairs of one seed (its place, not its number), shape (1, pairs)."""
        return Pairs(*(getattr(self, f)[seed : seed + 1] for f in self.__dataclass_fields__))


class TabularWorld:
    """Prompts and responses with a true reward and a reference policy.

    reward, reference: (prompts, responses); reference holds logits. lengths: (prompts, responses) int64, the number
    of tokens of each response, for objectives that average over tokens; 1 each if not given. Prompts are equally
    frequent. Raises InputError if the shapes disagree or a value is not finite.
    """

    def __init__(self, reward: Tensor, reference: Tensor, lengths: Tensor | None = None) -> None:
        lengths = torch.ones(reward.shape, dtype=torch.int64) if lengths is None else lengths
        if reward.ndim != 2 or reference.shape != reward.shape or lengths.shape != reward.shape:
            raise InputError(
                f"reward, reference and lengths have shapes {tuple(reward.shape)}, {tuple(reference.shape)} and "
                f"{tuple(lengths.shape)}",
                mend="give all of them the shape (prompts, responses)",
            )
        if reward.shape[1] < 2 or not (reward.isfinite().all() and reference.isfinite().all() and (lengths > 0).all()):
            raise InputError(
                "a tabular world needs two responses or more, finite rewards and logits, and positive lengths",
                mend="look for nan, inf or 0 in the tables",
            )
        self.reward = reward.double()
        self.reference = reference.double().log_softmax(-1)
        self.lengths = lengths

    @classmethod
    def random(
        cls, prompts: int, responses: int, seed: int, *, reward_scale: float = 1.0, reference_scale: float = 1.0
    ) -> TabularWorld:
        """Normal rewards and reference logits with the given standard deviations."""
        rng = torch.Generator().manual_seed(seed)
        shape = (prompts, responses)
        reward = torch.randn(shape, generator=rng, dtype=torch.float64) * reward_scale
        return cls(reward, torch.randn(shape, generator=rng, dtype=torch.float64) * reference_scale)

    def expected_reward(self, logits: Tensor) -> Tensor:
        """E[r] under the policy, mean over prompts; logits: (..., prompts, responses). Shape (...)."""
        return (logits.double().softmax(-1) * self.reward).sum(-1).mean(-1)

    def kl(self, logits: Tensor) -> Tensor:
        """KL(policy || reference) in nats, mean over prompts; a response of probability 0 adds nothing."""
        log_policy = logits.double().log_softmax(-1)
        policy = log_policy.exp()
        ratio = torch.where(policy > 0, log_policy - self.reference, torch.zeros_like(policy))
        return (policy * ratio).sum(-1).mean(-1)

    def tilted(self, beta: float) -> Tensor:
        """Log-probs of reference * exp(reward / beta) / Z, the maximum of E[r] - beta * KL. (prompts, responses)."""
        if beta <= 0:
            raise InputError(f"beta is {beta}", mend="give a positive number")
        return (self.reference + self.reward / beta).log_softmax(-1)

    def preference(self, prompt: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Bradley-Terry: the probability that `first` is preferred to `second`, sigmoid of the reward difference."""
        return torch.sigmoid(self.reward[prompt, first] - self.reward[prompt, second])

    def sample_pairs(
        self, n: int, seeds: int | Sequence[int], *, flip: float = 0.0, proposal: Tensor | None = None
    ) -> Pairs:
        """`n` pairs for each seed, drawn from `population` (two different responses of `proposal`, the reference if
        not given, and an annotator's Bradley-Terry choice), each turned over with probability `flip`.
        """
        _check_rate(flip)
        clean = self.population(proposal=proposal)
        drawn = []
        for seed in [seeds] if isinstance(seeds, int) else seeds:
            rng = torch.Generator().manual_seed(seed)
            place = torch.multinomial(clean.weight[0], n, replacement=True, generator=rng)
            flipped = torch.rand(n, generator=rng, dtype=torch.float64) < flip
            winner, loser = clean.chosen[0, place], clean.rejected[0, place]
            chosen, rejected = torch.where(flipped, loser, winner), torch.where(flipped, winner, loser)
            drawn.append((clean.prompt[0, place], chosen, rejected, flipped, torch.ones(n, dtype=torch.float64)))
        return Pairs(*(torch.stack(column) for column in zip(*drawn, strict=True)))

    def population(self, *, flip: float = 0.0, proposal: Tensor | None = None) -> Pairs:
        """Infinite data: every pair (chosen, rejected), weighted by how often it occurs when both responses are drawn
        independently from `proposal` (logits; the reference if not given) until they differ. Weights sum to the
        number of pairs. One seed.
        """
        _check_rate(flip)
        table = (self.reference if proposal is None else proposal.double()).softmax(-1)
        count, responses = table.shape
        grid = torch.cartesian_prod(torch.arange(count), torch.arange(responses), torch.arange(responses))
        prompt, chosen, rejected = grid[grid[:, 1] != grid[:, 2]].unbind(1)
        wins = self.preference(prompt, chosen, rejected)
        weight = table[prompt, chosen] * table[prompt, rejected] * ((1 - flip) * wins + flip * (1 - wins))
        weight = weight * weight.numel() / weight.sum()
        columns = (prompt, chosen, rejected, torch.zeros_like(prompt, dtype=torch.bool), weight)
        return Pairs(*(column[None] for column in columns))


class TabularPolicy:
    """Logits of shape (seeds, prompts, responses), which every objective can train."""

    def __init__(self, world: TabularWorld, logits: Tensor) -> None:
        self.world = world
        self.logits = logits

    @classmethod
    def at_reference(cls, world: TabularWorld, seeds: int = 1) -> TabularPolicy:
        """The reference itself, once for each seed, ready to be trained."""
        return cls(world, world.reference.repeat(seeds, 1, 1).requires_grad_())

    def of_seed(self, seed: int) -> TabularPolicy:
        """One seed's table (its place, not its number); gradients flow back into the whole."""
        return TabularPolicy(self.world, self.logits[seed : seed + 1])

    def pairs(self, pairs: Pairs) -> PairLogProbs:
        """The pairs of all seeds, one seed after the other, as an objective takes them."""
        return PairLogProbs(
            PairSide(self._policy(pairs, pairs.chosen), self._policy(pairs, pairs.rejected)),
            PairSide(self._reference(pairs, pairs.chosen), self._reference(pairs, pairs.rejected)),
        )

    def scored(self, pairs: Pairs) -> PairScores:
        """The logits themselves as a table of rewards."""
        return PairScores(*(self._cells(self.logits, pairs, side) for side in (pairs.chosen, pairs.rejected)))

    def demonstrations(self, pairs: Pairs) -> ResponseLogProbs:
        """The chosen responses alone."""
        return ResponseLogProbs(self._policy(pairs, pairs.chosen), self._reference(pairs, pairs.chosen))

    def labelled(self, pairs: Pairs) -> ResponseLogProbs:
        """Chosen responses as desirable, rejected ones as not (each seed's chosen, then its rejected), with the mean
        log-ratio of these responses laid behind the next row's prompt.
        """
        both = torch.cat([pairs.chosen, pairs.rejected], 1)
        twice = Pairs(*(torch.cat([getattr(pairs, f)] * 2, 1) for f in pairs.__dataclass_fields__))
        moved = replace(twice, prompt=twice.prompt.roll(1, 1))
        with torch.no_grad():
            ratio = self._policy(moved, both).sum() - self._reference(moved, both).sum()
            behind_another = (ratio * twice.weight.flatten()).sum() / twice.weight.sum()
        desirable = (torch.arange(both.shape[1]) < pairs.chosen.shape[1]).expand_as(both).flatten()
        return ResponseLogProbs(
            self._policy(twice, both),
            self._reference(twice, both),
            desirable=desirable,
            mismatched_kl=behind_another,
        )

    def _policy(self, pairs: Pairs, responses: Tensor) -> LogProbs:
        return self._log_probs(self.logits.log_softmax(-1), pairs, responses)

    def _reference(self, pairs: Pairs, responses: Tensor) -> LogProbs:
        return self._log_probs(self.world.reference.expand_as(self.logits), pairs, responses)

    def _log_probs(self, table: Tensor, pairs: Pairs, responses: Tensor) -> LogProbs:
        return LogProbs.from_sums(
            self._cells(table, pairs, responses), self.world.lengths[pairs.prompt, responses].flatten()
        )

    def _cells(self, table: Tensor, pairs: Pairs, responses: Tensor) -> Tensor:
        seed = torch.arange(table.shape[0])[:, None].expand_as(responses)
        return table[seed, pairs.prompt, responses].flatten()


def fit(
    world: TabularWorld,
    objective: str | Objective | Callable[..., Tensor],
    *,
    pairs: Pairs,
    hyperparameters: Mapping[str, Any] | None = None,
    steps: int = 300,
    lr: float = 0.05,
    batch: int | None = None,
    seed: int = 0,
) -> TabularPolicy:
    """Train a policy from the reference with Adam, the learning rate falling linearly to 0.

    objective: a registered name, what `find` returns, or the decorated function itself. pairs: as drawn by the world;
    the policy gets one table for each of their seeds. batch: pairs of each seed in a step, drawn afresh from `seed`;
    all of them if not given. Raises InputError if the function was not registered with @objective.
    """
    known = find(objective) if isinstance(objective, str) else getattr(objective, "__objective__", objective)
    if not isinstance(known, Objective):
        raise InputError(f"{objective!r} is not an objective", mend="decorate it with boresight.objective(...)")
    values = dict(hyperparameters or {})
    count, size = pairs.prompt.shape
    policy = TabularPolicy.at_reference(world, count)
    adam = torch.optim.Adam([policy.logits], lr=lr)
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        some = pairs if batch is None else pairs.take(torch.randint(size, (count, batch), generator=rng))
        adam.zero_grad()
        _loss(policy, known, some, values).backward()
        adam.step()
    return policy


def _loss(policy: TabularPolicy, known: Objective, pairs: Pairs, values: dict[str, Any]) -> Tensor:
    """Weighted mean over each seed's examples, summed over seeds, which are independent of each other."""
    seeds = pairs.prompt.shape[0]
    if "mismatched_kl" in known.needs and seeds > 1:
        # That estimate is one number for the whole batch, so seeds must not share a batch.
        return torch.stack([_loss(policy.of_seed(i), known, pairs.of_seed(i), values) for i in range(seeds)]).sum()
    weight = pairs.weight
    if known.takes is PairLogProbs:
        losses = known.function(policy.pairs(pairs), **values)
    elif known.takes is PairScores:
        losses = known.function(policy.scored(pairs), **values)
    elif "labels" in known.needs:
        losses, weight = known.function(policy.labelled(pairs), **values), torch.cat([weight, weight], 1)
    else:
        losses = known.function(policy.demonstrations(pairs), **values)
    return (losses.view_as(weight) * weight).sum(1).div(weight.sum(1)).sum()


def _check_rate(flip: float) -> None:
    if not 0 <= flip <= 1:
        raise InputError(f"flip is {flip}", mend="give a share between 0 and 1")
