from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import Given, LogProbs, ResponseLogProbs, objectives
from boresight.objectives.preference.bco import density_ratio_weights
from objective_checks import CHECKS
from oracles import Single, surprise, total

EXEMPT = {"closed_form_at_zero_margin": "the checks draw a state at random; at the start the shift is 0, tested here"}


def bco(examples: list[Single], beta: float, decay: float, shift: bool, form: str) -> list[float]:
    rewards = [beta * (total(e.policy) - total(e.reference)) for e in examples]
    if not shift:
        return [surprise(r if e.desirable else -r) for e, r in zip(examples, rewards, strict=True)]
    before = examples[0].around.state
    ups = [r for e, r in zip(examples, rewards, strict=True) if e.desirable]
    downs = [r for e, r in zip(examples, rewards, strict=True) if not e.desirable]
    up = decay * before.get("desirable_sum", 0.0) + math.fsum(ups)
    down = decay * before.get("undesirable_sum", 0.0) + math.fsum(downs)
    up_count = decay * before.get("desirable_count", 0.0) + len(ups)
    down_count = decay * before.get("undesirable_count", 0.0) + len(downs)
    if form == "paper":
        delta = ((up / up_count if up_count else 0.0) + (down / down_count if down_count else 0.0)) / 2
    else:
        delta = (up + down) / (up_count + down_count)
    return [surprise(r - delta if e.desirable else delta - r) for e, r in zip(examples, rewards, strict=True)]


loss = objectives()["bco"].function
START = dict(objectives()["bco"].state)


def batch(rewards: list[float], desirable: list[bool], state: dict[str, float] | None = None) -> ResponseLogProbs:
    r = torch.tensor(rewards, dtype=torch.float64)
    base = torch.full_like(r, -30)
    told = {n: torch.tensor(v, dtype=torch.float64) for n, v in (state or START).items()}
    return ResponseLogProbs(
        LogProbs.from_sums(base + r),
        LogProbs.from_sums(base),
        desirable=torch.tensor(desirable),
        given=Given(state=told),
    )


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    """Rewards 4 and 2 (desirable), 0 (not), beta 1: the means are 3 and 0, midway 1.5; of all three 2."""
    some = batch([4, 2, 0], [True, True, False])
    close(loss(some, beta=1.0), [surprise(2.5), surprise(0.5), surprise(1.5)])
    close(loss(some, beta=1.0, form="trl"), [surprise(2), surprise(0), surprise(2)])
    close(loss(some, beta=1.0, shift=False), [surprise(4), surprise(2), surprise(0)])


def test_equally_many_of_both_labels_make_both_forms_one() -> None:
    some = batch([4, 2, 0, -7], [True, False, True, False])
    torch.testing.assert_close(loss(some, form="paper"), loss(some, form="trl"))


def test_starts_at_log_two_and_memory_runs_over_batches() -> None:
    known = objectives()["bco"]
    assert known.update is not None
    close(loss(batch([0.0, 0.0], [True, False])), [math.log(2)] * 2)
    first = batch([4, 0], [True, False])
    told = {n: v.item() for n, v in known.update(first, beta=1.0, decay=0.5, shift=True, form="paper").items()}
    assert told == {"desirable_sum": 4, "desirable_count": 1, "undesirable_sum": 0, "undesirable_count": 1}
    # desirable: (0.5 * 4 + 1) / (0.5 + 1) = 2; undesirable: (0 - 3) / 1.5 = -2: midway 0
    second = batch([1, -3], [True, False], told)
    close(loss(second, beta=1.0, decay=0.5), [surprise(1), surprise(3)])
    close(loss(second, beta=1.0, decay=0.0), [surprise(2), surprise(2)])  # this batch alone: midway -1


def test_a_label_never_seen_has_mean_zero() -> None:
    close(loss(batch([4, 2], [True, True]), beta=1.0), [surprise(2.5), surprise(0.5)])
    close(loss(batch([4, 2], [True, True]), beta=1.0, form="trl"), [surprise(1), surprise(-1)])


