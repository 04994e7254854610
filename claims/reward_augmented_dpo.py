"""Reward-augmented pairs: told the scores, DPO does not unlearn good answers that lost to slightly better ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boresight.curation import reward_augmented_dpo
from boresight.data.example import Example, Pair, Response, Score
from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.drawn import Pairs

PROMPTS, RESPONSES, GOALS = 20, 12, 10


def drawn(reward: Tensor, reference: Tensor, pairs: int, near: float, seed: int) -> list[Example]:
    """Pairs of samples of the reference whose scores differ by `near` at most; the higher score is chosen."""
    rng = torch.Generator().manual_seed(seed + 10_000)
    made: list[Example] = []
    while len(made) < pairs:
        x = int(torch.randint(PROMPTS, (1,), generator=rng))
        a, b = torch.multinomial(reference[x].exp(), 2, generator=rng).tolist()
        won, lost = (a, b) if reward[x, a] > reward[x, b] else (b, a)
        if 0 < reward[x, won] - reward[x, lost] <= near:
            scores = tuple(Score(i, float(reward[x, y])) for i, y in enumerate((won, lost)))
            made.append(Example(str(x), (Response(str(won)), Response(str(lost))), (Pair(0, 1),), scores))
    return made


def columns(examples: Sequence[Example], prompts: Sequence[int], seed: int) -> Pairs:
    """The examples' pairs, each at this prompt."""
    sides = [
        [int(e.responses[i].text) for i in (e.pairs[0].chosen, e.pairs[0].rejected)] for e in examples
    ]  # fmt: skip
    return Pairs.of(torch.tensor(prompts), *torch.tensor(sides).T, seeds=[seed])


def asked(reference: Tensor, reward: Tensor) -> tuple[TabularWorld, Tensor]:
    """A world of each prompt with each goal, and what the policy may make of them: logits = reference + a + b * g +
    c * g^2 with numbers a, b, c of its own for each response to each prompt, g the goal from -1 to 1.
    """
    world = TabularWorld(reward.repeat_interleave(GOALS, 0), reference.repeat_interleave(GOALS, 0))
    g = torch.linspace(-1, 1, GOALS, dtype=torch.float64)
    basis = torch.stack([torch.ones_like(g), g, g**2], 1)
    cells = torch.eye(PROMPTS * RESPONSES, dtype=torch.float64).view(PROMPTS, 1, RESPONSES, -1, 1)
    features = (cells * basis.view(1, GOALS, 1, 1, 3)).flatten(3).flatten(0, 1)
    return world, features


def outcomes(
    arm: Arm, seeds: Sequence[int], *, near: float, pairs: int, steps: int, beta: float
) -> Mapping[str, Tensor]:
    """What the policy asked for the best is worth, and the mean log-prob of the pairs' rejected responses: asked for
    the best, and asked for their own score (the baseline is asked for nothing).
    """
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        shape = (PROMPTS, RESPONSES)
        reward = (5.5 + 2.5 * torch.randn(shape, generator=rng, dtype=torch.float64)).round().clamp(1, 10)
        reference = torch.randn(shape, generator=rng, dtype=torch.float64).log_softmax(-1)
        examples = drawn(reward, reference, pairs, near, seed)
        own = columns(examples, [int(str(e.prompt)) for e in examples], seed)
        options: dict[str, Any] = {"hyperparameters": {"beta": beta}, "steps": steps}
        x, y = own.prompt[0], own.rejected[0]
        if arm == "treatment":
            made = list(reward_augmented_dpo([replace(e, id=str(e.prompt)) for e in examples]))
            world, features = asked(reference, reward)
            words = [str(example.id).partition("~goal ") for example in made]
            places = [int(prompt) * GOALS + int(goal) - 1 for prompt, _, goal in words]
            policy = fit(world, "dpo", pairs=columns(made, places, seed), features=features, **options)
            logs = policy.logits.detach().view(PROMPTS, GOALS, RESPONSES).log_softmax(-1)
            best, of_own = logs[:, -1], logs[x, reward[x, y].long() - 1, y]
        else:
            policy = fit(TabularWorld(reward, reference), "dpo", pairs=own, **options)
            best = policy.logits.detach()[0].log_softmax(-1)
            of_own = best[x, y]
        worth = (best.exp() * reward).sum(-1).mean()
        found.append(torch.stack([worth, of_own.mean(), best[x, y].mean()]))
    names = ("reward", "log-prob of rejected at their score", "log-prob of rejected at the top")
    return dict(zip(names, torch.stack(found).T, strict=True))


@claim(
    "reward-augmented-dpo",
    part="reward",
    says="Where rejected answers are nearly as good, DPO told the scores earns more when asked for the top one, and "
    "still writes the rejected ones when asked for theirs",
    expects=(more("reward"), more("log-prob of rejected at their score")),
    treatment="dpo on reward-augmented pairs",
    baseline="dpo on the pairs",
    sweep={"near": (1.0, 2.0, 4.0, 9.0), "pairs": (50, 100, 200, 800)},
    smoke=True,
)
def augmented(arm: Arm, seeds: Sequence[int], *, near: float = 1.0, pairs: int = 100) -> Mapping[str, Any]:
    """20 prompts with 12 responses, true scores the whole numbers from 1 to 10 (5.5 and 2.5 times a normal number,
    rounded and cut), normal reference logits of standard deviation 1, another world for each seed. 100 pairs of samples
    of the reference whose scores differ by 1; DPO with beta 0.1, 150 steps of Adam at 0.05. The treatment trains on
    what `curation.reward_augmented_dpo` makes of the pairs; its logits are quadratic in the goal, with coefficients of
    their own for each response, so that what was learnt at one goal bears on others. Outcomes: the expected true score,
    the goal being 10; and the mean log-prob of the pairs' rejected responses, the goal being their score, against that
    under DPO, which is asked for nothing. What they are worth at the goal of 10 is `reward-augmented-dpo/top`.
    """
    found = outcomes(arm, seeds, near=near, pairs=pairs, steps=150, beta=0.1)
    return {name: found[name] for name in ("reward", "log-prob of rejected at their score")}


@claim(
    "reward-augmented-dpo",
    part="top",
    says="Where rejected answers are nearly as good, DPO told the scores keeps them likelier also when asked for the "
    "top score",
    expects=more("log-prob of rejected at the top"),
    treatment="dpo on reward-augmented pairs, asked for 10",
    baseline="dpo on the pairs",
    sweep={"near": (1.0, 4.0), "steps": (20, 50, 150), "beta": (0.1, 0.5)},
    smoke=True,
)
def kept(
    arm: Arm, seeds: Sequence[int], *, near: float = 1.0, steps: int = 150, beta: float = 0.1
) -> Mapping[str, Any]:
    """The world of `reward-augmented-dpo/reward`, and the log-prob of all rejected responses asked for 10: the other
    way to read the paper's claim.

    Not shown: asked for 10, they are less likely than under DPO, by 0.9 nats, as a policy that was told the scores
    leaves poor answers aside when the best is asked for; only one asked for their score keeps them. With pairs further
    apart the difference grows (1.8 nats at 4 points), with beta 0.5 too (2.0); after 50 steps it is not told from none
    (0.09 +- 0.13), nor after 20 (0.01 +- 0.03), where little has been learnt. The reward is higher in all of these,
    save with pairs of any distance (0.07 +- 0.15).
    """
    name = "log-prob of rejected at the top"
    return {name: outcomes(arm, seeds, near=near, pairs=100, steps=steps, beta=beta)[name]}
