"""LLM-judge reliability (Wei et al. 2024): a judge's own flipping taken out of what is measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.judging.reliability import denoise, flip_rate, reliability
from boresight.lab.claims import Arm, claim, less

PAIRS, REPEATS = 400, 5
ACCURACY, PLACE, LENGTH = 0.75, 0.2, 0.15
NAMES = ("accuracy, better first", "accuracy, better second", "accuracy, both", "position bias", "length bias")
SWEEP = {"flips": (0.02, 0.1, 0.2, 0.35), "repeats": (2, 3, 5, 10), "pairs": (50, 400, 2000)}


def simulated(
    seed: int, *, flips: float, repeats: int, pairs: int, uneven: float = 0.5
) -> tuple[NDArray[np.bool_], list[NDArray[np.float64]], NDArray[np.bool_]]:
    """A judge's verdicts without flips, (2, pairs), what it says at each repetition, (pairs, repeats) each, and whether
    the better response is longer. It flips with chance `flips` with the better one first, `uneven` times that second.
    """
    rng = np.random.default_rng(seed)
    longer = rng.random(pairs) < 0.5
    chance = ACCURACY + np.array([[PLACE / 2], [-PLACE / 2]]) + np.where(longer, LENGTH / 2, -LENGTH / 2)
    truth = rng.random((2, pairs)) < chance
    rates = (flips, flips * uneven)
    said = [(t[:, None] ^ (rng.random((pairs, repeats)) < q)).astype(float) for t, q in zip(truth, rates, strict=True)]
    return truth, said, longer


def measured(first: Any, second: Any, longer: Any, kind: str) -> dict[str, float]:
    """Raw or de-noised measures."""
    found = reliability(first, second, longer, rounds=2)
    return {name: getattr(found, kind)[name].value for name in NAMES}


@claim(
    "llm-judge-reliability",
    part="recovers",
    says="The de-noised measures lie nearer to those of the same judge without flips than the raw ones",
    expects=tuple(less(f"error of {name}") for name in NAMES),
    treatment="de-noised",
    baseline="raw",
    sweep=SWEEP,
    smoke=True,
)
def recovers(
    arm: Arm, seeds: Sequence[int], *, flips: float = 0.2, repeats: int = REPEATS, pairs: int = PAIRS
) -> Mapping[str, Any]:
    """400 pairs, asked 5 times in both orders. Without flips the judge is right with chance .75, .10 more where the
    better response is shown first and .10 less where second, .075 more where it is longer and .075 less where not. Each
    verdict is then flipped with chance .2 (better first) or .1 (second). Flip rates are estimated from the repetitions.
    Errors are absolute, against the same measures of the same pairs without flips.

    Varied were the flip rate from .02 to .35, the repetitions from 2 to 10, the pairs from 50 to 2000. At .02 there is
    little to take out, and the gain in length bias is undecided; so is, with 50 pairs, that in the lower accuracy. Two
    repetitions are enough. At .45 repetitions look like the tosses of a coin for some seeds (half of them are unlike),
    and then no de-noised measure is given at all.
    """
    found = []
    for seed in seeds:
        truth, said, longer = simulated(seed, flips=flips, repeats=repeats, pairs=pairs)
        true = measured(*truth[:, :, None].astype(float), longer, "raw")
        seen = measured(*said, longer, "denoised" if arm == "treatment" else "raw")
        found.append([abs(seen[name] - true[name]) for name in NAMES])
    return dict(zip((f"error of {name}" for name in NAMES), np.array(found).T, strict=True))


@claim(
    "llm-judge-reliability",
    part="towards-chance",
    says="Flips pull the raw accuracies towards one half and the raw biases towards none",
    expects=tuple(less(name) for name in ("accuracy, better first", "accuracy, better second", "length bias")),
    treatment="raw",
    baseline="the same judge without flips",
    sweep={"flips": (0.02, 0.1, 0.2, 0.35), "uneven": (0.0, 0.5, 1.0, 2.0)},
)
def towards_chance(arm: Arm, seeds: Sequence[int], *, flips: float = 0.2, uneven: float = 0.5) -> Mapping[str, Any]:
    """The judge of `recovers`, all of whose accuracies are above one half.

    It holds at flip rates from .02 to .35, and at any ratio of the two orders' rates (`uneven`) but 0, where the second
    order has no flips and stays what it is. Position bias is left out: where one order flips more than the other, flips
    can make it seem larger or smaller.
    """
    found = []
    for seed in seeds:
        truth, said, longer = simulated(seed, flips=flips, repeats=REPEATS, pairs=PAIRS, uneven=uneven)
        shown = said if arm == "treatment" else list(truth[:, :, None].astype(float))
        seen = measured(*shown, longer, "raw")
        found.append([seen["accuracy, better first"], seen["accuracy, better second"], seen["length bias"]])
    names = ("accuracy, better first", "accuracy, better second", "length bias")
    return dict(zip(names, np.array(found).T, strict=True))


@claim(
    "llm-judge-reliability",
    part="flip-rate",
    says="q solved from the share of unlike repeats, 2 q (1 - q), de-noises better than that share put in q's place",
    expects=(less("error of accuracy, better first"), less("error of accuracy, both")),
    treatment="q = (1 - sqrt(1 - 2 d)) / 2, both orders by their own rates",
    baseline="q = d, and one rate for the share right in both orders, as in the released code",
    sweep=SWEEP,
)
def flip_rates(
    arm: Arm, seeds: Sequence[int], *, flips: float = 0.2, repeats: int = REPEATS, pairs: int = PAIRS
) -> Mapping[str, Any]:
    """The judge of `recovers`. The baseline is what the released code computes: the share d of unlike answers to
    one question stands for q, so that too much is taken out; and "right in both orders", which is asked again as a
    whole, is corrected by its own d with the formula of a single verdict. What the paper itself says of this was not
    read; the claim is about the two formulas.
    """
    found = []
    for seed in seeds:
        truth, said, longer = simulated(seed, flips=flips, repeats=repeats, pairs=pairs)
        true = measured(*truth[:, :, None].astype(float), longer, "raw")
        first, both = "accuracy, better first", "accuracy, both"
        if arm == "treatment":
            seen = measured(*said, longer, "denoised")
        else:
            whole = said[0] * said[1]
            rates = [min(flip_rate(labels, "released"), 0.49) for labels in (said[0], whole)]
            seen = {first: denoise(said[0].mean(), rates[0]), both: denoise(whole.mean(), rates[1])}
        found.append([abs(seen[name] - true[name]) for name in (first, both)])
    return dict(zip(("error of accuracy, better first", "error of accuracy, both"), np.array(found).T, strict=True))
