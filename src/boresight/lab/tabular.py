"""The tabular world: a few prompts, a few responses, and everything known exactly.

A policy is a table of logits over (prompt, response). Expected reward, KL and the best KL-regularised policy are
sums over the table, so a claim about an objective can be tested against a closed form. Every production objective
trains on it through `fit`, and many seeds train at once: tables have shape (seeds, prompts, responses), and each seed
is what it would be alone. All numbers are float64.

    world = TabularWorld.random(prompts=4, responses=6, seed=0)
    pairs = world.sample_pairs(200, seeds=range(8), flip=0.2)
    policy = fit(world, "dpo", pairs=pairs, hyperparameters={"beta": 0.5}, steps=200)
    policy.expected_reward(), policy.kl(), policy.accuracy(), policy.mean_log_probs(pairs)    # (8,) each, exact

    lists = world.sample_lists(100, k=4, seeds=range(8), noise=0.5)      # for objectives that take lists
    fit(world, "lipo", pairs=lists); fit(world, "dpo", pairs=lists.pairs("best-worst"))
    world = TabularWorld(reward, reference, rewards={"safety": table})   # further scores; true reward is "score"
    next = fit(world, "dpo", pairs=more, start=policy, reference=policy)  # a second stage
    fit(world, "exo-pair", pairs=pairs, features=torch.randn(4, 6, 2))   # logits = start + features @ weights

Noisy scores, one's own samples: `Pairs.scored`, `knowing` in drawn.py. As training goes on:
`fit(..., watch=lambda step, policy: curve.append(policy.kl()))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.drawn import Lists, Pairs, Responses
from boresight.lab.exact import Cells, ordered_share
from boresight.lab.fitting import fit, losses
from boresight.lab.grid import Rows
from boresight.lab.policies import Policy
from boresight.lab.tabular_draws import TabularDraws

__all__ = ["Lists", "Pairs", "Responses", "TabularPolicy", "TabularWorld", "fit", "losses"]


class TabularWorld(TabularDraws):
    """Prompts and responses with a true reward and a reference policy.

    reward, reference: (prompts, responses); reference holds logits. lengths: (prompts, responses) int64, the number
    of tokens of each response, for objectives that average over tokens; 1 each if not given. rewards: further rewards
    by name, (prompts, responses) each, which objectives find as scores beside the true one, "score". embedding:
    (prompts, width) of the prompts; each its own direction if not given. Prompts are equally frequent. Raises
    InputError if the shapes disagree or a value is not finite.

    Where a response has several tokens, what is known of the whole (log-prob, KL, entropy) is spread evenly over them.
    """

    def __init__(
        self,
        reward: Tensor,
        reference: Tensor,
        lengths: Tensor | None = None,
        *,
        rewards: Mapping[str, Tensor] | None = None,
        embedding: Tensor | None = None,
    ) -> None:
        lengths = torch.ones(reward.shape, dtype=torch.int64) if lengths is None else lengths
        if reward.ndim != 2 or reference.shape != reward.shape or lengths.shape != reward.shape:
            raise InputError(
                f"reward, reference and lengths have shapes {tuple(reward.shape)}, {tuple(reference.shape)} and "
                f"{tuple(lengths.shape)}",
                mend="give all of them the shape (prompts, responses)",
            )
        tables = {"score": reward, **(rewards or {})}
        finite = reference.isfinite().all() and all(
            table.shape == reward.shape and table.isfinite().all() for table in tables.values()
        )
        if reward.shape[1] < 2 or not (finite and (lengths > 0).all()):
            raise InputError(
                "a tabular world needs two responses or more, finite rewards and logits, and positive lengths",
                mend="look for nan, inf or 0 in the tables, and for rewards of another shape",
            )
        self.reward = reward.double()
        self.reference = reference.double().log_softmax(-1)
        self.lengths = lengths
        self.longest = int(lengths.max())
        self.rewards = {name: table.double() for name, table in tables.items()}
        self.embedding = torch.eye(len(reward), dtype=torch.float64) if embedding is None else embedding.double()

    @classmethod
    def random(
        cls, prompts: int, responses: int, seed: int, *, reward_scale: float = 1.0, reference_scale: float = 1.0
    ) -> TabularWorld:
        """Normal rewards and reference logits with the given standard deviations."""
        rng = torch.Generator().manual_seed(seed)
        shape = (prompts, responses)
        reward = torch.randn(shape, generator=rng, dtype=torch.float64) * reward_scale
        return cls(reward, torch.randn(shape, generator=rng, dtype=torch.float64) * reference_scale)

    def policy(self, seeds: int, **options: Any) -> TabularPolicy:
        """A policy for each seed, ready to be trained.

        start, reference, others, features, learned as of `fit`; features: (prompts, responses, width), or with seeds
        in front, and then logits = start + features @ weights, with weights from 0.
        """
        return TabularPolicy.starting(self, seeds, **options)

    def expected_reward(self, logits: Tensor, name: str = "score") -> Tensor:
        """E[r] under the policy, mean over prompts; logits: (..., prompts, responses). Shape (...)."""
        return (logits.double().softmax(-1) * self.table(name)).sum(-1).mean(-1)

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

    def accuracy(
        self, logits: Tensor, pairs: Pairs | None = None, *, ratio: bool = True, name: str = "score"
    ) -> Tensor:
        """Share of couples of different true reward whose order the policy has right; equal log-probs count half.

        logits: (seeds, prompts, responses). pairs: those couples, by weight (their labels do not matter), or all
        couples of each prompt alike. ratio: order by the log-ratio to the reference, else by the log-prob. (seeds,).
        """
        values = logits.double().log_softmax(-1) - (self.reference if ratio else 0.0)
        reward = self.table(name)
        if pairs is None:
            margin = values[..., :, None] - values[..., None, :]
            truth = (reward[:, :, None] - reward[:, None, :]).expand_as(margin)
            return ordered_share(margin.flatten(1), truth.flatten(1), (truth > 0).double().flatten(1))
        rows = pairs.rows()
        seed = torch.arange(len(values))[:, None, None]
        found, gained = values[seed, rows.prompt, rows.response], reward[rows.prompt, rows.response]
        return ordered_share(found[..., 0] - found[..., 1], gained[..., 0] - gained[..., 1], pairs.weight)

    def cells(self, prompt: Tensor, response: Tensor) -> Cells:
        """Where the tokens of a grid (seeds, n, K) of responses stand."""
        seeds, n, k = response.shape
        owner = torch.arange(response.numel())
        lengths = self.lengths[prompt, response].flatten()
        position, share = torch.zeros_like(owner), None
        if self.longest > 1:
            owner = owner.repeat_interleave(lengths)
            position = torch.arange(len(owner)) - (lengths.cumsum(0) - lengths)[owner]
            share = lengths[owner]
        places = owner // (n * k), prompt.flatten()[owner]
        row, column = owner // k % n if n else owner, owner % k
        return Cells(places, response.flatten()[owner], owner, row, column, position, seeds * n * k, share)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of all rewards."""
        return tuple(self.rewards)

    def score(self, name: str, prompt: Tensor, response: Tensor) -> Tensor:
        """The rewards of that name at these cells, in their shape."""
        return self.table(name)[prompt, response]

    def steps(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Each response is one step, scored by its true reward; (seeds, n, K, longest) each."""
        score = self.reward[rows.prompt, rows.response][..., None].expand(*rows.response.shape, self.longest)
        return torch.zeros_like(score, dtype=torch.int64), score

    def differences(self, rows: Rows) -> Tensor:
        """All tokens of a pair of different responses differ; (seeds, n, 2, longest) bool."""
        differ = rows.response[..., :1] != rows.response[..., 1:]
        return differ[..., None].expand(*rows.response.shape, self.longest)

    def sample(self, table: Tensor, prompt: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """Responses drawn from one seed's table of logits, prompt: (n,). Shape (n, count)."""
        return torch.multinomial(table.softmax(-1)[prompt], count, replacement=True, generator=rng)


class TabularPolicy(Policy):
    """Logits of shape (seeds, prompts, responses), which every objective can train."""

    world: TabularWorld
    feature_dims = 3

    @classmethod
    def at_reference(cls, world: TabularWorld, seeds: int = 1) -> TabularPolicy:
        """The reference itself, once for each seed, ready to be trained."""
        return world.policy(seeds)

    @property
    def width(self) -> int:
        """Of hidden states: of the features, or of the prompts' embedding."""
        return int((self.world.embedding if self.features is None else self.features).shape[-1])

    def hidden(self, cells: Cells, *, reference: bool = False) -> Tensor:
        """The features of each response, or the embedding of its prompt where there are none; (tokens, width)."""
        features = self.initial if reference else self.features
        seed, prompt = cells.context
        if features is None:
            return self.world.embedding[prompt]
        return features.expand(self.seeds, *features.shape[1:])[seed, prompt, cells.action]

    @classmethod
    def weight_shape(cls, width: int, world: TabularWorld) -> tuple[int, ...]:
        """One weight for each feature."""
        return (width,)

    def _combined(self, features: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("sprw,sw->spr", features, weights)
