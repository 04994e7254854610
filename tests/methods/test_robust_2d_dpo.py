"""Robust 2D-DPO: segments and couples by hand, its limits, what its two kinds of robustness promise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import boresight.objectives as room
from boresight.objectives import LogProbs, PairLogProbs, PairSide
from oracles import Known, Pair, surprise


def robust_2d_dpo(pair: Pair, beta: float, eps: float, sigma: float) -> float:
    def segments(policy: list[float], reference: list[float], known: Known) -> list[tuple[float, float]]:
        found: dict[int, list[float]] = {}
        for p, r, step, score in zip(
            policy, reference, known.per_token["step"], known.per_token["step_score"], strict=True
        ):
            found.setdefault(step, [score, 0.0])[1] += p - r
        return [(score, gain) for _, (score, gain) in sorted(found.items())]

    won = sorted(segments(pair.chosen, pair.ref_chosen, pair.chosen_known), key=lambda s: -s[0])
    lost = sorted(segments(pair.rejected, pair.ref_rejected, pair.rejected_known), key=lambda s: s[0])
    loss = 0.0
    for (good, up), (bad, down) in zip(won, lost, strict=False):
        h = beta * (good * up - bad * down)
        loss += ((1 - eps) * surprise(h) - eps * surprise(-h)) / (1 - 2 * eps)
        loss += (beta * sigma) ** 2 * (up**2 + down**2) / 8 / (1 - 2 * eps)
    return loss


Side = list[list[tuple[int, float, float]]]
"""Responses; of each token: its step, the step's score, its log-ratio."""


def made(chosen: Side, rejected: Side) -> PairLogProbs:
    def side(responses: Side) -> LogProbs:
        def column(i: int, dtype: torch.dtype) -> list[torch.Tensor]:
            return [torch.tensor([t[i] for t in r], dtype=dtype) for r in responses]

        values = column(2, torch.float64)
        return LogProbs.from_sequences(values, step=column(0, torch.int64), step_score=column(1, torch.float64))

    policy = PairSide(side(chosen), side(rejected))
    zero = (LogProbs(torch.zeros_like(s.values), s.owner, s.count) for s in (policy.chosen, policy.rejected))
    return PairLogProbs(policy, PairSide(*zero))


def test_by_hand() -> None:
    """Chosen segments: score 1, sum 3; score 4, sum 2. Rejected: score 3, sum 5; score 1, sum -1; score 2, sum 7.

    Best with worst: (4 * 2 - 1 * -1) = 9, then (1 * 3 - 2 * 7) = -11; the rejected's best segment is left out.
    """
    chosen = [[(0, 1.0, 1.0), (0, 1.0, 2.0), (1, 4.0, 2.0)]]
    rejected = [[(0, 3.0, 5.0), (1, 1.0, -1.0), (2, 2.0, 3.0), (2, 2.0, 4.0)]]
    pairs = made(chosen, rejected)
    plain = math.log1p(math.exp(-0.9)) + math.log1p(math.exp(1.1))
    assert room.robust_2d_dpo(pairs, beta=0.1, sigma=0).item() == pytest.approx(plain, rel=1e-12)
    # the variances of both: (0.1 * 2)^2 * (2^2 + 1^2) and (0.1 * 2)^2 * (3^2 + 7^2)
    noisy = plain + 0.04 * (5 + 58) / 8
    assert room.robust_2d_dpo(pairs, beta=0.1, sigma=2).item() == pytest.approx(noisy, rel=1e-12)


def test_one_segment_of_score_one_is_dpo_or_robust_dpo() -> None:
    pairs = made([[(0, 1.0, 1.0), (0, 1.0, -3.0)], [(0, 1.0, 2.0)]], [[(0, 1.0, 0.5)], [(0, 1.0, 4.0)]])
    torch.testing.assert_close(room.robust_2d_dpo(pairs, sigma=0), room.dpo(pairs))
    torch.testing.assert_close(room.robust_2d_dpo(pairs, eps=0.2, sigma=0), room.rdpo_robust(pairs, eps=0.2))


