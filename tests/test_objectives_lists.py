"""Ragged lists: every view against a plain loop, and at its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.objectives import Given, ListLogProbs, LogProbs, PairLogProbs, PairSide, ResponseLogProbs

numbers = st.floats(-50, 50)
lists = st.lists(st.lists(st.tuples(numbers, st.integers(0, 3)), min_size=0, max_size=5), min_size=1, max_size=5)


def made(some: list[list[tuple[float, int]]]) -> tuple[ListLogProbs, torch.Tensor]:
    values = torch.tensor([v for one in some for v, _ in one], dtype=torch.float64)
    owner = torch.tensor([i for i, one in enumerate(some) for _ in one], dtype=torch.int64)
    grades = torch.tensor([float(g) for one in some for _, g in one], dtype=torch.float64)
    return ListLogProbs(LogProbs.from_sums(values), list_of=owner, count=len(some), grades=grades), values


@settings(max_examples=80)
@given(lists)
def test_views_equal_plain_loops(some: list[list[tuple[float, int]]]) -> None:
    batch, values = made(some)
    rows = [[v for v, _ in one] for one in some]
    close = {"rtol": 1e-12, "atol": 1e-12}

    def tensor(of: list[float]) -> torch.Tensor:
        return torch.tensor(of, dtype=torch.float64)

    assert len(batch) == len(some)
    assert batch.sizes().tolist() == [len(r) for r in rows]
    torch.testing.assert_close(batch.sum(values), tensor([math.fsum(r) for r in rows]), **close)
    torch.testing.assert_close(batch.mean(values), tensor([math.fsum(r) / max(1, len(r)) for r in rows]), **close)
    assert batch.max(values).tolist() == [max(r, default=-math.inf) for r in rows]
    assert batch.min(values).tolist() == [min(r, default=math.inf) for r in rows]
    sums = [max(r) + math.log(math.fsum(math.exp(v - max(r)) for v in r)) if r else -math.inf for r in rows]
    torch.testing.assert_close(batch.logsumexp(values), tensor(sums), **close)
    soft = [v - s for r, s in zip(rows, sums, strict=True) for v in r]
    torch.testing.assert_close(batch.log_softmax(values), tensor(soft), **close)
    ranks = [1 + sum(w > v or (w == v and j < i) for j, w in enumerate(r)) for r in rows for i, v in enumerate(r)]
    assert batch.rank(values).tolist() == ranks
    starts = [sum(len(r) for r in rows[:i]) for i in range(len(rows))]
    couples = [
        (s + i, s + j)
        for s, r in zip(starts, rows, strict=True)
        for i in range(len(r))
        for j in range(len(r))
        if i != j
    ]
    assert list(zip(*(x.tolist() for x in batch.couples()), strict=True)) == couples
    grades = [g for one in some for _, g in one]
    expected = [(i, j) for i, j in couples if grades[i] > grades[j]]
    assert list(zip(*(x.tolist() for x in batch.better()), strict=True)) == expected
    firsts = [len(one) and max(range(len(one)), key=lambda i: (one[i][1], -i)) for one in some]
    assert batch.best().nonzero()[:, 0].tolist() == [s + f for s, f, r in zip(starts, firsts, rows, strict=True) if r]


def test_log_sums_are_finite_where_a_sum_of_exponentials_is_not() -> None:
    batch, _ = made([[(0, 0), (0, 1)], [(0, 0), (0, 1)]])
    values = torch.tensor([1e4, 1e4, -1e4, -1e4], dtype=torch.float64, requires_grad=True)
    found = batch.logsumexp(values)
    torch.testing.assert_close(found, torch.tensor([1e4, -1e4], dtype=torch.float64) + math.log(2))
    (slopes,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(slopes, torch.full((4,), 0.5, dtype=torch.float64))


def test_places_of_tokens() -> None:
    one = LogProbs(torch.zeros(6), torch.tensor([1, 0, 1, 0, 0, 3]), 4)
    assert one.positions().tolist() == [0, 0, 1, 1, 2, 0]
    assert LogProbs(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 2).positions().shape == (0,)


def test_what_is_known_of_tokens_follows_them() -> None:
    tokens = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]
    noise = [torch.tensor([0.1, 0.2]), torch.tensor([0.3])]
    hidden = [torch.ones(2, 3), torch.zeros(1, 3)]
    batch = LogProbs.from_sequences(tokens, noise=noise, hidden=hidden)
    assert batch.token("noise").tolist() == pytest.approx([0.1, 0.2, 0.3])
    picked = batch.select(torch.tensor([1]))
    assert picked.token("noise").tolist() == pytest.approx([0.3])
    assert picked.token("hidden").shape == (1, 3)
    with pytest.raises(ValueError, match="needs entropy of each token"):
        batch.token("entropy")
    with pytest.raises(ValueError, match="one entry for each of 3 tokens"):
        LogProbs(batch.values, batch.owner, 2, {"noise": torch.zeros(2)})


def test_what_a_batch_lacks_is_said() -> None:
    one = LogProbs.from_sums(torch.zeros(2))
    pairs, single = PairLogProbs(PairSide(one, one)), ResponseLogProbs(one)
    for name in ("others", "twin", "samples", "progress", "embedding"):
        with pytest.raises(ValueError, match="the batch has none"):
            getattr(pairs, name)
    for view, word in ((pairs.statistic, "some_norm"), (single.state, "mean"), (single.head, "mask")):
        with pytest.raises(ValueError, match=word):
            view(word)
    with pytest.raises(ValueError, match="'novelty'; the batch has quality"):
        PairLogProbs(PairSide(one, one), given=Given(scores={"quality": torch.zeros(4)})).scores("novelty")
    lone = ListLogProbs(one, list_of=torch.tensor([0, 0]), count=1)
    for name, word in (("reference", "reference"), ("grades", "graded")):
        with pytest.raises(ValueError, match=word):
            getattr(lone, name)
    with pytest.raises(ValueError, match="list_of must have shape"):
        ListLogProbs(one, list_of=torch.tensor([0]), count=1)


def test_scores_of_pairs_come_as_sides() -> None:
    one = LogProbs.from_sums(torch.zeros(2))
    batch = PairLogProbs(PairSide(one, one), given=Given(scores={"score": torch.tensor([1.0, 2.0, 3.0, 4.0])}))
    chosen, rejected = batch.scores()
    assert chosen.tolist() == [1, 2]
    assert rejected.tolist() == [3, 4]
