"""MultiTRON on preferences: the rewrite, values by hand, DPO as a limit, the optimum, and what the penalty pulls at."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import Given, LogProbs, PairLogProbs, PairSide, objectives
from objective_checks import CHECKS
from oracles import Pair, implicit_rewards, probability, surprise

loss = objectives()["multitron"].function

EXEMPT = {
    "every_hyperparameter_has_effect": "in the checks' pairs all scores agree, where the penalty is nothing; that it "
    "pulls where they do not, and that the others have effect, is tested here"
}


def multitron(pair: Pair, beta: float, attributes: str, weights: str, soft: bool, penalty: float, form: str) -> float:
    won, lost = implicit_rewards(pair)
    h = beta * (won - lost)
    parts = []
    names, told = attributes.split(","), weights.split(",") if weights else []
    for name in names:
        apart = pair.chosen_known.scores[name] - pair.rejected_known.scores[name]
        p = probability(apart) if soft else 0.5 if apart == 0 else float(apart > 0)
        parts.append(p * surprise(h) + (1 - p) * surprise(-h))
    raw = [pair.chosen_known.scores[n] for n in told] or [1.0] * len(names)
    parts = [w / math.fsum(raw) * x for w, x in zip(raw, parts, strict=True)]
    powers = [math.exp(x / max(math.fsum(parts), 1e-6)) for x in parts]
    g = [x / math.fsum(powers) for x in powers]
    m = len(names)
    uneven = sum(x * math.log(x * m) for x in g) if form == "paper" else -sum(math.log(x) for x in g) / m
    return math.fsum(parts) + penalty * uneven


def batch(h: list[float], **scores: list[float]) -> tuple[PairLogProbs, Tensor]:
    """scores: of the chosen ones, then of the rejected ones."""
    leaf = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    fixed = LogProbs.from_sums(torch.full((len(h),), -90, dtype=torch.float64))
    given = Given(scores={n: torch.tensor(v, dtype=torch.float64) for n, v in scores.items()})
    return PairLogProbs(PairSide(LogProbs.from_sums(leaf - 90), fixed), PairSide(fixed, fixed), given), leaf


def test_by_hand() -> None:
    """Odds three to one; the first says right, the second wrong, weighed 3 to 1: 3/4 log 4/3 + 1/4 log 4."""
    made, _ = batch([math.log(3)], a=[9.0, 1.0], b=[0.0, 0.5], wa=[3.0, 3.0], wb=[1.0, 1.0])
    own = {"beta": 1.0, "attributes": "a, b", "weights": "wa,wb"}
    one, two = 0.75 * math.log(4 / 3), 0.25 * math.log(4)
    assert loss(made, penalty=0.0, **own).item() == pytest.approx(one + two, rel=1e-12)
    g = probability((one - two) / (one + two))
    kl = g * math.log(2 * g) + (1 - g) * math.log(2 * (1 - g))
    assert loss(made, penalty=0.5, **own).item() == pytest.approx(one + two + 0.5 * kl, rel=1e-12)
    cross = -(math.log(g) + math.log(1 - g)) / 2
    assert loss(made, penalty=0.5, form="code", **own).item() == pytest.approx(one + two + 0.5 * cross, rel=1e-12)


@pytest.mark.parametrize("h", [-30.0, 0.0, 2.0])
def test_all_of_the_weight_on_one_is_dpo_on_that_one(h: float) -> None:
    made, _ = batch([h], a=[1.0, 0.0], b=[0.0, 1.0], one=[1.0, 1.0], none=[0.0, 0.0])
    first = loss(made, attributes="a,b", weights="one,none", penalty=0.0)
    torch.testing.assert_close(first, o.dpo(made, beta=0.1))
    second = loss(made, attributes="a,b", weights="none,one", penalty=0.0)
    torch.testing.assert_close(second, -torch.nn.functional.logsigmoid(-0.1 * made.margin()))


def test_attributes_that_agree_are_dpo_and_the_penalty_pulls_at_nothing() -> None:
    made, leaf = batch([3.0, -7.0], a=[1.0, 2.0, 0.0, 1.0], b=[5.0, 5.0, 1.0, 0.0])
    own = {"attributes": "a,b", "penalty": 5.0}
    torch.testing.assert_close(loss(made, **own), o.dpo(made))
    torch.testing.assert_close(loss(made, form="code", **own), o.dpo(made) + 5 * math.log(2))
    (mine,) = torch.autograd.grad(loss(made, **own).sum(), leaf)
    (plain,) = torch.autograd.grad(o.dpo(made).sum(), leaf)
    torch.testing.assert_close(mine, plain)


def test_which_response_is_called_chosen_does_not_matter() -> None:
    one, _ = batch([2.5], a=[1.0, 0.3], b=[0.1, 0.9], wa=[0.2, 0.2], wb=[0.8, 0.8])
    two, _ = batch([-2.5], a=[0.3, 1.0], b=[0.9, 0.1], wa=[0.2, 0.2], wb=[0.8, 0.8])
    for soft in (False, True):
        own = {"attributes": "a,b", "weights": "wa,wb", "soft": soft, "penalty": 0.7}
        torch.testing.assert_close(loss(one, **own), loss(two, **own))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_soft_it_is_least_at_the_log_odds_of_the_weighed_probabilities(weight: float) -> None:
    a, b, beta = 0.7, -1.9, 0.3
    p = weight * probability(a) + (1 - weight) * probability(b)
    h = math.log(p / (1 - p)) / beta
    scores = {"a": [a, 0.0], "b": [b, 0.0], "wa": [weight] * 2, "wb": [1 - weight] * 2}
    own = {"beta": beta, "attributes": "a,b", "weights": "wa,wb", "soft": True, "penalty": 0.0}
    for move, sign in ((0.0, 0), (0.5, 1), (-0.5, -1)):
        made, leaf = batch([h + move], **scores)
        (slope,) = torch.autograd.grad(loss(made, **own).sum(), leaf)
        assert abs(slope.item()) < 1e-12 if sign == 0 else slope.item() * sign > 1e-4


def test_equal_scores_are_an_even_preference() -> None:
    made, _ = batch([0.0], a=[1.0, 1.0], b=[2.0, 2.0])
    assert loss(made, attributes="a,b").item() == pytest.approx(math.log(2), rel=1e-12)
    far, leaf = batch([8.0], a=[1.0, 1.0], b=[2.0, 2.0])
    assert torch.autograd.grad(loss(far, attributes="a,b").sum(), leaf)[0].item() > 0


@pytest.mark.parametrize("form", ["paper", "code"])
def test_the_penalty_pulls_towards_equal_shares(form: str) -> None:
    """Of two that disagree the one with the greater part of the loss is pulled down: here the second."""
    made, leaf = batch([3.0], a=[1.0, 0.0], b=[0.0, 1.0])
    own = {"beta": 1.0, "attributes": "a,b", "form": form}
    (none,) = torch.autograd.grad(loss(made, penalty=0.0, **own).sum(), leaf)
    (some,) = torch.autograd.grad(loss(made, penalty=1.0, **own).sum(), leaf)
    assert some.item() > none.item() > 0
    even, leaf = batch([0.0], a=[1.0, 0.0], b=[0.0, 1.0])
    assert torch.autograd.grad(loss(even, penalty=1.0, **own).sum(), leaf)[0].item() == 0


@pytest.mark.parametrize("values", [{"form": "code"}, {"soft": True}, {"weights": "quality,novelty"}])
@pytest.mark.parametrize(
    "check", ["agrees_with_independent_rewrite", "examples_are_independent", "one_loss_per_example"]
)
def test_other_forms_pass_the_checks(check: str, values: dict) -> None:
    known = objectives()["multitron"]
    told = {n: replace(h, default=values.get(n, h.default)) for n, h in known.hyperparameters.items()}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, **values)))


def test_what_cannot_be_used_is_refused() -> None:
    made, _ = batch([1.0], a=[4.0, 1.0], b=[0.0, 1.0], w=[0.0, 0.0], bad=[-1.0, -1.0], no=[math.nan, 1.0])
    for words, named in (
        ({"attributes": "a"}, "attributes"),
        ({"attributes": ""}, "attributes"),
        ({"attributes": "a,no"}, "no score 'no'"),
        ({"attributes": "a,c"}, "'c'"),
        ({"weights": "w"}, "weights"),
        ({"weights": "w,w"}, "weights"),
        ({"weights": "a,bad"}, "weights"),
        ({"weights": "a,no"}, "weights"),
        ({"form": "other"}, "form"),
        ({"penalty": -1.0}, "penalty"),
        ({"beta": 0.0}, "beta"),
    ):
        with pytest.raises(ValueError, match=named):
            loss(made, **{"attributes": "a,b", **words})
