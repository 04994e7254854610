"""Reference policies in DPO (Liu et al. 2024): how strongly it holds, whether it is needed, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.tabular import Pairs

PROMPTS, RESPONSES = 20, 8
SMALL, LARGE = 0.01, 10.0


def worlds_of(seeds: Sequence[int], knows: float) -> list[TabularWorld]:
    """Tables of normal true rewards, with references that know `knows` of them beside noise."""
    made = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        reward, noise = torch.randn(2, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        made.append(TabularWorld(reward, knows * reward + noise))
    return made


def reward(
    worlds: Sequence[TabularWorld], seeds: Sequence[int], reference: Tensor | None, *, beta: float, pairs: int
) -> list[float]:
    """True reward of DPO from each world's own reference, held to `reference`, (seeds, prompts, responses)."""
    drawn = [world.sample_pairs(pairs, [seed]) for world, seed in zip(worlds, seeds, strict=True)]
    columns = (torch.cat([getattr(p, name) for p in drawn]) for name in ("prompt", "chosen", "rejected"))
    start = torch.stack([world.reference for world in worlds])
    policy = fit(
        worlds[0],
        "dpo",
        pairs=Pairs.of(*columns, seeds=seeds),
        hyperparameters={"beta": beta},
        start=start,
        reference=start if reference is None else reference,
        steps=200,
        lr=0.1,
    )
    return [float(w.expected_reward(t)) for w, t in zip(worlds, policy.logits.detach(), strict=True)]


@claim(
    "reference-policies-dpo",
    part="beta",
    says="True reward over beta has its best inside: more than at a small beta, and more than at a large one",
    expects=(more("than at beta 0.01"), more("than at beta 10")),
    treatment="dpo beta=0.5",
    baseline="dpo beta=0.01, and beta=10",
    sweep={"beta": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), "pairs": (50, 100, 400, 1600), "knows": (0.0, 1.0, 2.0)},
    smoke=True,
)
def inside(
    arm: Arm, seeds: Sequence[int], *, beta: float = 0.5, pairs: int = 100, knows: float = 1.0
) -> Mapping[str, Any]:
    """A table of 20 prompts with 8 responses each, another one for each seed; normal true rewards, and a reference that
    is `knows` times the reward beside as much noise. 100 Bradley-Terry pairs, 200 steps of Adam at 0.1; the outcome is
    the policy's expected true reward.

    Not shown: the reward does fall where beta is large (10), but it is highest at 0.01, at every beta between and with
    50 to 1600 pairs. Where the reference knows nothing of the reward (knows 0) it is higher at 0.5 than at both ends,
    undecided as to the small one; where it knows most (knows 2), no beta between beats 10 either. With a free logit for
    each response and 200 steps there is little that a weak constraint could let go wrong; what the paper sees is text
    that degenerates outside of what the pairs compare.
    """
    worlds = worlds_of(seeds, knows)
    if arm == "treatment":
        found = reward(worlds, seeds, None, beta=beta, pairs=pairs)
        return {"than at beta 0.01": found, "than at beta 10": found}
    small, large = (reward(worlds, seeds, None, beta=b, pairs=pairs) for b in (SMALL, LARGE))
    return {"than at beta 0.01": small, "than at beta 10": large}


@claim(
    "reference-policies-dpo",
    part="needed",
    says="DPO ends with a higher true reward than the same loss without a reference",
    expects=more("true reward"),
    treatment="dpo",
    baseline="dpo with an even reference, which is none",
    sweep={"beta": (0.1, 0.5, 1.0, 3.0), "pairs": (50, 100, 400, 1600), "knows": (0.0, 1.0, 2.0)},
    smoke=True,
)
def needed(
    arm: Arm, seeds: Sequence[int], *, beta: float = 0.5, pairs: int = 100, knows: float = 1.0
) -> Mapping[str, Any]:
    """The world of `reference-policies-dpo/beta`. With an even reference the loss is -log sigmoid(beta * (log p(chosen)
    - log p(rejected))), the paper's objective without a reference; both arms start at the same policy.
    """
    worlds = worlds_of(seeds, knows)
    even = torch.zeros(len(worlds), PROMPTS, RESPONSES, dtype=torch.float64)
    return {"true reward": reward(worlds, seeds, None if arm == "treatment" else even, beta=beta, pairs=pairs)}


def stronger(world: TabularWorld, seed: int, alike: bool, by: float) -> Tensor:
    """A reference whose reward is that of the world's own plus `by` times true reward: like it, or with other noise.

    The unlike one knows as much of true reward as makes its expected reward the same, found by bisection.
    """
    near = world.reference + by * world.reward
    if alike:
        return near
    rng = torch.Generator().manual_seed(seed + 10_000)
    noise = 2 * torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
    goal, low, high = float(world.expected_reward(near)), 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(world.expected_reward(noise + middle * world.reward)) < goal:
            low = middle
        else:
            high = middle
    return noise + low * world.reward


def with_reference(seeds: Sequence[int], which: str, beta: float, pairs: int, by: float) -> dict[str, list[float]]:
    """True reward with the policy's own reference ("own"), a better one that is "like" it, or "unlike"."""
    worlds = worlds_of(seeds, 1.0)
    table = None
    if which != "own":
        table = torch.stack([stronger(w, s, which == "like", by) for w, s in zip(worlds, seeds, strict=True)])
    return {"true reward": reward(worlds, seeds, table, beta=beta, pairs=pairs)}


KNOBS = {"by": (0.5, 1.0, 2.0), "beta": (0.1, 0.5, 1.0, 3.0), "pairs": (50, 100, 400, 1600)}


@claim(
    "reference-policies-dpo",
    part="stronger",
    says="A better reference that is like the policy raises the true reward over the policy's own",
    expects=more("true reward"),
    treatment="dpo with a better reference that is like the policy",
    baseline="dpo with the policy's own",
    sweep=KNOBS,
    smoke=True,
)
def like_own(
    arm: Arm, seeds: Sequence[int], *, by: float = 1.0, beta: float = 0.5, pairs: int = 100
) -> Mapping[str, Any]:
    """The world of `reference-policies-dpo/beta`, whose policy starts at its own reference in both arms. The better one
    has `by` times true reward added to that reference's logits.
    """
    return with_reference(seeds, "like" if arm == "treatment" else "own", beta, pairs, by)


@claim(
    "reference-policies-dpo",
    part="unlike",
    says="A better reference helps more where it is like the policy than where it is equally good and unlike it",
    expects=more("true reward"),
    treatment="dpo with a better reference that is like the policy",
    baseline="dpo with one that is as good, and unlike it",
    sweep=KNOBS,
    smoke=True,
)
def unlike(
    arm: Arm, seeds: Sequence[int], *, by: float = 1.0, beta: float = 0.5, pairs: int = 100
) -> Mapping[str, Any]:
    """The world of `reference-policies-dpo/stronger`. The unlike reference is another noise of twice the size, with as
    much of true reward in it as makes its expected reward that of the better reference that is like the policy.

    Not shown: the unlike reference helps more, at every beta and strength of the references; with 400 pairs and more
    there is no difference that could be told. To be as good in spite of more noise it must know more of true reward,
    and a table can take that over from whatever reference: it has a logit of its own for each response. What keeps a
    language model from following one of another family is not in this world.
    """
    return with_reference(seeds, "like" if arm == "treatment" else "unlike", beta, pairs, by)
