"""Pairs told the quality that is asked for: at the chosen response's score it wins, at the rejected one's that one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from boresight.curation.curated import Curated
from boresight.curation.told import name_of, told
from boresight.data import views
from boresight.data.example import Example, Pair
from boresight.errors import InputError
from boresight.paper import paper


def goal(score: float, *, low: float = 1, high: float = 10) -> str:
    """The words that ask for an answer of this score. Raises InputError if it is not on the scale from low to high."""
    if not low < high:
        raise InputError(f"the scale goes from {low} to {high}", mend="give a lower end below the upper one")
    if not low <= score <= high:
        raise InputError(
            f"a score of {score:g} is not on the scale from {low:g} to {high:g}",
            mend="give the ends of the scale that the scores are on: low and high",
        )
    return f"Target score of the answer: {score:g}, on a scale from {low:g} (worst) to {high:g} (best)."


def aim(
    examples: Iterable[Example], score: float, *, low: float = 1, high: float = 10, system: bool = True
) -> list[Example]:
    """The examples with this goal in their prompts and nothing else changed: to sample, evaluate or serve with.

    Give the scale, and `system`, of the data that the model was trained on; the paper asks for the highest score.
    """
    words = goal(score, low=low, high=high)
    return [told(example, words, system=system) for example in examples]


@paper("reward-augmented-dpo")
def reward_augmented_dpo(
    examples: Iterable[Example],
    *,
    name: str = "score",
    low: float = 1,
    high: float = 10,
    ranked: Literal["all", "best-worst"] = "best-worst",
    system: bool = True,
) -> Curated:
    """Each pair twice: asked for the chosen response's score it stays, asked for the rejected one's it is turned round.

    name: the scores that goals are made of, the mean over annotators; low, high: the scale that they are on, which the
    prompt names. ranked: where examples have ranks or scores and no pairs, which pairs are made. system: whether the
    goal is a message of the system, or, for templates without one, heads the user's first.

    The two follow each other, and have the pair's weight and annotator each; the id of both is that of the example
    (else its source) with "~goal SCORE" behind, of pair k of several "~k~goal SCORE". Other feedback is left out:
    asked for less than the best, neither scores nor ranks say which response is wanted. counts: pairs that were
    doubled; those left out as a response has no such score, as both have the same (no goal tells them apart), or as
    the rejected one has the higher; examples without a pair; ties.

    Train on the result with dpo or another loss on pairs, then ask for the best score with `aim`.

    Raises InputError if a score is not on the scale.
    Source: Zhang et al. 2024 (2410.08067), sec. 4; shenao-zhang/reward-augmented-preference, which has longer words
    and keeps pairs of equal scores.
    """
    goal(low, low=low, high=high)
    words = ("pairs doubled", "pairs without scores", "pairs of equal scores", "pairs against their scores",
             "examples without a pair", "ties")  # fmt: skip
    counts = dict.fromkeys(words, 0)
    made: list[Example] = []
    for index, example in enumerate(examples):
        own, worth = name_of(example, index), _scores(example, name)
        found = views.pairs(example, ranked=ranked)
        counts["examples without a pair"] += not found
        counts["ties"] += sum(pair.tie for pair in example.pairs)
        for k, pair in enumerate(found):
            better, worse = worth.get(pair.chosen), worth.get(pair.rejected)
            if better is None or worse is None:
                counts["pairs without scores"] += 1
            elif better <= worse:
                counts["pairs of equal scores" if better == worse else "pairs against their scores"] += 1
            else:
                counts["pairs doubled"] += 1
                of = f"{own}~{k}" if len(found) > 1 else own
                for score, wanted in ((better, pair), (worse, _turned(pair))):
                    made.append(_asked(example, of, score, wanted, low, high, system))
    return Curated(tuple(made), counts)


def _asked(example: Example, of: str, score: float, pair: Pair, low: float, high: float, system: bool) -> Example:
    try:
        words = goal(score, low=low, high=high)
    except InputError as error:
        raise InputError(f"{of}: {error.what}", mend=error.mend) from None
    bare = replace(example, pairs=(pair,), scores=(), labels=(), ranks=(), steps=(), id=f"{of}~goal {score:g}")
    return told(bare, words, system=system)


def _turned(pair: Pair) -> Pair:
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def _scores(example: Example, name: str) -> dict[int, float]:
    given: dict[int, list[float]] = {}
    for score in example.scores:
        if score.name == name:
            given.setdefault(score.response, []).append(score.value)
    return {response: sum(values) / len(values) for response, values in given.items()}
