"""SGDPO (Zhu et al. 2025): two pilot ratios steer how far chosen log-probs rise and rejected ones fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab.claims import Arm, claim, less, more
from boresight.lab.tokens import TokenPolicy, TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, PAIRS = 4, 8, 6, 200
LR = {"adam": 0.02, "sgd": 10.0}
GRID = (0.2, 0.5, 0.9)
CHOICE = 10_000
"""Added to a seed for the worlds on which ratios are chosen."""


def trained(
    method: str, seed: int, *, steps: int, beta: float = 0.1, optimizer: str = "adam", **ratios: float
) -> tuple[TokenPolicy, float, float]:
    """The policy, and the mean log-probs of chosen and rejected at the end."""
    world = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed=seed)
    pairs = world.sample_pairs(PAIRS, [seed])
    values = {"beta": beta} | ratios
    lr = LR[optimizer]
    policy = fit_tokens(
        world, method, pairs=pairs, hyperparameters=values, steps=steps, lr=lr, seed=seed, optimizer=optimizer
    )
    chosen, rejected = policy.mean_log_probs(pairs)
    return policy, float(chosen), float(rejected)


def moved(seeds: Sequence[int], **how: Any) -> Mapping[str, list[float]]:
    """Mean log-probs of chosen and rejected after training."""
    ends = [trained("sgdpo", seed, **how)[1:] for seed in seeds]
    return {"chosen log-prob": [c for c, _ in ends], "rejected log-prob": [r for _, r in ends]}


@claim(
    "sgdpo",
    part="rejected-side",
    says="A smaller r1 (chosen_ratio) ends with lower rejected log-probs, and moves the chosen less than those",
    expects=(less("rejected log-prob"), more("excess of the rejected's move")),
    treatment="chosen_ratio 0.2",
    baseline="chosen_ratio 1",
    sweep={"ratio": (0.2, 0.6), "beta": (0.1, 0.5, 1.0), "optimizer": ("sgd", "adam")},
)
def sgdpo_rejected(
    arm: Arm, seeds: Sequence[int], *, ratio: float = 0.2, beta: float = 0.5, optimizer: str = "sgd"
) -> Mapping[str, Any]:
    """Sequences of 6 tokens out of 8 after each of 4 prompts, another world for each seed; 200 pairs of a
    Bradley-Terry annotator, 100 steps of plain gradient descent at 10, beta 0.5, rejected_ratio 1 in both arms.
    Log-probs are means over the training pairs, in nats a response. The second outcome is how much more the rejected
    log-prob moved from the baseline than the chosen one did, |change of the rejected| - |change of the chosen|; it is 0
    for the baseline.

    Where it stops holding: with Adam at 0.02, beta 0.1 and 150 steps a smaller r1 is not told from none.
    """
    return _moves(arm, seeds, "rejected", chosen_ratio=ratio, beta=beta, optimizer=optimizer)


@claim(
    "sgdpo",
    part="chosen-side",
    says="A smaller r2 (rejected_ratio) ends with higher chosen log-probs, and moves the rejected less than those",
    expects=(more("chosen log-prob"), more("excess of the chosen's move")),
    treatment="rejected_ratio 0.2",
    baseline="rejected_ratio 1",
    sweep={"ratio": (0.2, 0.6), "beta": (0.1, 0.5, 1.0), "optimizer": ("sgd", "adam")},
)
def sgdpo_chosen(
    arm: Arm, seeds: Sequence[int], *, ratio: float = 0.2, beta: float = 0.5, optimizer: str = "sgd"
) -> Mapping[str, Any]:
    """The same with chosen_ratio 1 in both arms, and the sides turned over.

    Where it stops holding: with Adam at 0.02, beta 0.1 and 150 steps the chosen rise (by 0.9 nats), but the rejected
    rise with them, and further.
    """
    return _moves(arm, seeds, "chosen", rejected_ratio=ratio, beta=beta, optimizer=optimizer)


def _moves(
    arm: Arm, seeds: Sequence[int], side: str, *, beta: float, optimizer: str, **ratio: float
) -> Mapping[str, Any]:
    other = {"chosen": "rejected", "rejected": "chosen"}[side]
    whole = {"chosen_ratio": 1.0, "rejected_ratio": 1.0}
    how: dict[str, Any] = {"steps": 100, "beta": beta, "optimizer": optimizer}
    base = moved(seeds, **how, **whole)
    found = base if arm == "baseline" else moved(seeds, **how, **(whole | ratio))
    here, there = (
        (torch.tensor(found[f"{s} log-prob"]) - torch.tensor(base[f"{s} log-prob"])).abs() for s in (side, other)
    )
    return {f"{side} log-prob": found[f"{side} log-prob"], f"excess of the {side}'s move": here - there}


@claim(
    "sgdpo",
    part="reward",
    says="Some pair of ratios gives a higher true reward than DPO at the same training length",
    expects=more("true reward"),
    treatment="sgdpo, ratios chosen on other worlds",
    baseline="dpo",
    sweep={"beta": (0.1, 0.5)},
)
def sgdpo_reward(arm: Arm, seeds: Sequence[int], *, beta: float = 0.1, steps: int = 150) -> Mapping[str, Any]:
    """The same worlds. The two ratios, each of 0.2, 0.5 and 0.9, are those with the highest mean true reward on four
    other worlds, so that the choice does not flatter itself; true reward is exact, of the policy's own responses. DPO
    has the same beta and steps. 150 steps of Adam at 0.02.

    Not shown: the interval holds 0, within +-0.02. The pilots only change how steep each half of the loss is, and Adam
    rescales its steps. With plain gradient descent at DPO's own rate (10, beta 0.5 or 1, 100 steps) every pair of
    ratios tried, of 0.2 and 1, ends below DPO: each half lets the gradient into one side only, so that its steps
    are half as large.
    """
    if arm == "baseline":
        return {"true reward": [reward("dpo", seed, steps=steps, beta=beta) for seed in seeds]}
    options = [{"chosen_ratio": a, "rejected_ratio": b} for a in GRID for b in GRID]
    others = range(CHOICE, CHOICE + 4)
    best = max(options, key=lambda o: sum(reward("sgdpo", s, steps=steps, beta=beta, **o) for s in others))
    return {"true reward": [reward("sgdpo", seed, steps=steps, beta=beta, **best) for seed in seeds]}


def reward(method: str, seed: int, *, steps: int, beta: float, **ratios: float) -> float:
    """Exact expected reward after training."""
    return float(trained(method, seed, steps=steps, beta=beta, **ratios)[0].expected_reward())
