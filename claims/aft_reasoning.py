"""AFT (Wang et al. 2023): the constraint that keeps wrong chains from being pushed down without end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab.claims import Arm, claim, more
from boresight.lab.tokens import TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, LISTS = 6, 5, 6, 20
SWEEP = {"k": (4, 10), "sft": (0.0, 0.3, 1.0), "steps": (30, 100, 200)}


def right(prompt: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """1 where the tokens add up to the prompt's number, modulo the vocabulary: many chains are right."""
    return (tokens.sum(-1) % VOCABULARY == prompt % VOCABULARY).double()


def outcomes(constraint: str, seeds: Sequence[int], *, k: int, sft: float, steps: int, lr: float) -> Mapping[str, Any]:
    """The chance of a right chain, exact, and the mean log-prob per token of fresh right chains."""
    world = TokenWorld(TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, 0).reference, right)
    lists, fresh = (world.sample_lists(n, k, [s + far for s in seeds]) for n, far in ((LISTS, 0), (100, 500)))
    own = {"constraint": constraint, "sft": sft}
    policy = fit_tokens(world, "aft-reasoning", pairs=lists, hyperparameters=own, steps=steps, lr=lr)
    with torch.no_grad():
        rows = fresh.rows()
        values = world.log_prob(policy.logits, rows.prompt, rows.response) / LENGTH
        likelihood = (values * fresh.grades).sum((1, 2)) / fresh.grades.sum((1, 2))
        return {"right chains": policy.expected_reward(), "log-prob of right chains": likelihood}


@claim(
    "aft-reasoning",
    part="detached-likelihood",
    says="With the detached constraint right chains keep a higher likelihood than without a constraint",
    expects=more("log-prob of right chains"),
    treatment="aft-reasoning constraint=detached",
    baseline="aft-reasoning constraint=none",
    sweep=SWEEP,
)
def aft_detached_likelihood(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, sft: float = 1.0, steps: int = 200, lr: float = 0.05
) -> Mapping[str, Any]:
    """Chains of 6 tokens over a vocabulary of 5, six prompts, one random reference, other data for each seed; a chain
    is right if its tokens add up to the prompt's number modulo 5, so that right and wrong chains share most of their
    tokens, and about a fifth is right at the start. 20 lists of k chains of the reference, k = 6. The log-prob, per
    token, is that of right chains of 100 other lists. Likelihood and accuracy were one claim at first, and with either
    constraint it did not hold.
    """
    constraint = "detached" if arm == "treatment" else "none"
    found = outcomes(constraint, seeds, k=k, sft=sft, steps=steps, lr=lr)
    return {"log-prob of right chains": found["log-prob of right chains"]}


@claim(
    "aft-reasoning",
    part="detached-accuracy",
    says="With the detached constraint right chains are sampled more often than without a constraint",
    expects=more("right chains"),
    treatment="aft-reasoning constraint=detached",
    baseline="aft-reasoning constraint=none",
    sweep=SWEEP,
)
def aft_detached_accuracy(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, sft: float = 1.0, steps: int = 200, lr: float = 0.05
) -> Mapping[str, Any]:
    """The world of `aft-reasoning/detached-likelihood`; the chance of a right chain is exact.

    Not shown: right chains are sampled a little less often with the constraint than without (by 0.02 after 300 steps
    with 40 lists; with 10 lists the two were alike). Pushed down without end, wrong chains take right ones along that
    were not in the data, and their log-prob falls by more than a nat per token; but the right chains of the data rise
    for it, and they are what this policy says. Degraded text, which the paper counts as wrong, does not exist here.
    """
    constraint = "detached" if arm == "treatment" else "none"
    found = outcomes(constraint, seeds, k=k, sft=sft, steps=steps, lr=lr)
    return {"right chains": found["right chains"]}


@claim(
    "aft-reasoning",
    part="boundary-likelihood",
    says="With the boundary constraint right chains keep a higher likelihood than without a constraint",
    expects=more("log-prob of right chains"),
    treatment="aft-reasoning constraint=boundary",
    baseline="aft-reasoning constraint=none",
    sweep=SWEEP,
)
def aft_boundary_likelihood(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, sft: float = 1.0, steps: int = 200, lr: float = 0.05
) -> Mapping[str, Any]:
    """The world of `aft-reasoning/detached-likelihood`."""
    constraint = "boundary" if arm == "treatment" else "none"
    found = outcomes(constraint, seeds, k=k, sft=sft, steps=steps, lr=lr)
    return {"log-prob of right chains": found["log-prob of right chains"]}


@claim(
    "aft-reasoning",
    part="boundary-accuracy",
    says="With the boundary constraint right chains are sampled more often than without a constraint",
    expects=more("right chains"),
    treatment="aft-reasoning constraint=boundary",
    baseline="aft-reasoning constraint=none",
    sweep=SWEEP,
)
def aft_boundary_accuracy(
    arm: Arm, seeds: Sequence[int], *, k: int = 6, sft: float = 1.0, steps: int = 200, lr: float = 0.05
) -> Mapping[str, Any]:
    """The world of `aft-reasoning/detached-likelihood`; the chance of a right chain is exact.

    Not shown: right chains are sampled less often with the boundary than without (0.28 against 0.38 after 300 steps
    with 40 lists, 0.32 against 0.42 with 10). A wrong chain is let rest half the gap of 0.4 nats per token below the
    lowest right one, which with 6 tokens leaves it 0.3 of its chance; without a constraint it goes to 0. See
    `aft-reasoning/detached-accuracy`.
    """
    constraint = "boundary" if arm == "treatment" else "none"
    found = outcomes(constraint, seeds, k=k, sft=sft, steps=steps, lr=lr)
    return {"right chains": found["right chains"]}
