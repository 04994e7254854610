"""LN-DPO: log-ratios per token."""

from __future__ import annotations

import math

from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo, simpo
from boresight.objectives import ln_dpo as loss
from oracles import Pair, implicit_rewards, surprise
from test_objectives_golden import close, numbers, random_pairs


def ln_dpo(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * won / len(pair.chosen) - beta * lost / len(pair.rejected))


def test_by_hand() -> None:
    # gains of 6 nats on 3 tokens and of 5 nats on 5: 2 - 1 nats per token
    chosen, rejected = LogProbs.from_sequences([numbers(-1, -2, -1)]), LogProbs.from_sequences([numbers(*[-1] * 5)])
    reference = PairSide(
        LogProbs.from_sequences([numbers(-3, -3, -4)]), LogProbs.from_sequences([numbers(-2, -1, -3, -2, -2)])
    )
    close(loss(PairLogProbs(PairSide(chosen, rejected), reference), beta=2.0), [math.log1p(math.exp(-2))])


def test_equal_lengths_are_dpo_with_beta_over_length() -> None:
    pairs = random_pairs(length=4)
    close(loss(pairs, beta=2.0), dpo(pairs, beta=0.5))


def test_repeating_a_response_changes_nothing() -> None:
    def of(times: int) -> PairLogProbs:
        def side(*tokens: float) -> LogProbs:
            return LogProbs.from_sequences([numbers(*(tokens * times))])

        return PairLogProbs(PairSide(side(-1, -3), side(-2, -0.5)), PairSide(side(-2, -2), side(-1, -1)))

    close(loss(of(7)), loss(of(1)))


def test_with_a_uniform_reference_it_is_simpo_without_its_margin() -> None:
    """A reference that gives every token the same probability drops out per token; summed, it would not."""
    pairs = random_pairs()

    def uniform(like: LogProbs) -> LogProbs:
        return LogProbs(like.values * 0 - 4.0, like.owner, like.count)

    policy = pairs.policy
    flat = PairLogProbs(policy, PairSide(uniform(policy.chosen), uniform(policy.rejected)))
    close(loss(flat, beta=2.5), simpo(pairs, beta=2.5, gamma_beta_ratio=0.0))