def test_a_common_shift_of_all_rewards_changes_nothing_and_no_gradient_flows_through_it() -> None:
    some, moved = batch([4, 2, 0], [True, True, False]), batch([9, 7, 5], [True, True, False])
    torch.testing.assert_close(loss(some, beta=1.0), loss(moved, beta=1.0))
    r = torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    told = {n: torch.tensor(v, dtype=torch.float64) for n, v in START.items()}
    one = ResponseLogProbs(
        LogProbs.from_sums(r),
        LogProbs.from_sums(torch.zeros_like(r)),
        desirable=torch.tensor([True, True, False]),
        given=Given(state=told),
    )
    (slope,) = torch.autograd.grad(loss(one, beta=1.0).sum(), r)

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    close(slope, [-sigmoid(-2.5), -sigmoid(-0.5), sigmoid(-1.5)])


def test_lies_above_dpo_for_every_pair() -> None:
    """The paper's theorem: binary cross-entropy of both sides bounds DPO's loss of the pair, whatever the shift."""
    for won, lost in ((4, -1), (-3, 2), (0, 0), (30, 29)):
        each = loss(batch([won, lost], [True, False]), beta=1.0)
        assert each.sum().item() > surprise(won - lost)


@pytest.mark.parametrize("form", ["trl"])
@pytest.mark.parametrize("check", sorted(set(CHECKS) - {*EXEMPT, "declares_what_it_is"}))
def test_other_forms_pass_the_checks(form: str, check: str) -> None:
    known = objectives()["bco"]
    told = known.hyperparameters | {"form": replace(known.hyperparameters["form"], default=form)}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, form=form)))


def test_unknown_form_and_decay_beyond_one() -> None:
    for bad in ({"form": "mean"}, {"decay": 1.1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(batch([1.0], [True]), **bad)


def test_density_ratio_of_a_few_kinds_of_prompts_is_the_ratio_of_their_shares() -> None:
    """Kinds as one-hot embeddings: without regularisation the classifier counts, and classes are balanced."""
    ups, downs = [30, 10, 20], [10, 40, 50]
    kinds = torch.cat([torch.repeat_interleave(torch.arange(3), torch.tensor(n)) for n in (ups, downs)])
    desirable = torch.arange(len(kinds)) < sum(ups)
    found = density_ratio_weights(torch.eye(3)[kinds], desirable, lowest=0.01, highest=100, l2=1e-9)
    assert (found[desirable] == 1).all()
    for kind in range(3):
        mine = found[~desirable & (kinds == kind)]
        expected = (ups[kind] / sum(ups)) / (downs[kind] / sum(downs))
        torch.testing.assert_close(mine, torch.full_like(mine, expected), rtol=1e-6, atol=0)
    # and so the weighted undesirable prompts are shared out as the desirable ones are
    weighed = [float(found[~desirable & (kinds == k)].sum()) for k in range(3)]
    assert [w / sum(weighed) for w in weighed] == pytest.approx([n / sum(ups) for n in ups], rel=1e-6)


def test_density_ratio_is_cut_and_finite_where_the_labels_can_be_told_apart() -> None:
    apart = torch.tensor([[5.0], [6.0], [-5.0], [-6.0]])
    found = density_ratio_weights(apart, torch.tensor([True, True, False, False]), l2=1e-6)
    assert found.tolist() == [1, 1, 0.5, 0.5]
    same = density_ratio_weights(torch.ones(6, 2), torch.tensor([True, False, False, False, False, False]))
    torch.testing.assert_close(same, torch.ones(6, dtype=torch.float64))
    for bad in ({"lowest": 2.0}, {"highest": 0.5}, {"l2": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            density_ratio_weights(apart, torch.tensor([True, False, True, False]), **bad)
    with pytest.raises(ValueError, match="both"):
        density_ratio_weights(apart, torch.ones(4, dtype=torch.bool))
