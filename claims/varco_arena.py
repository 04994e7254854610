"""Varco Arena: brackets on each prompt, against one anchor, for the same number of judge calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from boresight.judging.tournament import against_anchor, all_pairs, single_elimination
from boresight.lab.claims import Arm, claim, more

WORLDS = 20
"""Worlds of each seed, whose correlations are averaged."""


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Of values without ties, or with: tied ones share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b)[0])


@claim(
    "varco-arena",
    says="Brackets and Bradley-Terry order systems nearer to the truth than win rates against one anchor do",
    expects=(more("Spearman with the truth"),),
    treatment="single elimination, Bradley-Terry",
    baseline="win rate against an anchor",
    sweep={
        "anchor": (0.0, 0.25, 0.5, 0.75, 1.0),
        "systems": (4, 8, 20, 40),
        "prompts": (10, 50, 200),
        "spread": (0.3, 1.0, 3.0),
        "place": (0.0, 1.0),
    },
    smoke=True,
)
def brackets(
    arm: Arm,
    seeds: Sequence[int],
    *,
    systems: int = 20,
    prompts: int = 50,
    spread: float = 1.0,
    anchor: float = 0.5,
    place: float = 0.0,
    schedule: str = "bracket",
) -> Mapping[str, Any]:
    """20 systems with skills drawn from a normal law of standard deviation `spread` logits, 50 prompts, and a judge
    who prefers the first of two with probability sigmoid(difference in skill + `place`); both arms ask it 19 times a
    prompt. The treatment pools a bracket for each prompt, drawn anew, and fits Bradley-Terry strengths
    (`judging.tournament.single_elimination`, `Matches.strengths`). The baseline compares all with one system, that at
    the place `anchor` in the order of skills (0.5: the middle one, which serves an anchor best; 1: the strongest), and
    takes the share won against it, one half for the anchor itself. Outcome: Spearman's correlation with the skills,
    the mean of 20 worlds a seed.

    The middle anchor is the baseline at its best: with the weakest or the strongest system as anchor brackets gain 0.08
    and 0.07 instead of 0.02. They gain more where there is less to go by (0.04 with 10 prompts, 0.09 with a spread of
    0.3 logits, 0.15 with a judge who gives the first place 3 logits, places being drawn in both arms) and little where
    both are nearly right (0.003 with 200 prompts). With 4 or 8 systems the difference is too small to be told in 8
    seeds (0.016 +- 0.058, 0.011 +- 0.017). It is pooling and the many opponents that gain, not the brackets: pairs
    drawn from all of them (`schedule="pairs"`, as many calls on a tenth of the prompts) do as well, .958 against .955.
    """
    found = []
    for seed in seeds:
        values = []
        for world in range(WORLDS):
            random = np.random.default_rng((seed, world, arm == "baseline"))
            skills = np.random.default_rng((seed, world)).normal(0, spread, systems)

            def judge(
                asked: np.ndarray, first: np.ndarray, second: np.ndarray, skills: Any = skills, random: Any = random
            ) -> np.ndarray:
                chance = 1 / (1 + np.exp(skills[second] - skills[first] - place))
                return (random.random(len(first)) < chance).astype(float)

            own = int(random.integers(2**31))
            if arm == "baseline":
                chosen = int(np.argsort(skills)[round(anchor * (systems - 1))])
                matches = against_anchor(judge, systems, prompts, anchor=chosen, seed=own)
                told = matches.win_rates()
                told[chosen] = 0.5
            elif schedule == "bracket":
                told = single_elimination(judge, systems, prompts, seed=own).strengths()
            else:
                told = all_pairs(judge, systems, prompts, budget=prompts * (systems - 1), seed=own).strengths()
            values.append(spearman(told, skills))
        found.append(np.mean(values))
    return {"Spearman with the truth": torch.tensor(found)}
