"""The token world: short sequences over a small vocabulary, with everything known exactly.

A policy is a table of logits of the next token by (prompt, position, previous token): a language model small enough
that expected reward, KL, length and the best KL-regularised policy are computed, not estimated. A response is given by
its code, a whole number; the data is that of the tabular world, and so is the training. All numbers are float64.

    world = TokenWorld.random(prompts=4, vocabulary=8, length=5, seed=0)             # fixed length
    world = TokenWorld.random(prompts=4, vocabulary=8, length=6, seed=0, ends=True)   # token 0 ends a response
    pairs = world.sample_pairs(200, seeds=range(8), flip=0.1)           # or length_bias=0.5, or edits=1
    policy = fit_tokens(world, "dpo", pairs=pairs, hyperparameters={"beta": 0.5}, steps=200)
    policy.expected_reward(), policy.kl(), policy.expected_length(), policy.accuracy(held_out)    # (8,) each
    world.log_prob(policy.logits, prompt, code); world.tokens(code); world.code(tokens)
    world.expected(world.log_prob_of_all(policy.logits), values)        # any mean over all responses

What an objective may know of each token: difference (what difflib does not match with the other response), steps of
`step` tokens scored by their rewards, KL, entropy, noise; hidden: `features`, or a fixed random embedding of what the
next token depends on. With features, logits = start + features @ weights, which ties prompts and positions together:

    features = torch.randn(*world.contexts, 6)                          # (prompts, positions, previous, width)
    fit_tokens(world, "dpo", pairs=pairs, features=features, learned=True)    # hidden states are trained as well
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from boresight.errors import InputError, nearest
from boresight.lab.drawn import Lists, Pairs, Responses
from boresight.lab.exact import Cells
from boresight.lab.fitting import fit, losses
from boresight.lab.grid import Rows, generator
from boresight.lab.policies import Policy
from boresight.lab.token_draws import TokenDraws
from boresight.lab.token_exact import TokenExact
from boresight.training.known import differing

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""reward(prompt (...), tokens (..., length), lengths (...)) -> (...); tokens after the end are 0."""

fit_tokens = fit

__all__ = ["Lists", "Pairs", "Responses", "Reward", "TokenPolicy", "TokenWorld", "fit_tokens", "losses"]


