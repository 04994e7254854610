from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo, objectives
from objective_checks import CHECKS
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {
    "closed_form_at_zero_margin": "the checks draw divergences at random; where policy = reference they are 0, tested",
}

loss = objectives()["tdpo"].function


def tdpo(pair: Pair, beta: float, alpha: float, form: str) -> float:
    won, lost = implicit_rewards(pair)
    moved = math.fsum(pair.rejected_known.per_token["reference_kl"])
    moved -= math.fsum(pair.chosen_known.per_token["reference_kl"])
    u = beta * won - beta * lost
    return surprise(u - beta * moved if form == "tdpo1" else u - alpha * beta * moved)


def batch(h: float, chosen_kl: torch.Tensor, rejected_kl: torch.Tensor) -> PairLogProbs:
    def side(level: float, kl: torch.Tensor) -> LogProbs:
        n = len(kl)
        return LogProbs(torch.full((n,), level / n, dtype=torch.float64), torch.zeros(n, dtype=torch.int64), 1,
                        {"reference_kl": kl})  # fmt: skip

    flat = LogProbs.from_sums(torch.full((1,), -9.0, dtype=torch.float64))
    return PairLogProbs(PairSide(side(h - 9, chosen_kl), side(-9.0, rejected_kl)), PairSide(flat, flat))


CHOSEN = torch.tensor([0.5, 0.25], dtype=torch.float64)
REJECTED = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)


def test_by_hand() -> None:
    """Divergences 0.75 and 1.75: TDPO1 takes 1 off the margin of 3, TDPO2 takes alpha = 1/2 off."""
    some = batch(3.0, CHOSEN, REJECTED)
    assert loss(some, beta=1.0, form="tdpo1").item() == pytest.approx(surprise(2.0), rel=1e-12)
    assert loss(some, beta=1.0).item() == pytest.approx(surprise(2.5), rel=1e-12)


def test_without_divergence_it_is_dpo_and_log_two_at_the_start() -> None:
    none = torch.zeros(2, dtype=torch.float64)
    for form in ("tdpo1", "tdpo2"):
        torch.testing.assert_close(loss(batch(3.0, none, none), form=form), dpo(batch(3.0, none, none)))
        assert loss(batch(0.0, none, none), form=form).item() == pytest.approx(math.log(2))
    torch.testing.assert_close(loss(batch(3.0, CHOSEN, REJECTED), alpha=0.0), dpo(batch(3.0, CHOSEN, REJECTED)))


def test_gradients_flow_through_both_divergences_or_the_rejected_one_alone() -> None:
    for form, scale in (("tdpo1", 1.0), ("tdpo2", 0.5)):
        chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
        found = loss(batch(0.0, chosen, rejected), beta=1.0, form=form)
        w, low = torch.autograd.grad(found.sum(), [chosen, rejected], allow_unused=True)
        push = scale / (1 + math.exp(-scale))  # sigmoid of scale * (1.75 - 0.75)
        torch.testing.assert_close(low, torch.full_like(REJECTED, push))
        if form == "tdpo2":
            assert w is None
        else:
            torch.testing.assert_close(w, torch.full_like(CHOSEN, -push))


@pytest.mark.parametrize(
    "check", sorted(set(CHECKS) - {*EXEMPT, "declares_what_it_is", "every_hyperparameter_has_effect"})
)
def test_tdpo1_passes_the_checks(check: str) -> None:
    known = objectives()["tdpo"]
    told = known.hyperparameters | {"form": replace(known.hyperparameters["form"], default="tdpo1")}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, form="tdpo1")))


def test_unknown_form_and_missing_divergences() -> None:
    with pytest.raises(ValueError, match="form"):
        loss(batch(0.0, CHOSEN, REJECTED), form="tdpo3")
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="reference_kl"):
        loss(PairLogProbs.from_sums(one, one, one, one))
