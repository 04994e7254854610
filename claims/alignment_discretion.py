"""AI Alignment at Your Discretion: what annotators do where principles agree, conflict, or are silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from boresight.judging.discretion import arbitrariness, discrepancy, priorities
from boresight.judging.explain_fit import logistic
from boresight.lab.claims import Arm, claim, more, same

WEIGHTS = np.array([2.0, 1.5, 1.1, 0.8, 0.55, 0.35, 0.2, 0.1])
"""How much the annotator gives to each principle."""


def world(pairs: int, seed: int, silent: float) -> NDArray[np.int64]:
    """An oracle's verdicts, (pairs, 8): each principle is silent with that probability, else for either side."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1, 0, 1], size=(pairs, len(WEIGHTS)), p=[(1 - silent) / 2, silent, (1 - silent) / 2])


def annotated(verdicts: NDArray[np.int64], weights: NDArray[np.float64], flip: float, seed: int) -> NDArray[np.int64]:
    """An annotator's choices: by the weighted sum of verdicts, a coin where it is 0, turned over with this rate."""
    rng = np.random.default_rng(10_000 + seed)
    coin = rng.choice([-1, 1], size=len(verdicts))
    sums = verdicts @ weights
    choice = np.where(np.abs(sums) > 1e-12, np.sign(sums), coin)
    return (choice * np.where(rng.uniform(size=len(verdicts)) < flip, -1, 1)).astype(np.int64)


@claim(
    "alignment-discretion",
    part="arbitrariness",
    says="Arbitrariness tracks the rate at which an annotator goes against its principles, and is that rate",
    expects=(more("arbitrariness", by=0.15), same("arbitrariness less flips", within=0.03)),
    treatment="30% flips",
    baseline="10% flips",
    sweep={"pairs": (300, 1000, 4000), "silent": (0.5, 0.7, 0.9)},
    smoke=True,
)
def tracked(arm: Arm, seeds: Sequence[int], *, pairs: int = 4000, silent: float = 0.7) -> Mapping[str, Any]:
    """4,000 pairs, eight principles, each silent of 70% of the pairs. The annotator follows the weighted sum of the
    principles, weights from 2 to 0.1, and 30% (10%) of its choices are turned over. With 300 pairs the second
    expectation is undecided, as consensus among eight principles is then too rare.
    """
    flip, found = 0.3 if arm == "treatment" else 0.1, []
    for seed in seeds:
        verdicts = world(pairs, seed, silent)
        rate = arbitrariness(verdicts, annotated(verdicts, WEIGHTS, flip, seed)).value
        found.append([rate, rate - flip])
    return dict(zip(("arbitrariness", "arbitrariness less flips"), np.array(found).T, strict=True))


@claim(
    "alignment-discretion",
    part="priorities",
    says="Priorities fitted on conflicts recover the annotator's ranking of principles through the flips",
    expects=more("tau to the true ranking", by=0.7),
    treatment="an annotator with weights, 20% flips",
    baseline="an annotator without principles",
    sweep={"pairs": (300, 1000, 4000), "flip": (0.0, 0.2, 0.4)},
)
def recovered(arm: Arm, seeds: Sequence[int], *, pairs: int = 4000, flip: float = 0.2) -> Mapping[str, Any]:
    """The world of `alignment-discretion/arbitrariness`. The baseline's choices are coins. The weakest principles, 0.2
    and 0.1, hardly ever decide, and rankings at random differ from seed to seed: with 300 or 1,000 pairs, or 40% flips,
    the mean gain is 0.8 or more, but not surely 0.7.
    """
    found = []
    for seed in seeds:
        verdicts = world(pairs, seed, 0.7)
        choices = annotated(verdicts, WEIGHTS, flip if arm == "treatment" else 0.5, seed)
        found.append(kendalltau(priorities(verdicts, choices).value, WEIGHTS).statistic)
    return {"tau to the true ranking": np.array(found)}


@claim(
    "alignment-discretion",
    part="discrepancy",
    says="A reward model trained on an annotator's labels has other priorities than the annotator, by more than the "
    "annotator's own halves differ",
    expects=more("discrepancy"),
    treatment="reward model and annotator",
    baseline="one half of the annotator's choices and the other",
    sweep={"blur": (0.0, 0.5, 1.0, 2.0), "pairs": (1000, 4000)},
)
def differs(arm: Arm, seeds: Sequence[int], *, pairs: int = 4000, blur: float = 1.0) -> Mapping[str, Any]:
    """The world of `alignment-discretion/arbitrariness`, 10% flips. The reward model (a regression without intercept)
    does not see the principles but eight features that are mixtures of them: each principle's verdict times a random
    matrix (the identity plus normal noise of standard deviation 0.3), plus normal noise of standard deviation `blur`.
    It is trained on the first half; its choices on the second half are compared with the annotator's there. The
    baseline is what sampling alone does: the annotator's priorities on its first half against those on its second.

    That it has priorities of its own comes from features that are not the principles: with mixtures alone (`blur` 0)
    it is undecided, 0.05 at either number of pairs, and the difference grows with `blur`.
    """
    found = []
    for seed in seeds:
        verdicts = world(pairs, seed, 0.7)
        choices = annotated(verdicts, WEIGHTS, 0.1, seed)
        half = pairs // 2
        own = priorities(verdicts[half:], choices[half:]).value
        if arm == "treatment":
            rng = np.random.default_rng(20_000 + seed)
            mixed = np.eye(len(WEIGHTS)) + 0.3 * rng.normal(size=(len(WEIGHTS), len(WEIGHTS)))
            seen = verdicts @ mixed + blur * rng.normal(size=verdicts.shape)
            reward = logistic(seen[:half], (choices[:half] + 1) / 2)
            other = priorities(verdicts[half:], np.sign(seen[half:] @ reward).astype(np.int64)).value
        else:
            other = priorities(verdicts[:half], choices[:half]).value
        found.append(discrepancy(own, other))
    return {"discrepancy": np.array(found)}
