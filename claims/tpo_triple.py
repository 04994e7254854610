"""Triple preference optimisation (Saeidi et al. 2024): one stage from a base model, against DPO from the same start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab import TabularWorld, fit
from boresight.lab.claims import Arm, claim, more

PROMPTS, RESPONSES, LISTS = 15, 8, 60


def outcomes(
    method: str, seeds: Sequence[int], *, alpha: float, beta: float, noise: float, steps: int
) -> Mapping[str, Any]:
    """Mean log-prob of the gold responses of fresh lists, and the share of fresh pairs that log-probs order rightly."""
    gold, accuracy = [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        reward, reference = torch.randn(2, PROMPTS, RESPONSES, generator=rng, dtype=torch.float64)
        lengths = torch.randint(5, 16, reward.shape, generator=rng)
        off_topic = torch.arange(RESPONSES) >= RESPONSES // 2
        world = TabularWorld(reward, reference, lengths)
        on_topic = reference.masked_fill(off_topic, -60.0)
        lists, fresh = (world.sample_lists(LISTS, 3, [s], noise=noise, proposal=on_topic) for s in (seed, seed + 500))
        if method == "dpo":
            policy = fit(world, "dpo", pairs=lists.pairs("best-worst"), hyperparameters={"beta": beta}, steps=steps)
        else:
            own = {"alpha": alpha, "beta": beta}
            policy = fit(world, "tpo-triple", pairs=lists, hyperparameters=own, steps=steps)
        chosen, _ = policy.mean_log_probs(fresh.pairs("best-worst"))
        gold.append(chosen.detach())
        everything = world.population(proposal=on_topic)
        accuracy.append(policy.accuracy(everything, ratio=False).detach())
    return {"gold log-prob": torch.cat(gold), "accuracy": torch.cat(accuracy)}


SWEEP = {
    "alpha": (0.0, 0.1, 0.5, 2.0, 10.0), "beta": (0.02, 0.1, 0.5), "noise": (0.0, 0.5, 1.0, 2.0),
    "steps": (30, 100, 300),
}  # fmt: skip


@claim(
    "tpo-triple",
    part="gold",
    says="From a base model without fine-tuning, TPO ends with a higher log-prob of gold responses than DPO",
    expects=more("gold log-prob"),
    treatment="tpo-triple",
    baseline="dpo on gold against dispreferred",
    sweep=SWEEP,
    smoke=True,
)
def tpo_gold(
    arm: Arm, seeds: Sequence[int], *, alpha: float = 0.5, beta: float = 0.1, noise: float = 1.0, steps: int = 100
) -> Mapping[str, Any]:
    """A table of 15 prompts with 8 responses of 5 to 15 tokens, another one for each seed; the base model spends half
    of its probability on responses off the topic. 60 lists of three responses on the topic, scored by true reward plus
    noise; DPO has the best and the worst of each. Gold log-prob is that of the best of other lists, in nats a response.

    Where it stops holding: with alpha = 0, without the likelihood, DPO's is higher (by 0.6 nats); and with exact scores
    (noise = 0), where the best of a prompt's lists is mostly the same, the two are alike. Gold log-prob and
    accuracy were one claim at first, which was undecided.
    """
    method = "tpo-triple" if arm == "treatment" else "dpo"
    found = outcomes(method, seeds, alpha=alpha, beta=beta, noise=noise, steps=steps)
    return {"gold log-prob": found["gold log-prob"]}


@claim(
    "tpo-triple",
    part="accuracy",
    says="From a base model without fine-tuning, TPO ends with a higher preference accuracy than DPO",
    expects=more("accuracy"),
    treatment="tpo-triple",
    baseline="dpo on gold against dispreferred",
    sweep=SWEEP,
)
def tpo_accuracy(
    arm: Arm, seeds: Sequence[int], *, alpha: float = 0.5, beta: float = 0.1, noise: float = 1.0, steps: int = 100
) -> Mapping[str, Any]:
    """The world of `tpo-triple/gold`; accuracy is over all pairs on the topic, ordered by the policy's own log-prob.

    Not shown: the two order pairs alike. Over alpha 0.5 to 10, beta 0.02 to 0.5, noise 0 to 2 and 30 to 300 steps no
    interval was away from 0 (differences -0.04 to +0.02); with alpha = 0 or 0.1 DPO was better, by 0.11 and 0.05, since
    it learns from the best response and TPO's preference term does not.
    """
    method = "tpo-triple" if arm == "treatment" else "dpo"
    found = outcomes(method, seeds, alpha=alpha, beta=beta, noise=noise, steps=steps)
    return {"accuracy": found["accuracy"]}
