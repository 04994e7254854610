from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {"closed_form_at_zero_margin": "the checks draw a state at random; at the start the shift is 0, tested here"}

loss = objectives()["bco-pair"].function


def bco_pair(examples: list[Pair], beta: float, decay: float, shift: bool) -> list[float]:
    rewards = [tuple(beta * g for g in implicit_rewards(e)) for e in examples]
    before = examples[0].around.state
    every = [r for both in rewards for r in both]
    count = decay * before.get("count", 0.0) + len(every)
    delta = (decay * before.get("sum", 0.0) + math.fsum(every)) / count if shift else 0.0
    return [surprise(w - delta) + surprise(delta - low) for w, low in rewards]


def batch(won: list[float], lost: list[float], **state: float) -> PairLogProbs:
    w, low = (torch.tensor(x, dtype=torch.float64) for x in (won, lost))
    made = PairLogProbs.from_sums(w - 20, low - 20, torch.full_like(w, -20), torch.full_like(w, -20))
    made.given = Given(
        state={n: torch.tensor(v, dtype=torch.float64) for n, v in ({"sum": 0, "count": 0} | state).items()}
    )
    return made


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    some = batch([4, 2], [0, -2])  # mean 1
    close(loss(some, beta=1.0), [surprise(3) + surprise(1), surprise(1) + surprise(3)])
    close(loss(some, beta=1.0, shift=False), [surprise(4) + surprise(0), 2 * surprise(2)])
    # with 8 over 4 rewards before, halved: (4 + 4) / (2 + 4)
    close(
        loss(batch([4, 2], [0, -2], sum=8, count=4), beta=1.0, decay=0.5),
        [surprise(4 - 4 / 3) + surprise(4 / 3), surprise(2 - 4 / 3) + surprise(2 + 4 / 3)],
    )


def test_starts_at_twice_log_two_and_remembers() -> None:
    known = objectives()["bco-pair"]
    assert known.update is not None
    close(loss(batch([0], [0])), [2 * math.log(2)])
    told = known.update(batch([4, 2], [0, -2], sum=8, count=4), beta=0.5, decay=0.5, shift=True)
    assert {n: v.item() for n, v in told.items()} == {"sum": 4 + 2, "count": 2 + 4}


def test_lies_above_dpo_and_meets_it_where_one_side_is_settled() -> None:
    """-log s(a - b) < -log s(a) - log s(-b); for a far above the shift and b = 0 the two differ by log 2 at most."""
    for won, lost in ((4, -1), (-3, 2), (0, 0), (30, 29)):
        one = batch([won], [lost])
        assert loss(one, beta=1.0).item() > dpo(one, beta=1.0).item()
        assert loss(one, beta=1.0, shift=False).item() > dpo(one, beta=1.0).item()


def test_the_shift_of_the_pair_itself_makes_it_twice_dpo_at_half_beta() -> None:
    """One pair, no memory: delta is midway, so both terms are -log s((r_w - r_l) / 2)."""
    some = batch([5], [3])
    close(loss(some, beta=0.4), (2 * dpo(some, beta=0.2)).tolist())


def test_decay_beyond_one() -> None:
    with pytest.raises(ValueError, match="decay"):
        loss(batch([1], [0]), decay=1.5)
