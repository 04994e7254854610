"""DPO with an offset from the scores."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from boresight.objectives import odpo as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close, margins, numbers, random_pairs


def odpo(pair: Pair, beta: float, alpha: float, offset: str) -> float:
    better, worse = pair.chosen_known.scores["score"], pair.rejected_known.scores["score"]
    gap = better - worse if offset == "difference" else better / worse
    won, lost = implicit_rewards(pair)
    return surprise(beta * (won - lost) - alpha * math.log(gap))


def scored(pairs: PairLogProbs, chosen: list[float], rejected: list[float]) -> PairLogProbs:
    return PairLogProbs(pairs.policy, pairs.reference, Given(scores={"score": numbers(*chosen, *rejected)}))


def test_by_hand() -> None:
    # sigmoid of beta h - log 3 with beta h = log 9: log-odds log 3
    pairs = scored(margins(10 * math.log(9)), [5.0], [2.0])
    close(loss(pairs, beta=0.1), [math.log(4 / 3)])
    # alpha = 2: log-odds 0; as a ratio 5 / 2: odds 9 / 2.5
    close(loss(pairs, beta=0.1, alpha=2.0), [math.log(2)])
    close(loss(pairs, beta=0.1, offset="ratio"), [math.log(1 + 2.5 / 9)])


def test_without_margin_the_loss_is_log_of_one_plus_the_gap() -> None:
    close(loss(scored(margins(0, 0), [3.0, 0.6], [0.0, 0.1])), [math.log(4), math.log(1.5)])


def test_a_gap_of_one_and_alpha_of_zero_are_dpo() -> None:
    pairs = random_pairs()
    close(loss(scored(pairs, [2.0] * 6, [1.0] * 6), beta=0.3), dpo(pairs, beta=0.3))
    close(loss(scored(pairs, [1.0] * 6, [2.0] * 6), beta=0.3, alpha=0.0), dpo(pairs, beta=0.3), 0)


def test_both_offsets_agree_where_difference_equals_ratio() -> None:
    pairs = scored(margins(3, -3), [4.0, 4.5], [2.0, 1.5])  # 4 - 2 = 4 / 2, 4.5 - 1.5 = 4.5 / 1.5
    close(loss(pairs), loss(pairs, offset="ratio"))


def test_a_larger_gap_asks_for_more() -> None:
    values = loss(scored(margins(1, 1, 1), [0.5, 1.0, 8.0], [0.0, 0.0, 0.0]))
    assert values[0] < values[1] < values[2]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="'score'"):
        loss(margins(1))
    with pytest.raises(ValueError, match="above that of the rejected"):
        loss(scored(margins(1, 1), [1.0, 2.0], [0.0, 2.0]))
    with pytest.raises(ValueError, match="finite"):
        loss(scored(margins(1), [math.nan], [0.0]))
    with pytest.raises(ValueError, match="above 0"):
        loss(scored(margins(1), [1.0], [-1.0]), offset="ratio")
    with pytest.raises(ValueError, match="offset"):
        loss(scored(margins(1), [1.0], [0.0]), offset="log")


@pytest.mark.parametrize("offset", ["difference", "ratio"])
def test_each_agrees_with_the_rewrite(offset: str) -> None:
    known = objectives()["odpo"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, offset=offset)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, offset=offset), rtol=1e-10, atol=1e-12)
