"""Is preference alignment always the best option for translation? CPO against SFT on two metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

PROMPTS, RESPONSES, CANDIDATES, LISTS, STEPS = 20, 10, 4, 200, 150
SWEEP = {"agree": (0.0, 0.3, 0.6, 0.9), "lists": (50, 200, 800), "beta": (0.1, 0.3, 1.0)}


def gains(
    method: str, seeds: Sequence[int], *, agree: float, lists: int, beta: float, external: bool = False
) -> tuple[Tensor, Tensor]:
    """What training adds to the expected proxy metric, and to the second metric, (seeds,) each."""
    found = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        proxy, rest, other = (torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64) for _ in range(3))
        second = agree * proxy + (1 - agree**2) ** 0.5 * rest
        base = torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        world = TabularWorld(proxy, base, rewards={"second": second})
        # Other systems: their own habits, and better than the base by both metrics.
        systems = 2 * other + proxy + second
        drawn = world.sample_lists(lists, CANDIDATES, [seed], proposal=systems if external else None)
        if method == "cpo":
            policy = fit(world, "cpo", pairs=drawn.pairs("best-worst"), hyperparameters={"beta": beta}, steps=STEPS)
        else:
            policy = fit(world, "sft", pairs=drawn.best(), steps=STEPS)
        before = world.reference
        found.append(
            [
                float(policy.expected_reward(name)) - float(world.expected_reward(before, name))
                for name in ("score", "second")
            ]
        )
    first, last = torch.tensor(found).T
    return first, last


@claim(
    "cpo-mt-study",
    part="proxy",
    says="CPO on pairs ranked by a proxy metric raises that metric more than SFT on the best candidate",
    expects=more("gain of the proxy"),
    treatment="cpo",
    baseline="sft",
    sweep=SWEEP,
)
def proxy(
    arm: Arm, seeds: Sequence[int], *, agree: float = 0.6, lists: int = 200, beta: float = 0.1
) -> Mapping[str, Any]:
    """A table of 20 source texts with 10 translations, another world for each seed. Each has a proxy metric and a
    second one, normal, with a correlation of 0.6. Four candidates of each of 200 texts are drawn from the model itself;
    the best and the worst by the proxy are the pair for CPO, the best alone is what SFT sees. Adam, 150 steps at 0.05,
    beta 0.1, likelihood term at 1. Gains are exact, against the model before training.
    """
    method = "cpo" if arm == "treatment" else "sft"
    return {"gain of the proxy": gains(method, seeds, agree=agree, lists=lists, beta=beta)[0]}


@claim(
    "cpo-mt-study",
    part="second",
    says="Under CPO, a second metric that agrees with the proxy only in part gains less than the proxy",
    expects=less("gain"),
    treatment="the second metric",
    baseline="the proxy",
    sweep=SWEEP,
)
def second(
    arm: Arm, seeds: Sequence[int], *, agree: float = 0.6, lists: int = 200, beta: float = 0.1
) -> Mapping[str, Any]:
    """The world of `cpo-mt-study/proxy`; both arms are the same runs of CPO, measured by either."""
    return {"gain": gains("cpo", seeds, agree=agree, lists=lists, beta=beta)[int(arm == "treatment")]}


@claim(
    "cpo-mt-study",
    part="self",
    says="With candidates of its own the second metric gains more (drops less) than with candidates of other systems",
    expects=more("gain of the second metric"),
    treatment="the model's own candidates",
    baseline="other systems' candidates",
    sweep=SWEEP,
)
def own(
    arm: Arm, seeds: Sequence[int], *, agree: float = 0.6, lists: int = 200, beta: float = 0.1
) -> Mapping[str, Any]:
    """The world of `cpo-mt-study/proxy`. Other systems draw with habits of their own, independent of the model's, and
    are better than it by both metrics.

    Not shown: rather the reverse. Candidates of better systems bring the second metric along, since what these systems
    prefer is good by it too. The model's own candidates teach only what the proxy tells apart. The study finds the
    reverse for real translations; in this table, where every response has a logit of its own, nothing is lost by moving
    to what the model would not have said. The sweep shows how it depends on the knobs.
    """
    found = gains("cpo", seeds, agree=agree, lists=lists, beta=beta, external=arm == "baseline")
    return {"gain of the second metric": found[1]}
