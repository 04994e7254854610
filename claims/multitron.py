"""MultiTRON: one policy that is told the weights, against one policy for each, by the front that they reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boresight.curation import preference_vectors
from boresight.data.example import Example, Response, Score
from boresight.lab import TabularWorld, fit
from boresight.lab.claims import identity
from boresight.lab.drawn import Pairs

PROMPTS, RESPONSES, GRID, BETA = 6, 8, 21, 0.5
FRONT = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
NAMES = ("first", "second")
OWN = {"beta": BETA, "attributes": "first,second", "weights": "weight_first,weight_second", "soft": True}


def rewards_of(seed: int) -> tuple[Tensor, Tensor]:
    """Two rewards that are at odds, (2, prompts, responses), and the reference's logits."""
    rng = torch.Generator().manual_seed(seed)
    one, noise, reference = torch.randn(3, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
    return torch.stack([one, noise - one / 2]), reference


def told(rewards: Tensor, reference: Tensor) -> tuple[TabularWorld, Tensor]:
    """Each prompt with each of 21 weights of the first reward; logits cubic in the weight, with coefficients of their
    own for each response to each prompt.
    """
    repeated = rewards.repeat_interleave(GRID, 1)
    world = TabularWorld(
        repeated[0], reference.repeat_interleave(GRID, 0), rewards=dict(zip(NAMES, repeated, strict=True))
    )
    w = torch.linspace(-1, 1, GRID, dtype=torch.float64)
    basis = torch.stack([torch.ones_like(w), w, w**2, w**3], 1)
    cells = torch.eye(PROMPTS * RESPONSES, dtype=torch.float64).view(PROMPTS, 1, RESPONSES, -1, 1)
    return world, (cells * basis.view(1, GRID, 1, 1, 4)).flatten(3).flatten(0, 1)


def examples_of(rewards: Tensor, reference: Tensor, pairs: int, seed: int) -> list[Example]:
    """Two responses of the reference to a prompt, with both rewards as scores."""
    rng = torch.Generator().manual_seed(seed + 10_000)
    prompt = torch.randint(PROMPTS, (pairs,), generator=rng)
    law = reference.softmax(-1)[prompt]
    two = torch.multinomial(law, 2, generator=rng)
    return [
        Example(
            str(x),
            tuple(Response(str(y)) for y in some),
            scores=tuple(Score(i, float(rewards[k, x, y]), n) for i, y in enumerate(some) for k, n in enumerate(NAMES)),
        )
        for x, some in zip(prompt.tolist(), two.tolist(), strict=True)
    ]


def rows(examples: Sequence[Example], weights: Sequence[float], seed: int, *, grid: bool) -> Pairs:
    """Pairs with their weights of the first reward: as scores, and with `grid` as the place of their prompt."""
    places = [int(str(e.prompt)) * GRID + round(w * (GRID - 1)) for e, w in zip(examples, weights, strict=True)]
    prompt = torch.tensor(places) if grid else torch.tensor(places) // GRID
    sides = torch.tensor([[int(r.text) for r in e.responses] for e in examples])
    first = torch.tensor(weights, dtype=torch.float64)[None]
    made = Pairs.of(prompt, *sides.T, seeds=[seed])
    return made.scored("weight_first", first, first).scored("weight_second", 1 - first, 1 - first)


def values(logits: Tensor, rewards: Tensor) -> Tensor:
    """Both expected rewards of logits (..., prompts, responses): (..., 2)."""
    return (logits.softmax(-1)[..., None, :, :] * rewards).sum(-1).mean(-1)


def hypervolume(front: Tensor, worst: Tensor) -> float:
    """The area between the points (n, 2) and the worst one, both rewards being the better the higher."""
    area, best = 0.0, float(worst[1])
    for one, two in sorted(front.tolist(), reverse=True):
        if one > worst[0] and two > best:
            area += (one - float(worst[0])) * (two - best)
            best = two
    return area


@identity(
    "multitron",
    says="One policy told the weights reaches a monotone front of the hypervolume of policies trained for each weight",
    tolerance=0.1,
    altered="the policy is told the weights in training, but none of those asked for",
    smoke=True,
)
def front(seeds: Sequence[int], *, altered: bool) -> Any:
    """Six prompts with eight responses, two normal rewards of which the second is minus half of the first plus noise,
    another world for each seed. 600 couples of samples of the reference, both rewards their scores;
    `curation.preference_vectors` draws a vector for each (Dirichlet(1/2, 1/2), rounded here to twentieths). One policy
    with logits cubic in the weight is trained by `multitron` on all of them, soft labels, beta 0.5, penalty 0.02,
    150 steps of Adam at 0.1; six others, a table each, on the same couples with the weights 0, 0.2, ... 1. Points are
    the expected rewards at those six weights. The residual is the greater of two: how much hypervolume the one policy
    lacks of that of the six, as a share (the worst point being the lower end of both among the six); and the share of
    its steps from weight to weight at which either reward goes the wrong way.

    Not exact: a tenth was fixed as the tolerance before the first run.
    """
    found = []
    for seed in seeds:
        rewards, reference = rewards_of(seed)
        examples = examples_of(rewards, reference, 600, seed)
        made = preference_vectors(examples, NAMES, seed=seed)
        weights = [next(s.value for s in e.scores if s.name == "weight_first") for e in made]
        weights = [round(w * (GRID - 1)) / (GRID - 1) for w in weights]
        world, features = told(rewards, reference)
        kept = [Example(e.prompt[-1].content, e.responses) for e in made]  # type: ignore[union-attr]
        policy = fit(
            world, "multitron", pairs=rows(kept, weights, seed, grid=True), features=features,
            hyperparameters=OWN, steps=150, lr=0.1,
        )  # fmt: skip
        table = policy.logits.detach().view(PROMPTS, GRID, RESPONSES).transpose(0, 1)
        asked = [0.5 if altered else w for w in FRONT]
        one = values(table[[round(w * (GRID - 1)) for w in asked]], rewards)
        plain = TabularWorld(rewards[0], reference, rewards=dict(zip(NAMES, rewards, strict=True)))
        each = []
        for weight in FRONT:
            some = rows(kept, [weight] * len(kept), seed, grid=False)
            single = fit(plain, "multitron", pairs=some, hyperparameters=OWN, steps=150, lr=0.1)
            each.append(values(single.logits.detach()[0], rewards))
        six = torch.stack(each)
        worst = six.min(0).values
        full = hypervolume(six, worst)
        lacking = max(0.0, 1 - hypervolume(one, worst) / full)
        moves = one.diff(dim=0)
        wrong = float(((moves[:, 0] <= 0) | (moves[:, 1] >= 0)).double().mean())
        found.append(max(lacking, wrong))
    return np.array(found)
