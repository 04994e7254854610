"""DOVE: the rewrite, values by hand, DPO on one prompt, and rows of two prompts all the way to the loss."""

from __future__ import annotations

import math

import pytest
import torch

import boresight.objectives as o
from boresight.lab import TabularWorld, fit
from boresight.lab.tabular import Pairs
from boresight.objectives import PairLogProbs
from oracles import Pair, implicit_rewards, surprise


def dove_joint(pair: Pair, beta: float) -> float:
    won, lost = implicit_rewards(pair)
    return surprise(beta * (won - lost))


def test_by_hand():
    sums = [torch.tensor([x], dtype=torch.float64) for x in (-10.0, -30.0, -12.0, -29.0)]
    # gains 2 and -1
    made = PairLogProbs.from_sums(*sums)
    assert o.dove_joint(made, beta=0.5).item() == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-12)
    torch.testing.assert_close(o.dove_joint(made, beta=0.5), o.dpo(made, beta=0.5))


def test_each_response_is_seen_behind_its_own_prompt():
    """One pair over two prompts raises the chosen on the one and lowers the rejected on the other."""
    world = TabularWorld.random(2, 3, seed=0)
    zero, one, two = (torch.tensor([i]) for i in (0, 1, 2))
    pair = Pairs.of(zero, one, two, rejected_prompt=one)
    policy = fit(world, "dove-joint", pairs=pair, steps=20)
    change = (policy.log_probs() - world.reference.log_softmax(-1))[0].detach()
    assert change[0, 1] > 0 > change[0, 0]
    assert change[1, 2] < 0 < change[1, 0]


def test_learns_the_reward_of_prompt_and_response_together():
    """With pairs of all cells and rewards whose log Z is the same for both prompts, the optimum is the tilted law."""
    reward = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    world = TabularWorld(reward, torch.zeros(2, 2, dtype=torch.float64))
    cells = [(x, y) for x in range(2) for y in range(2)]
    rows = [(a, b) for a in cells for b in cells if a != b]
    weight = torch.tensor([1 / (1 + math.exp(reward[b] - reward[a])) for a, b in rows])
    columns = torch.tensor([[a[0], a[1], b[1], b[0]] for a, b in rows]).T
    pairs = Pairs.of(*columns[:3], weight, rejected_prompt=columns[3])
    policy = fit(world, "dove-joint", pairs=pairs, hyperparameters={"beta": 1.0}, steps=400)
    torch.testing.assert_close(policy.log_probs()[0], world.tilted(1.0), atol=1e-4, rtol=0)
