"""EXO (Ji et al. 2024): reverse against forward KL, where the policy cannot be what the reward asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more
from boresight.lab.drawn import Drawn, Lists

POINTS, LISTS, EACH, STEPS = 41, 100, 8, 150
NAMES = ("true reward within this KL", "mass of the higher mode there")
SETTINGS: Mapping[str, tuple[dict[str, float], ...]] = {
    "exo-rw": tuple({"beta_policy": 1.0, "beta_reward": b} for b in (0.03, 0.1, 0.3, 1.0, 3.0)),
    "exo": tuple({"beta": b, "eps": 1e-3} for b in (0.3, 1.0, 3.0, 10.0, 30.0)),
    "dpo": tuple({"beta": b} for b in (0.1, 0.3, 1.0, 3.0, 10.0)),
}
SWEEP = {"kl": (0.1, 0.3, 1.0), "higher": (0.25, 0.5, 2.0), "apart": (1.0, 1.5, 2.0)}


def world_of(seeds: Sequence[int], higher: float, apart: float) -> tuple[TabularWorld, Tensor, Lists]:
    """One prompt for each seed, so that all train at once; the points of its higher mode; its lists."""
    x = torch.linspace(-3, 3, POINTS, dtype=torch.float64)
    reference = (-0.5 * (x / 1.5) ** 2).log_softmax(0)
    rewards, modes, responses = [], [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        move = 0.2 * torch.randn(2, generator=rng, dtype=torch.float64)
        side = 1.0 if float(torch.rand(1, generator=rng)) < 0.5 else -1.0
        low, high = (torch.exp(-0.5 * ((x - at) / 0.4) ** 2) for at in (move[0] - side * apart, move[1] + side * apart))
        rewards.append(2 * low + (2 + higher) * high)
        modes.append(high > 0.3)
        drawn = torch.multinomial(reference.exp(), LISTS * EACH, replacement=True, generator=rng)
        responses.append(drawn.view(LISTS, EACH))
    world = TabularWorld(torch.stack(rewards), reference.expand(len(seeds), POINTS))
    response, prompt = torch.stack(responses), torch.arange(len(seeds))[:, None].expand(-1, LISTS)
    grades = world.reward[prompt[..., None], response]
    lists = Lists(prompt, response, grades, torch.ones(prompt.shape, dtype=torch.float64), seeds=tuple(seeds))
    return world, torch.stack(modes), lists


def within(method: str, data: Drawn, world: TabularWorld, modes: Tensor, kl: float) -> Mapping[str, Tensor]:
    """The best reward of the frontier up to this KL, and the mass of the higher mode at that place, (seeds,) each.

    The frontier goes from the reference through the trained policies by straight lines, in the order of their KL.
    """
    x = torch.linspace(-3, 3, POINTS, dtype=torch.float64)
    features = torch.stack([x, x**2], 1).expand(len(modes), POINTS, 2)
    own = torch.arange(len(modes))
    log_ps = [world.reference]
    for values in SETTINGS[method]:
        policy = fit(world, method, pairs=data, hyperparameters=values, features=features, steps=STEPS, lr=0.1)
        log_ps.append(policy.log_probs().detach()[own, own])
    log_p = torch.stack(log_ps)  # (policies, seeds, points)
    p = log_p.exp()
    away = (p * (log_p - world.reference)).sum(2)
    reward, mass = (p * world.reward).sum(2), (p * modes).sum(2)
    found = []
    for seed in own:
        order = away[:, seed].argsort()
        k, r, m = away[order, seed], reward[order, seed], mass[order, seed]
        last = int((k <= kl).sum())
        points = [(float(a), float(b)) for a, b in zip(r[:last], m[:last], strict=True)]
        if last < len(k):
            share = (kl - k[last - 1]) / (k[last] - k[last - 1])
            between = [float(v[last - 1] + share * (v[last] - v[last - 1])) for v in (r, m)]
            points.append((between[0], between[1]))
        found.append(max(points))
    return dict(zip(NAMES, torch.tensor(found).T, strict=True))


@claim(
    "exo",
    part="lists",
    says="With a policy of limited capacity and a reward of two modes, EXO on lists with rewards reaches a higher "
    "reward than DPO within an equal KL, with more mass on the higher mode",
    expects=(more(NAMES[0]), more(NAMES[1])),
    treatment="exo-rw",
    baseline="dpo",
    sweep=SWEEP,
)
def lists(
    arm: Arm, seeds: Sequence[int], *, kl: float = 0.3, higher: float = 0.5, apart: float = 1.5
) -> Mapping[str, Any]:
    """Responses are 41 points x of [-3, 3]; the reference is a normal density of standard deviation 1.5, and the policy
    its product with exp(a x + b x^2): it has one mode, or piles up at the ends. Reward has two bumps of width 0.4 near
    -1.5 and 1.5 (moved a little by seed, the higher on either side), one of height 2, the other 0.5 higher. 100 lists
    of 8 responses from the reference with their true rewards; DPO gets a random couple of each list, ordered by reward.
    Each arm is trained at five temperatures (Adam, 150 steps at 0.1) and judged by its frontier of reward over KL up to
    0.3 nats. Mass is that of points where the higher bump exceeds 0.3 of its height. All is exact but the draws.

    The arms differ in what they know too: the lists' rewards, against the order of couples (`exo/pairs`). The world,
    and how the arms are judged, were made anew after a first version did not hold.
    """
    world, modes, drawn = world_of(seeds, higher, apart)
    if arm == "treatment":
        return within("exo-rw", drawn, world, modes, kl)
    return within("dpo", drawn.pairs("random"), world, modes, kl)


@claim(
    "exo",
    part="pairs",
    says="... and so does EXO on the very pairs that DPO gets",
    expects=(more(NAMES[0]), more(NAMES[1])),
    treatment="exo",
    baseline="dpo",
    sweep=SWEEP,
)
def pairs(
    arm: Arm, seeds: Sequence[int], *, kl: float = 0.3, higher: float = 0.5, apart: float = 1.5
) -> Mapping[str, Any]:
    """The world of `exo/lists`; both arms get the couples.

    Not shown: rather the reverse. With two responses and no rewards EXO's target is a margin of log(999) / beta for
    every couple, alike for near-ties and clear ones, and a couple that is ordered wrong for certain has no slope: what
    this policy cannot order, it gives up. In a first version (600 Bradley-Terry pairs, beta from 0.05 to 30) it went to
    a KL of 5, piled up at the ends of the line where no reward is, in two worlds of three, at every beta below 4. What
    makes EXO find the higher mode is the rewards of a list.
    """
    world, modes, drawn = world_of(seeds, higher, apart)
    return within("exo" if arm == "treatment" else "dpo", drawn.pairs("random"), world, modes, kl)
