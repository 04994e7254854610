"""The shapes that objectives are given: views against plain loops, constructors against each other, and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.objectives import LogProbs, PairLogProbs, PairScores, PairSide, ResponseLogProbs, dpo, kto

ragged = st.lists(st.lists(st.floats(-50, 0), max_size=6), max_size=7)
steady = settings(max_examples=80)


def logprobs(sequences: list[list[float]]) -> LogProbs:
    return LogProbs.from_sequences([torch.tensor(s, dtype=torch.float64) for s in sequences])


def plain(values: Tensor) -> list[float]:
    return [float(v) for v in values]


@steady
@given(ragged)
def test_views_equal_plain_loops(sequences: list[list[float]]) -> None:
    lp = logprobs(sequences)
    assert lp.count == len(sequences)
    assert lp.lengths().tolist() == [len(s) for s in sequences]
    assert plain(lp.sum()) == pytest.approx([sum(s) for s in sequences])
    assert plain(lp.mean()) == pytest.approx([sum(s) / len(s) if s else 0.0 for s in sequences])


@steady
@given(ragged, st.integers(0, 2**16))
def test_weighted_sum_equals_a_plain_loop(sequences: list[list[float]], seed: int) -> None:
    lp = logprobs(sequences)
    weights = torch.rand(lp.values.shape, dtype=lp.values.dtype, generator=torch.Generator().manual_seed(seed))
    left, expected = weights.tolist(), []
    for s in sequences:
        expected.append(sum(w * v for w, v in zip(left, s, strict=False)))
        left = left[len(s) :]
    assert plain(lp.weighted_sum(weights)) == pytest.approx(expected)


@steady
@given(ragged, st.randoms(use_true_random=False))
def test_select_is_the_same_batch_of_those_alone(sequences: list[list[float]], rng) -> None:  # type: ignore[no-untyped-def]
    some = rng.sample(range(len(sequences)), rng.randint(0, len(sequences)))
    selected = logprobs(sequences).select(torch.tensor(some, dtype=torch.int64))
    expected = logprobs([sequences[i] for i in some])
    assert selected.count == len(some)
    assert selected.owner.tolist() == expected.owner.tolist()
    assert selected.values.tolist() == expected.values.tolist()


@steady
@given(ragged, st.integers(0, 3))
def test_padded_and_ragged_are_the_same(sequences: list[list[float]], spare: int) -> None:
    width = max([len(s) for s in sequences], default=0) + spare
    values = torch.full((len(sequences), width), float("nan"), dtype=torch.float64)
    mask = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, s in enumerate(sequences):
        values[row, : len(s)] = torch.tensor(s, dtype=torch.float64)
        mask[row, : len(s)] = True
    padded, whole = LogProbs.from_padded(values, mask), logprobs(sequences)
    assert padded.count == whole.count
    assert padded.owner.tolist() == whole.owner.tolist()
    assert padded.values.tolist() == whole.values.tolist()


def test_padding_on_the_left_and_holes_are_left_out() -> None:
    values = torch.tensor([[9.0, -1.0, -2.0], [-3.0, 9.0, -4.0]])
    lp = LogProbs.from_padded(values, torch.tensor([[0, 1, 1], [1, 0, 1]]))
    assert lp.sum().tolist() == [-3, -7]


@steady
@given(st.lists(st.tuples(st.floats(-50, 0), st.integers(1, 9)), max_size=6))
def test_sums_come_back(rows: list[tuple[float, int]]) -> None:
    sums = torch.tensor([s for s, _ in rows], dtype=torch.float64)
    lengths = torch.tensor([n for _, n in rows], dtype=torch.int64)
    spread, whole = LogProbs.from_sums(sums, lengths), LogProbs.from_sums(sums)
    torch.testing.assert_close(spread.sum(), sums)
    torch.testing.assert_close(spread.mean(), sums / lengths)
    assert spread.lengths().tolist() == lengths.tolist()
    torch.testing.assert_close(whole.sum(), sums)
    torch.testing.assert_close(whole.mean(), sums)


def test_gradients_reach_every_token_once() -> None:
    values = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64, requires_grad=True)
    lp = LogProbs(values, torch.tensor([0, 0, 2]), 3)
    (of_sum,) = torch.autograd.grad(lp.sum().sum(), values)
    (of_mean,) = torch.autograd.grad(lp.mean().sum(), values)
    assert of_sum.tolist() == [1, 1, 1]
    assert of_mean.tolist() == [0.5, 0.5, 1]


def test_owners_need_not_be_in_order() -> None:
    """Packing may lay responses out as it likes."""
    lp = LogProbs(torch.tensor([-1.0, -10.0, -2.0, -20.0]), torch.tensor([1, 0, 1, 0]), 2)
    assert lp.sum().tolist() == [-30, -3]
    assert lp.mean().tolist() == [-15, -1.5]
    assert lp.select(torch.tensor([1])).values.tolist() == [-1, -2]


def test_empty_batches_and_empty_responses() -> None:
    nothing = LogProbs.from_sequences([])
    assert nothing.count == 0
    assert nothing.sum().shape == nothing.mean().shape == nothing.lengths().shape == (0,)
    hollow = logprobs([[], [-2.0], []])
    assert hollow.sum().tolist() == hollow.mean().tolist() == [0, -2, 0]


def test_pitfall_17_a_small_margin_between_long_responses_survives() -> None:
    """Sums near -4000 nats that differ by 0.25: bf16 steps by 16 there, fp32 sums must keep the difference."""
    tokens = torch.full((8000,), -0.5)
    better = tokens.clone()
    better[4321] = -0.25
    pairs = PairSide(LogProbs.from_sequences([better]), LogProbs.from_sequences([tokens]))
    assert pairs.margin().item() == pytest.approx(0.25, abs=0.01)
    assert (better.bfloat16().sum() - tokens.bfloat16().sum()).item() != pytest.approx(0.25, abs=0.01)


def test_margins() -> None:
    side = PairSide(logprobs([[-1, -2], [-3]]), logprobs([[-4], [-5, -6]]))
    assert side.margin().tolist() == [1, 8]
    assert side.mean_margin().tolist() == [2.5, 2.5]
    reference = PairSide(logprobs([[-1, -1], [-1]]), logprobs([[-1], [-1, -1]]))
    assert PairLogProbs(side, reference).margin().tolist() == [1 - -1, 8 - 1]
    assert len(PairLogProbs(side)) == 2
    assert PairScores(torch.tensor([2.0]), torch.tensor([5.0])).margin().tolist() == [-3]


def test_pairs_from_sums_equal_pairs_from_tokens() -> None:
    tokens = [
        logprobs([[-1, -2], [-3]]),
        logprobs([[-4], [-5, -6]]),
        logprobs([[-2, -2], [-2]]),
        logprobs([[-3], [-4, -4]]),
    ]
    whole = PairLogProbs(PairSide(*tokens[:2]), PairSide(*tokens[2:]))
    torch.testing.assert_close(dpo(PairLogProbs.from_sums(*(t.sum() for t in tokens))), dpo(whole))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogProbs(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64), 2), "shape"),
        (lambda: LogProbs(torch.zeros(3), torch.zeros(2, dtype=torch.int64), 2), r"\(3,\) and \(2,\)"),
        (lambda: LogProbs.from_padded(torch.zeros(2, 3), torch.ones(2, 4)), r"\(2, 3\) and \(2, 4\)"),
        (lambda: LogProbs.from_padded(torch.zeros(3), torch.ones(3)), "responses, length"),
        (lambda: LogProbs.from_sums(torch.zeros(2, 2)), "responses"),
        (lambda: LogProbs.from_sums(torch.zeros(2), torch.tensor([1, 0])), "at least one token"),
        (lambda: LogProbs.from_sums(torch.zeros(2), torch.tensor([1])), "shape of sums"),
        (lambda: logprobs([[-1]]).weighted_sum(torch.ones(2)), r"\(1,\), not \(2,\)"),
        (lambda: PairSide(logprobs([[-1]]), logprobs([])), "1 chosen responses but 0 rejected"),
        (lambda: PairScores(torch.zeros(2), torch.zeros(2, 1)), r"\(2,\) and \(2, 1\)"),
        (lambda: PairLogProbs.from_sums(torch.zeros(2), torch.zeros(3)), "2 chosen responses but 3 rejected"),
        (lambda: dpo(PairLogProbs.from_sums(torch.zeros(2), torch.zeros(2))), "needs reference"),
        (
            lambda: PairLogProbs(PairSide(logprobs([[-1]]), logprobs([[-1]])), PairSide(logprobs([]), logprobs([]))),
            "1 pairs of the policy, 0",
        ),
        (lambda: ResponseLogProbs(logprobs([[-1]]), logprobs([])), "1 responses of the policy, 0"),
        (lambda: ResponseLogProbs(logprobs([[-1]]), desirable=torch.tensor([1])), "boolean of shape"),
        (lambda: ResponseLogProbs(logprobs([[-1]]), mismatched_kl=torch.zeros(1)), "single number"),
        (lambda: ResponseLogProbs(logprobs([[-1]])).reference, "needs reference"),
        (lambda: ResponseLogProbs(logprobs([[-1]])).mismatched_kl, "mismatched-pair KL"),
        (
            lambda: kto(ResponseLogProbs(logprobs([[-1]]), logprobs([[-1]]), mismatched_kl=torch.tensor(0.0))),
            "needs labels",
        ),
    ],
)
def test_what_does_not_fit_is_said(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_pitfall_17_half_precision_is_refused_before_it_is_summed() -> None:
    with pytest.raises(ValueError, match="upcast"):
        LogProbs.from_sums(torch.tensor([-512.0], dtype=torch.bfloat16))


def test_weights_of_another_dtype_are_taken() -> None:
    lp = LogProbs.from_sequences([torch.tensor([-1.0, -2.0])])
    assert lp.weighted_sum(torch.tensor([1, 3])).tolist() == [-7.0]
