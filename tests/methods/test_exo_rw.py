"""EXO on lists with rewards: reverse KL over the responses of a prompt."""

from __future__ import annotations

import math

import torch

from boresight.objectives import ListLogProbs, LogProbs, exo
from boresight.objectives import exo_rw as loss
from oracles import Listed, total
from test_objectives_golden import close, margins, numbers

EXEMPT = {
    "gradient_signs": "beyond its target the loss rises towards a bound; here below, the sign changes at the target"
}


def exo_rw(one: Listed, beta_policy: float, beta_reward: float) -> float:
    def shares(logits: list[float]) -> list[float]:
        top = max(logits)
        whole = math.log(math.fsum(math.exp(x - top) for x in logits)) + top
        return [x - whole for x in logits]

    gains = [total(p) - total(r) for p, r in zip(one.policy, one.reference, strict=True)]
    policy, target = shares([beta_policy * g for g in gains]), shares([g / beta_reward for g in one.grades])
    return math.fsum(math.exp(f) * (f - p) for f, p in zip(policy, target, strict=True))


def lists(gains: list[list[float]], rewards: list[list[float]], leaf: torch.Tensor | None = None) -> ListLogProbs:
    flat = numbers(*[g for one in gains for g in one]) if leaf is None else leaf
    owner = torch.tensor([i for i, one in enumerate(gains) for _ in one])
    return ListLogProbs(
        LogProbs.from_sums(flat),
        LogProbs.from_sums(torch.zeros_like(flat)),
        list_of=owner,
        count=len(gains),
        grades=numbers(*[r for one in rewards for r in one]),
    )


def test_by_hand() -> None:
    # f = (1/2, 1/4, 1/4) against a uniform p, and against p = (1/4, 1/2, 1/4)
    f = [math.log(2), 0.0, 0.0]
    close(loss(lists([f], [[1.0, 1.0, 1.0]]), beta_policy=1.0), [0.5 * math.log(1.5) + 0.5 * math.log(0.75)])
    other = lists([f], [[0.0, math.log(2), 0.0]])
    close(loss(other, beta_policy=1.0, beta_reward=1.0), [0.5 * math.log(2) + 0.25 * math.log(0.5)])


def test_nothing_is_left_where_the_policy_is_the_optimum() -> None:
    rewards = [[0.3, -1.0, 2.0, 0.0], [1.0, 5.0]]
    gains = [[r / (0.4 * 0.5) + 3.0 for r in one] for one in rewards]  # any constant within a list
    leaf = torch.tensor([g for one in gains for g in one], dtype=torch.float64, requires_grad=True)
    value = loss(lists(gains, rewards, leaf), beta_policy=0.4, beta_reward=0.5)
    close(value, [0, 0])
    close(torch.autograd.grad(value.sum(), leaf)[0], torch.zeros(6, dtype=torch.float64))


def test_two_responses_are_exo_on_the_pair() -> None:
    """Rewards whose softmax is (1 - eps, eps)."""
    h = [-4.0, 0.0, 3.0]
    rewards = [[math.log(0.9), math.log(0.1)]] * 3
    found = loss(lists([[x, 0.0] for x in h], rewards), beta_policy=0.7, beta_reward=1.0)
    close(found, exo(margins(*h), beta=0.7, eps=0.1))


def test_a_common_shift_of_rewards_or_log_ratios_changes_nothing() -> None:
    gains, rewards = [[0.3, -1.0, 2.0]], [[1.0, 0.0, -1.0]]
    moved = lists([[g + 7 for g in gains[0]]], [[r - 3 for r in rewards[0]]])
    close(loss(moved), loss(lists(gains, rewards)))


def test_lists_do_not_mix_and_one_response_alone_has_no_loss() -> None:
    gains, rewards = [[0.3, -1.0, 2.0], [5.0], [1.0, 1.0]], [[1.0, 0.0, -1.0], [3.0], [0.0, 2.0]]
    together = loss(lists(gains, rewards))
    for i in range(3):
        close(loss(lists(gains[i : i + 1], rewards[i : i + 1])), together[i : i + 1])
    close(together[1:2], [0])


def test_slope_changes_sign_at_the_target() -> None:
    target = 1 / (0.5 * 0.5)
    for gap, sign in ((target - 0.1, -1), (target + 0.1, 1)):
        leaf = torch.tensor([gap, 0.0], dtype=torch.float64, requires_grad=True)
        value = loss(lists([[gap, 0.0]], [[1.0, 0.0]], leaf))
        up, down = torch.autograd.grad(value.sum(), leaf)[0].tolist()
        assert math.copysign(1, up) == sign == -math.copysign(1, down)