@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_the_mean_over_flips_is_the_clean_loss(eps: float) -> None:
    """Where h turns its sign with the flip: one segment each, of one score."""
    up, down = [[(0, 2.0, 1.5), (0, 2.0, -4.0)]], [[(0, 2.0, 0.7)]]
    kept = room.robust_2d_dpo(made(up, down), eps=eps, sigma=0)
    flipped = room.robust_2d_dpo(made(down, up), eps=eps, sigma=0)
    clean = room.robust_2d_dpo(made(up, down), sigma=0)
    torch.testing.assert_close((1 - eps) * kept + eps * flipped, clean)


@pytest.mark.parametrize("gains", [(3.0, -2.0), (0.1, 0.2), (-20.0, 15.0)])
def test_the_penalty_bounds_the_mean_loss_over_noise_on_the_scores(gains: tuple[float, float]) -> None:
    """E[loss at noisy scores] <= loss at the true ones + v / 8, and near it where v is small.

    The noise takes three values, with the mean, variance and next moments of a normal one.
    """
    noise = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))
    sigma, mean = 0.8, 0.0
    for a, wa in noise:
        for b, wb in noise:
            pairs = made([[(0, 2 + sigma * a, gains[0])]], [[(0, 1 + sigma * b, gains[1])]])
            mean += wa * wb * room.robust_2d_dpo(pairs, beta=0.1, sigma=0).item()
    bound = room.robust_2d_dpo(made([[(0, 2.0, gains[0])]], [[(0, 1.0, gains[1])]]), beta=0.1, sigma=sigma).item()
    assert mean <= bound + 1e-12
    if abs(gains[0]) < 5:
        assert mean == pytest.approx(bound, abs=2e-3)


def test_equal_scores_keep_the_order_of_the_segments() -> None:
    pairs = made([[(0, 1.0, 5.0), (1, 1.0, 7.0)]], [[(0, 1.0, 2.0)]])
    expected = math.log1p(math.exp(-0.1 * (5 - 2)))
    assert room.robust_2d_dpo(pairs, beta=0.1, sigma=0).item() == pytest.approx(expected, rel=1e-12)


def test_a_response_without_tokens_has_no_couple() -> None:
    pairs = made([[], [(0, 1.0, 1.0)]], [[(0, 1.0, 1.0)], [(3, 2.0, 1.0)]])
    found = room.robust_2d_dpo(pairs, beta=1.0, sigma=0)
    assert found.tolist() == pytest.approx([0.0, math.log1p(math.exp(1.0))])
    assert room.robust_2d_dpo(made([], [])).shape == (0,)


token = st.tuples(st.integers(0, 3), st.floats(-4, 4))
response = st.lists(token, min_size=1, max_size=8)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(response, response), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_ragged_batches(some: list[tuple[list[tuple[int, float]], ...]], scores: list[int]) -> None:
    """Steps in any order and with gaps, many of one score."""

    def side(place: int) -> Side:
        return [[(k, float(scores[k + 4 * place]), v) for k, v in pair[place]] for pair in some]

    chosen, rejected = side(0), side(1)
    expected = []
    for won, lost in zip(chosen, rejected, strict=True):
        pair = Pair([t[2] for t in won], [t[2] for t in lost], [0.0] * len(won), [0.0] * len(lost))
        for known, tokens in ((pair.chosen_known, won), (pair.rejected_known, lost)):
            known.per_token = {"step": [t[0] for t in tokens], "step_score": [t[1] for t in tokens]}
        expected.append(robust_2d_dpo(pair, 0.2, 0.1, 0.3))
    found = room.robust_2d_dpo(made(chosen, rejected), beta=0.2, eps=0.1, sigma=0.3)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