class TokenWorld(TokenDraws, TokenExact):
    """Prompts, a reference over token sequences, and a true reward.

    reference: logits (prompts, length, vocabulary + 1, vocabulary): position, previous token (the last is "none yet"),
    next token. reward: (prompts, length, vocabulary), what each token earns at its place, added up; or a `Reward`.
    rewards: further ones by name. ends: whether token 0 ends a response, which counts as one of its tokens; a response
    is cut at `length`. step: tokens of a step. embedding: (prompts, width). Raises InputError if shapes disagree or a
    value is not finite.
    """

    def __init__(
        self,
        reference: Tensor,
        reward: Tensor | Reward,
        *,
        ends: bool = False,
        rewards: Mapping[str, Tensor | Reward] | None = None,
        step: int = 2,
        embedding: Tensor | None = None,
    ) -> None:
        if reference.ndim != 4 or reference.shape[2] != reference.shape[3] + 1 or reference.shape[3] < 2:
            raise InputError(
                f"reference has shape {tuple(reference.shape)}",
                mend="give (prompts, length, vocabulary + 1, vocabulary), two tokens or more",
            )
        self.prompts, self.longest, _, self.vocabulary = reference.shape
        self.contexts = tuple(reference.shape[:3])
        named = {"score": reward, **(rewards or {})}
        wanted = (self.prompts, self.longest, self.vocabulary)
        for name, known in named.items():
            if isinstance(known, Tensor) and (known.shape != wanted or not known.isfinite().all()):
                raise InputError(f"rewards {name!r} have shape {tuple(known.shape)}", mend=f"give finite {wanted}")
        if not reference.isfinite().all() or step < 1 or self.vocabulary**self.longest >= 2**62:
            raise InputError("the reference is not finite, or the world too large", mend="give a smaller one")
        self.reference = reference.double().log_softmax(-1)
        self.rewards = {n: r.double() if isinstance(r, Tensor) else r for n, r in named.items()}
        self.ends, self.step = ends, step
        self.embedding = torch.eye(self.prompts, dtype=torch.float64) if embedding is None else embedding.double()
        shape = (*self.contexts, 8)
        self.states = torch.randn(shape, generator=generator("states"), dtype=torch.float64)
        self._powers = self.vocabulary ** torch.arange(self.longest - 1, -1, -1)

    @classmethod
    def random(
        cls,
        prompts: int,
        vocabulary: int,
        length: int,
        seed: int,
        *,
        decisive: int = 2,
        reward_scale: float = 1.0,
        reference_scale: float = 1.0,
        ends: bool = False,
        step: int = 2,
    ) -> TokenWorld:
        """Normal reference logits; for each prompt, `decisive` places with normal rewards of their tokens, and 0 at all
        others. The token that ends a response earns nothing.
        """
        if not 0 < decisive <= length:
            raise InputError(f"decisive is {decisive}", mend=f"give 1 to {length}, as many as there are places")
        rng = torch.Generator().manual_seed(seed)
        shape = (prompts, length, vocabulary + 1, vocabulary)
        reference = torch.randn(shape, generator=rng, dtype=torch.float64) * reference_scale
        reward = torch.randn((prompts, length, vocabulary), generator=rng, dtype=torch.float64) * reward_scale
        places = torch.rand(prompts, length, generator=rng).argsort(1).argsort(1) < decisive
        reward = reward * places[:, :, None]
        if ends:
            reward[:, :, 0] = 0.0
        return cls(reference, reward, ends=ends, step=step)

    def policy(self, seeds: int, **options: Any) -> TokenPolicy:
        """A policy for each seed, ready to be trained.

        start, reference, others, features, learned as of `fit`; features: (*contexts, width), or with seeds in front,
        and then logits = start + features @ weights, with weights (width, vocabulary) of each seed from 0.
        """
        return TokenPolicy.starting(self, seeds, **options)

    def tokens(self, code: Tensor) -> Tensor:
        """The tokens of responses, (..., length) int64; 0 after the end."""
        return code[..., None] // self._powers % self.vocabulary

    def code(self, tokens: Tensor) -> Tensor:
        """The codes of responses, (..., length) -> (...); where 0 ends a response, what follows it is left out."""
        if self.ends:
            tokens = tokens * ((tokens == 0).cumsum(-1) == 0)
        return (tokens * self._powers).sum(-1)

    def lengths(self, tokens: Tensor) -> Tensor:
        """Tokens of each response, with the one that ends it, (...)."""
        if not self.ends:
            return torch.full(tokens.shape[:-1], self.longest)
        return ((tokens != 0).long().cumprod(-1).sum(-1) + 1).clamp(max=self.longest)

    def cells(self, prompt: Tensor, response: Tensor) -> Cells:
        """Where the tokens of a grid (seeds, n, K) of responses stand."""
        seeds, n, k = response.shape
        tokens = self.tokens(response)
        previous = torch.cat([torch.full_like(tokens[..., :1], self.vocabulary), tokens[..., :-1]], -1).flatten()
        there = torch.arange(self.longest) < self.lengths(tokens)[..., None]
        place = there.flatten().nonzero()[:, 0]
        owner, position = place // self.longest, place % self.longest
        context = owner // (n * k), prompt.flatten()[owner], position, previous[place]
        return Cells(context, tokens.flatten()[place], owner, owner // k % n, owner % k, position, seeds * n * k)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of all rewards."""
        return tuple(self.rewards)

    def reward(self, name: str = "score") -> Tensor | Reward:
        """The rewards of that name; "score" is the true one."""
        if name not in self.rewards:
            raise InputError(f"the world has no rewards {name!r}", mend=nearest(name, self.rewards))
        return self.rewards[name]

    def token_rewards(self, prompt: Tensor, code: Tensor, name: str = "score") -> Tensor:
        """What each token earns, (..., length), 0 after the end. Raises InputError if the reward is no table."""
        table = self.reward(name)
        if not isinstance(table, Tensor):
            raise InputError(f"the reward {name!r} is of whole responses", mend="give a table of token rewards")
        tokens = self.tokens(code)
        found = table[prompt[..., None], torch.arange(self.longest), tokens]
        return found * (torch.arange(self.longest) < self.lengths(tokens)[..., None])

    def score(self, name: str, prompt: Tensor, response: Tensor) -> Tensor:
        """The reward of responses, in their shape."""
        known = self.reward(name)
        if isinstance(known, Tensor):
            return self.token_rewards(prompt, response, name).sum(-1)
        tokens = self.tokens(response)
        return known(prompt, tokens, self.lengths(tokens)).double()

    def steps(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Steps of `step` tokens and what their tokens earn together; (seeds, n, K, length) each."""
        each = self.token_rewards(rows.prompt, rows.response)
        step = (torch.arange(self.longest) // self.step).expand(each.shape)
        return step, torch.zeros_like(each).scatter_add(-1, step, each).gather(-1, step)

    def differences(self, rows: Rows) -> Tensor:
        """Whether each token is outside what difflib matches with the pair's other response, (seeds, n, 2, length)."""
        couples, back = rows.response.flatten(0, 1).unique(dim=0, return_inverse=True)
        found = torch.zeros(*couples.shape, self.longest, dtype=torch.bool)
        tokens = self.tokens(couples)
        for i, (both, lengths) in enumerate(zip(tokens.tolist(), self.lengths(tokens).tolist(), strict=True)):
            sides = [side[:length] for side, length in zip(both, lengths, strict=True)]
            for k, differs in enumerate(differing(*sides)):
                found[i, k, : len(differs)] = torch.from_numpy(differs)
        return found[back].view(*rows.response.shape, self.longest)


class TokenPolicy(Policy):
    """Logits of shape (seeds, prompts, length, vocabulary + 1, vocabulary), which every objective can train."""

    world: TokenWorld
    feature_dims = 4

    def expected_length(self) -> Tensor:
        """Exact mean number of tokens of a response, mean over prompts, (seeds,)."""
        return self.world.expected_length(self.logits.detach())

    def entropy(self) -> Tensor:
        """Exact entropy of the response in nats, mean over prompts, (seeds,)."""
        return self.world.entropy(self.logits.detach())

    @property
    def width(self) -> int:
        """Of hidden states."""
        return int((self.world.states if self.features is None else self.features).shape[-1])

    def hidden(self, cells: Cells, *, reference: bool = False) -> Tensor:
        """The features of what each token depends on, or a fixed random embedding of it; (tokens, width)."""
        features = self.initial if reference else self.features
        if features is None:
            return self.world.states[cells.context[1:]]
        return features.expand(self.seeds, *features.shape[1:])[cells.context]

    @classmethod
    def weight_shape(cls, width: int, world: TokenWorld) -> tuple[int, ...]:
        """A matrix onto the vocabulary."""
        return (width, world.vocabulary)

    def _combined(self, features: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("spltw,swv->spltv", features, weights)
