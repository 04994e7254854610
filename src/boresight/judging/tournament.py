"""Which systems a judge is asked to compare on which prompt: brackets, an anchor, all pairs, pairs at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from boresight.judging.ranking import PRIOR, shape
from boresight.judging.ranking_fit import Floats, Ints, fit
from boresight.paper import paper

Judge = Callable[[Ints, Ints, Ints], Floats]
"""judge(prompts, first, second) -> outcomes: of many matches at once, (n,) each; 1 where the system shown first won, 0
where the second did, 0.5 for a tie. Prompts and systems are numbers."""


@dataclass(frozen=True)
class Matches:
    """Matches in the order in which they were judged, (n,) each; systems: how many there are."""

    prompt: Ints
    first: Ints
    second: Ints
    outcome: Floats
    systems: int

    def __len__(self) -> int:
        return len(self.outcome)

    def win_rates(self) -> Floats:
        """Share of its matches that each system won, a tie half, (systems,); nan without a match."""
        won = np.bincount(self.first, self.outcome, self.systems)
        won += np.bincount(self.second, 1 - self.outcome, self.systems)
        played = np.bincount(np.concatenate([self.first, self.second]), minlength=self.systems)
        with np.errstate(invalid="ignore"):
            return np.where(played > 0, won / played, np.nan)

    def strengths(self) -> Floats:
        """Bradley-Terry strengths in logits of mean 0, (systems,); see `boresight.judging.ranking_fit.fit`.

        Where matches leave strengths without a bound, with the prior that `boresight rank` takes.
        """
        wins, ties = np.zeros((2, self.systems, self.systems))
        np.add.at(wins, (self.first, self.second), self.outcome == 1)
        np.add.at(wins, (self.second, self.first), self.outcome == 0)
        np.add.at(ties, (self.first, self.second), self.outcome == 0.5)
        bounded = shape(wins, ties + ties.T).bounded
        prior = 0.0 if bounded else PRIOR
        return fit(self.first, self.second, self.outcome, self.systems, clusters=self.prompt, prior=prior).strength


@paper("varco-arena")
def single_elimination(judge: Judge, systems: int, prompts: int, *, seed: int = 0) -> Matches:
    """For each prompt a knock-out bracket in random order: systems - 1 matches, as many as against one anchor.

    Where the number of systems is no power of two, as many as are missing have no match in the first round. Who is
    shown first is drawn; after a tie a coin says who goes on. The judge is asked once a round, for all prompts.
    Raises ValueError with fewer than two systems or no prompt.
    Source: Varco Arena (Son et al. 2024): a bracket for each prompt, all matches pooled into one rating.
    """
    _checked(systems, prompts)
    random = np.random.default_rng(seed)
    left = random.permuted(np.tile(np.arange(systems), (prompts, 1)), axis=1)
    size = 1 << (systems - 1).bit_length()
    rounds = []
    free = size - systems
    while left.shape[1] > 1:
        waiting, playing = left[:, :free], left[:, free:]
        one, other = playing[:, 0::2], playing[:, 1::2]
        asked = np.repeat(np.arange(prompts), one.shape[1])
        played = _ask(judge, asked, one.ravel(), other.ravel(), random)
        rounds.append(played)
        first_won = np.where(played[3] == 0.5, random.random(len(asked)) < 0.5, played[3] > 0.5)
        winners = np.where(first_won, played[1], played[2]).reshape(prompts, -1)
        left = np.concatenate([waiting, winners], 1)
        free = 0
    return _gathered(rounds, systems)


def against_anchor(judge: Judge, systems: int, prompts: int, *, anchor: int = 0, seed: int = 0) -> Matches:
    """For each prompt every other system against one: systems - 1 matches. Raises ValueError for no such anchor."""
    _checked(systems, prompts)
    if not 0 <= anchor < systems:
        raise ValueError(f"anchor {anchor} is none of {systems} systems")
    others = np.delete(np.arange(systems), anchor)
    asked = np.repeat(np.arange(prompts), systems - 1)
    one = np.tile(others, prompts)
    return _gathered([_ask(judge, asked, one, np.full_like(one, anchor), np.random.default_rng(seed))], systems)


def all_pairs(judge: Judge, systems: int, prompts: int, *, budget: int | None = None, seed: int = 0) -> Matches:
    """Every pair on every prompt, in turn, until `budget` calls are spent: systems (systems - 1) / 2 a prompt.

    The pairs of the last prompt that is begun are drawn. Raises ValueError for a budget below 1.
    """
    _checked(systems, prompts)
    one, other = np.triu_indices(systems, 1)
    if budget is not None and budget < 1:
        raise ValueError(f"a budget of {budget} calls asks nothing")
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(one)) for _ in range(prompts)])[:budget]
    asked = np.repeat(np.arange(prompts), len(one))[:budget]
    return _gathered([_ask(judge, asked, one[order], other[order], random)], systems)


def random_pairs(judge: Judge, systems: int, prompts: int, *, each: int | None = None, seed: int = 0) -> Matches:
    """For each prompt `each` different pairs at random, systems - 1 if not given. Raises ValueError for too many."""
    _checked(systems, prompts)
    one, other = np.triu_indices(systems, 1)
    each = systems - 1 if each is None else each
    if not 1 <= each <= len(one):
        raise ValueError(f"{each} pairs a prompt, of {len(one)} that there are")
    random = np.random.default_rng(seed)
    order = random.permuted(np.tile(np.arange(len(one)), (prompts, 1)), axis=1)[:, :each].ravel()
    asked = np.repeat(np.arange(prompts), each)
    return _gathered([_ask(judge, asked, one[order], other[order], random)], systems)


def _checked(systems: int, prompts: int) -> None:
    if systems < 2:
        raise ValueError(f"{systems} systems: a match needs two")
    if prompts < 1:
        raise ValueError("no prompt to compare on")


Played = tuple[Ints, Ints, Ints, Floats]


def _ask(judge: Judge, prompts: Ints, one: Ints, other: Ints, random: np.random.Generator) -> Played:
    """The matches with places drawn, judged. Raises ValueError for outcomes that are none."""
    turn = random.random(len(one)) < 0.5
    first, second = np.where(turn, other, one), np.where(turn, one, other)
    outcome = np.asarray(judge(prompts, first, second), np.float64)
    if outcome.shape != first.shape or not np.isin(outcome, (0, 0.5, 1)).all():
        raise ValueError("a judge gives 1, 0.5 or 0 for each match")
    return prompts, first, second, outcome


def _gathered(rounds: list[Played], systems: int) -> Matches:
    prompt, first, second, outcome = (np.concatenate(column) for column in zip(*rounds, strict=True))
    return Matches(prompt, first, second, outcome, systems)
