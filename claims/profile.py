"""PROFILE: factor scores order factors as their weights do, and show a policy's own preference for length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from boresight.judging.factors import generated, profile
from boresight.lab import Pairs, TabularWorld, fit
from boresight.lab.claims import Arm, claim, less, more

WEIGHTS = np.array([0.3, 2.0, 1.4, 0.9, 0.6, 0.0])
"""What people give to each factor; the first is length, for which they care little."""
PROMPTS, RESPONSES = 20, 12


@claim(
    "profile",
    part="order",
    says="Factor scores recover the order of an annotator's weights",
    expects=more("tau to the weights", by=0.5),
    treatment="judged by the weights",
    baseline="judged at random",
    sweep={"pairs": (50, 200, 500, 2000), "tied": (0.0, 0.3, 0.6), "strength": (0.25, 0.5, 1.0)},
    smoke=True,
)
def order(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 500, tied: float = 0.3, strength: float = 1.0
) -> Mapping[str, Any]:
    """Six factors, normal differences, of which 30% are ties; 500 pairs judged by Bradley-Terry odds of the
    weighted sum. The outcome is Kendall's tau of the scores (ties "b") to the weights. The baseline is judged at
    random: its tau differs much from seed to seed, so that 0.5 is not surely reached with 50 pairs, or with weights of
    a quarter.
    """
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(pairs, len(WEIGHTS))) * (rng.uniform(size=(pairs, len(WEIGHTS))) >= tied)
        weights = strength * WEIGHTS if arm == "treatment" else 0 * WEIGHTS
        y = (rng.uniform(size=pairs) < 1 / (1 + np.exp(-x @ weights))).astype(float)
        found.append(kendalltau(profile(x, y), WEIGHTS).statistic)
    return {"tau to the weights": np.array(found)}


def world(seed: int, bias: float) -> tuple[TabularWorld, NDArray[np.float64]]:
    """People's rewards by factors, and a policy that prefers length by `bias` on top of half of what people prefer."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(PROMPTS, RESPONSES, len(WEIGHTS)))
    reward = torch.tensor(factors @ WEIGHTS)
    reference = 0.5 * reward + bias * torch.tensor(factors[..., 0])
    return TabularWorld(reward, reference), factors


def scores(factors: NDArray[np.float64], worth: torch.Tensor) -> NDArray[np.float64]:
    """Factor scores of the order in which a table (PROMPTS, RESPONSES) puts its responses."""
    prompts = np.repeat(np.arange(PROMPTS), RESPONSES)
    return profile(*generated(factors.reshape(-1, len(WEIGHTS)), worth.reshape(-1).numpy(), prompts))


@claim(
    "profile",
    part="gap",
    says="A policy that prefers length shows it as a gap to people in that factor, and in no other as large",
    expects=(more("gap in length", by=0.3), more("gap in length less the next", by=0.2)),
    treatment="a policy that prefers length",
    baseline="a policy that does not",
    sweep={"bias": (0.0, 0.5, 1.0, 2.0)},
)
def gap(arm: Arm, seeds: Sequence[int], *, bias: float = 2.0) -> Mapping[str, Any]:
    """20 prompts with 12 responses of six normal factors. People's reward is the weighted sum of factors, with little
    for length. The policy's logits are half of it, and 2 (0) times length on top: its generation preference is the
    order of its own log-probs. The gap is the policy's factor score less people's; outcomes are that of length, and how
    much larger it is than the largest other one in size. It stops holding below a bias of 1.
    """
    found = []
    for seed in seeds:
        made, factors = world(seed, bias if arm == "treatment" else 0.0)
        apart = scores(factors, made.reference) - scores(factors, made.reward)
        found.append([apart[0], apart[0] - np.abs(apart[1:]).max()])
    return dict(zip(("gap in length", "gap in length less the next"), np.array(found).T, strict=True))


def trained(seed: int, feedback: str, pairs: int, beta: float, bias: float) -> float:
    """The gap in length, by size, after feedback: "none", on "any" pairs, or on pairs "aimed" at the gap."""
    made, factors = world(seed, bias)
    logits = made.reference
    if feedback != "none":
        drawn = made.sample_pairs(20 * pairs, [seed])
        length = torch.tensor(factors[..., 0])
        shorter = length[drawn.prompt, drawn.chosen] < length[drawn.prompt, drawn.rejected]
        wanted = shorter[0] if feedback == "aimed" else torch.ones_like(shorter[0])
        some = torch.nonzero(wanted)[:pairs, 0]
        taken = Pairs.of(drawn.prompt[0, some], drawn.chosen[0, some], drawn.rejected[0, some], seeds=[seed])
        logits = fit(made, "dpo", pairs=taken, hyperparameters={"beta": beta}, steps=200).logits[0].detach()
    return float(abs(scores(factors, logits) - scores(factors, made.reward))[0])


SWEEP = {"pairs": (50, 200, 800), "beta": (0.1, 0.3, 1.0), "bias": (1.0, 2.0)}


@claim(
    "profile",
    part="narrowed",
    says="Length-aware feedback narrows the gap in length",
    expects=less("gap in length", by=0.1),
    treatment="after feedback on pairs that the factor scores point to",
    baseline="the policy before",
    sweep=SWEEP,
)
def narrowed(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 200, beta: float = 0.3, bias: float = 2.0
) -> Mapping[str, Any]:
    """The world of `profile/gap`. The policy is trained by DPO on 200 pairs labelled by people (Bradley-Terry odds) and
    drawn from itself: knowing from the factor scores that it overrates length, on pairs in which people prefer the
    shorter response. 200 steps of Adam at 0.05. The outcome is its gap in length, by size, which the feedback has to
    narrow by 0.1 at least: no large share of it, as 200 pairs are few for 20 prompts with 12 responses each.
    """
    feedback = "aimed" if arm == "treatment" else "none"
    return {"gap in length": np.array([trained(seed, feedback, pairs, beta, bias) for seed in seeds])}


@claim(
    "profile",
    part="aimed",
    says="... by more than as much feedback on any pairs does",
    expects=less("gap in length"),
    treatment="after feedback on pairs that the factor scores point to",
    baseline="after feedback on any pairs",
    sweep=SWEEP,
)
def aimed(
    arm: Arm, seeds: Sequence[int], *, pairs: int = 200, beta: float = 0.3, bias: float = 2.0
) -> Mapping[str, Any]:
    """The world of `profile/narrowed`; our own question.

    Not shown: the aimed pairs narrow the gap no more than any pairs do, which are drawn from the policy and so mostly
    show people disagreeing with its length as well. With 50, 200 and 800 pairs and beta 0.1, 0.3 and 1 the two lie
    within 0.04 of each other; aiming is ahead at beta 1 with 800 pairs (0.30 against 0.34) and behind at beta 0.1 with
    800 (0.18 against 0.15), means over four seeds.
    """
    feedback = "aimed" if arm == "treatment" else "any"
    return {"gap in length": np.array([trained(seed, feedback, pairs, beta, bias) for seed in seeds])}
