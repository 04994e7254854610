"""EXO on lists with rewards (Ji et al. 2024): the optimum of KL-regularised RLHF, where the policy can be it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import identity
from boresight.lab.tabular import Lists

PROMPTS, RESPONSES, BETA_POLICY, BETA_REWARD = 4, 6, 0.5, 1.0


@identity(
    "exo-rw",
    says="With enough capacity the policy reaches ref * exp(r / (beta_pi * beta_r)) / Z on the listed responses",
    tolerance=1e-3,
    altered="the optimum for 1 / beta_r",
    smoke=True,
)
def exo_rw(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """A table of 4 prompts with 6 responses, another world for each seed; one list for each prompt, of all its
    responses with their true rewards. A free logit for each response, Adam, 1500 steps at 0.05, beta_pi 0.5, beta_r 1.
    The residual is the largest difference of a probability from the optimum's.

    On lists of fewer responses the optimum is that of the listed ones, each list on its own; where two lists ask for
    different things, the policy stands between them.
    """
    found = []
    for seed in seeds:
        world = TabularWorld.random(PROMPTS, RESPONSES, seed)
        prompt = torch.arange(PROMPTS)[None]
        response = torch.arange(RESPONSES).expand(1, PROMPTS, RESPONSES)
        lists = Lists(prompt, response, world.reward[None], torch.ones(1, PROMPTS, dtype=torch.float64))
        own = {"beta_policy": BETA_POLICY, "beta_reward": BETA_REWARD}
        policy = fit(world, "exo-rw", pairs=lists, hyperparameters=own, steps=1500)
        optimum = world.tilted(BETA_REWARD if altered else BETA_POLICY * BETA_REWARD)
        found.append(float((policy.log_probs().detach()[0].exp() - optimum.exp()).abs().max()))
    return found
