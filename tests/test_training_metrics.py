"""Metrics are exact sums over counts, whatever the micro-batches."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator

from boresight.objectives import LogProbs, PairLogProbs, PairScores, PairSide, ResponseLogProbs
from boresight.training.metrics import Meter, measure


@pytest.fixture(scope="module")
def one():
    return Accelerator(cpu=True)


def test_pitfall_15_a_metric_is_not_a_mean_of_batch_means(one):
    meter = Meter()
    everything = torch.ones(3, dtype=torch.bool)
    meter.add({"x": (torch.tensor([1.0, 2.0, 3.0]), None)}, everything)
    meter.add({"x": (torch.tensor([10.0]), None)}, torch.ones(1, dtype=torch.bool))
    assert meter.reduce(one)["x"] == 4.0  # the mean of means would be 6
    assert meter.reduce(one) == {}


def test_rows_that_only_fill_a_batch_do_not_count(one):
    meter = Meter()
    meter.add({"x": (torch.tensor([1.0, math.nan]), torch.tensor([2.0, 5.0]))}, torch.tensor([True, False]))
    assert meter.reduce(one)["x"] == 0.5


def test_meter_goes_on_from_its_sums(one):
    meter = Meter()
    meter.add({"x": (torch.tensor([0.1, 0.7]), None)}, torch.ones(2, dtype=torch.bool))
    again = Meter(meter.sums(one))
    for m in (meter, again):
        m.add({"x": (torch.tensor([0.3]), None)}, torch.ones(1, dtype=torch.bool))
    assert meter.reduce(one) == again.reduce(one)


def test_pair_measures_by_hand():
    def side(chosen, rejected):
        return PairSide(LogProbs.from_sequences(chosen), LogProbs.from_sequences(rejected))

    t = torch.tensor
    policy = side([t([-1.0, -1.0]), t([-3.0])], [t([-4.0]), t([-3.0])])
    reference = side([t([-2.0, -1.0]), t([-2.0])], [t([-3.0]), t([-2.0])])
    got = {k: v for k, (v, _) in measure(PairLogProbs(policy, reference)).items()}
    assert got["chosen_gain"].tolist() == [1.0, -1.0]
    assert got["rejected_gain"].tolist() == [-1.0, -1.0]
    assert got["margin"].tolist() == [2.0, 0.0]
    assert got["accuracy"].tolist() == [1.0, 0.5]  # a tie is half, not wrong
    assert got["accuracy_mean"].tolist() == [1.0, 0.5]
    sums, counts = measure(PairLogProbs(policy))["chosen_logp_token"]
    assert float(sums.sum() / counts.sum()) == pytest.approx(-5 / 3)


def test_labelled_and_scored_measures_by_hand(one):
    t = torch.tensor
    policy, reference = LogProbs.from_sums(t([-1.0, -2.0, -6.0])), LogProbs.from_sums(t([-2.0, -4.0, -5.0]))
    meter = Meter()
    batch = ResponseLogProbs(policy, reference, desirable=t([True, True, False]))
    meter.add(measure(batch), torch.ones(3, dtype=torch.bool))
    got = meter.reduce(one)
    assert (got["chosen_gain"], got["rejected_gain"]) == (1.5, -1.0)
    scores = measure(PairScores(t([1.0, 2.0]), t([0.0, 3.0])))
    assert scores["margin"][0].tolist() == [1.0, -1.0]
    assert scores["accuracy"][0].tolist() == [1.0, 0.0]


def test_a_margin_of_mere_rounding_is_a_tie():
    """Policy and reference agree but for one unit in the last place of a sum; far above it a side has won."""
    step = 64.0 * 2**-23  # between neighbouring floats at 64
    policy = torch.tensor([-100.0, -100.0, -100.0, -100.0]), torch.tensor([-64.0] * 4)
    reference = torch.tensor([-100.0] * 4), torch.tensor([-64.0, -64.0 - step, -64.0 - 30 * step, -64.0 + 30 * step])
    values = measure(PairLogProbs.from_sums(*policy, *reference))
    assert values["accuracy"][0].tolist() == [0.5, 0.5, 0.0, 1.0]
    alone = measure(PairLogProbs.from_sums(torch.tensor([-1.0, -2.0, -2.0]), torch.tensor([-2.0, -1.0, -2.0])))
    assert alone["accuracy"][0].tolist() == [1.0, 0.0, 0.5]
