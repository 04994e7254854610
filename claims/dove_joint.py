"""DOVE: pairs over two prompts, beside a fixed number of pairs on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Pairs

PROMPTS, RESPONSES = 20, 6


@claim(
    "dove-joint",
    says="Joint pairs over two prompts, added to pairs on one prompt, raise the true reward over DPO on the latter",
    expects=more("true reward"),
    treatment="dove-joint, with as many joint pairs",
    baseline="dpo on the pairs of one prompt",
    sweep={
        "pairs": (50, 100, 200, 400, 1600),
        "joint": (0.25, 1.0, 4.0),
        "apart": (0.0, 1.0, 2.0, 4.0),
        "beta": (0.3, 1.0, 3.0),
    },
    seeds=24,
    smoke=True,
)
def dove_joint(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 100, joint: float = 1.0, apart: float = 0.0, beta: float = 1.0
) -> Mapping[str, Any]:
    """A table of 20 prompts with 6 responses each, another one for each seed; true rewards of standard deviation 2, a
    random reference. 100 Bradley-Terry pairs on one prompt each, in both arms, and as many again (times `joint`) of two
    cells, each drawn from the reference on a random prompt, by the difference of their true rewards. 200 steps of Adam
    at 0.05, beta 1; the outcome is the policy's expected true reward. 24 seeds.

    Not shown: with as many joint pairs as plain ones there is no difference that 24 seeds could tell. It takes four
    times as many (joint 4), or a higher beta (3), and with a quarter as many the reward is lower than without: nothing
    is shared between prompts here, so a response that was compared with another prompt's alone moves against its own
    prompt's others. `apart` adds to all rewards of a prompt a normal number of that standard deviation; joint pairs
    then tell more of prompts than of responses, and the reward is lower than without them.
    """
    worlds, drawn = [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        reward, reference = torch.randn(2, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        level = apart * torch.randn(PROMPTS, 1, generator=rng, dtype=torch.float64)
        worlds.append(TabularWorld(2 * reward + level, reference))
        drawn.append(rows(worlds[-1], seed, pairs, round(joint * pairs) if arm == "treatment" else 0))
    prompt, chosen, rejected, other = (torch.stack(column) for column in zip(*drawn, strict=True))
    reference = torch.stack([world.reference for world in worlds])
    policy = fit(
        worlds[0],
        "dove-joint" if arm == "treatment" else "dpo",
        pairs=Pairs.of(prompt, chosen, rejected, rejected_prompt=other, seeds=seeds),
        hyperparameters={"beta": beta},
        start=reference,
        reference=reference,
        steps=200,
    )
    tables = policy.logits.detach()
    return {"true reward": [float(w.expected_reward(table)) for w, table in zip(worlds, tables, strict=True)]}


def rows(world: TabularWorld, seed: int, pairs: int, joint: int) -> tuple[torch.Tensor, ...]:
    """Prompt and response of the chosen, response and prompt of the rejected: pairs of one prompt, then joint ones."""
    same = world.sample_pairs(pairs, [seed])
    columns = [[same.prompt[0], same.chosen[0], same.rejected[0], same.prompt[0]]]
    if joint:
        rng = torch.Generator().manual_seed(seed + 10_000)
        x = torch.randint(PROMPTS, (2, joint), generator=rng)
        y = torch.stack([torch.multinomial(world.reference.softmax(-1)[side], 1, generator=rng)[:, 0] for side in x])
        gained = world.reward[x, y]
        first = torch.rand(joint, generator=rng, dtype=torch.float64) < (gained[0] - gained[1]).sigmoid()
        better, worse = (~first).long(), first.long()
        at = torch.arange(joint)
        columns.append([x[better, at], y[better, at], y[worse, at], x[worse, at]])
    return tuple(torch.cat(parts) for parts in zip(*columns, strict=True))
