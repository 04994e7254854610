from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from boresight.objectives import Given, PairLogProbs, dpo, objectives
from objective_checks import CHECKS
from oracles import Pair, implicit_rewards, surprise

EXEMPT = {
    "every_hyperparameter_has_effect": "diagonal is read by weights='diagonal' only; tested here",
    "falls_towards_its_target": "a pair's loss depends on the rejected responses of all others; tested here",
}

loss = objectives()["rpo-relative"].function


def rpo_relative(examples: list[Pair], beta: float, tau: float, weights: str, diagonal: float) -> list[float]:
    gains = [implicit_rewards(e) for e in examples]
    n = len(examples)

    def cosine(a: list[float], b: list[float]) -> float:
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(x * x for x in b))

    found = []
    for i, (won, _) in enumerate(gains):
        if weights == "diagonal":
            each = [surprise(beta * (won - lost)) for _, lost in gains]
            others = math.fsum(each[:i] + each[i + 1 :]) / max(1, n - 1)
            found.append(diagonal * each[i] + (1 - diagonal) * others if n > 1 else each[i])
            continue
        near = [1.0] * n
        if weights == "similarity":
            mine = examples[i].around.embedding
            near = [math.exp(-(1 - cosine(mine, e.around.embedding)) / tau) for e in examples]
        whole = math.fsum(near)
        found.append(
            math.fsum(surprise(beta * w / whole * (won - low)) for w, (_, low) in zip(near, gains, strict=True)) / n
        )
    return found


def batch(won: list[float], lost: list[float], prompts: list[list[float]]) -> PairLogProbs:
    w, low = (torch.tensor(x, dtype=torch.float64) for x in (won, lost))
    zero = torch.zeros_like(w)
    made = PairLogProbs.from_sums(w, low, zero, zero)
    made.given = Given(embedding=torch.tensor(prompts, dtype=torch.float64))
    return made


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand_with_orthogonal_prompts() -> None:
    """Cosines 1 and 0: shares are e/(e + 1) and 1/(e + 1) at tau 1, whatever the embeddings' lengths."""
    some = batch([2, 1], [0, -1], [[3, 0], [0, 5]])
    mine, other = math.e / (math.e + 1), 1 / (math.e + 1)
    close(
        loss(some, beta=1.0, tau=1.0),
        [(surprise(mine * 2) + surprise(other * 3)) / 2, (surprise(other * 1) + surprise(mine * 2)) / 2],
    )


def test_one_pair_is_dpo() -> None:
    some = batch([2], [0.5], [[1, 2]])
    for weights in ("similarity", "uniform", "diagonal"):
        torch.testing.assert_close(loss(some, weights=weights), dpo(some))


def test_a_sharp_temperature_compares_within_the_prompt_and_a_flat_one_is_uniform() -> None:
    some = batch([2, 1], [0, -1], [[1, 0], [0, 1]])
    h = [2.0, 2.0]
    close(loss(some, beta=0.3, tau=1e-4), [(surprise(0.3 * x) + math.log(2)) / 2 for x in h])
    torch.testing.assert_close(loss(some, tau=1e8), loss(some, weights="uniform"), rtol=1e-6, atol=0)


def test_diagonal_runs_from_dpo_to_all_others() -> None:
    some = batch([2, 1, 0], [0, -1, 4], [[1, 0], [0, 1], [1, 1]])
    torch.testing.assert_close(loss(some, weights="diagonal", diagonal=1.0), dpo(some))
    close(
        loss(some, beta=1.0, weights="diagonal", diagonal=0.4)[:1],
        [0.4 * surprise(2) + 0.6 * (surprise(3) + surprise(-2)) / 2],
    )


def test_loss_falls_as_any_margin_grows() -> None:
    prompts = [[1.0, 0.0], [0.6, 0.8]]
    for weights in ("similarity", "uniform", "diagonal"):
        before = loss(batch([0, 0], [0, 0], prompts), weights=weights).sum()
        assert loss(batch([1, 0], [0, 0], prompts), weights=weights).sum() < before
        assert loss(batch([0, 0], [0, -1], prompts), weights=weights).sum() < before


def test_no_gradient_reaches_the_embedding() -> None:
    e = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    some = PairLogProbs.from_sums(w, torch.zeros(2), torch.zeros(2), torch.zeros(2))
    some.given = Given(embedding=e)
    assert torch.autograd.grad(loss(some).sum(), [w, e], allow_unused=True)[1] is None


@pytest.mark.parametrize("weights", ["uniform", "diagonal"])
@pytest.mark.parametrize("check", sorted(set(CHECKS) - {*EXEMPT, "declares_what_it_is"}))
def test_other_weights_pass_the_checks(weights: str, check: str) -> None:
    known = objectives()["rpo-relative"]
    told = known.hyperparameters | {"weights": replace(known.hyperparameters["weights"], default=weights)}
    CHECKS[check](replace(known, hyperparameters=told, function=partial(known.function, weights=weights)))


def test_unusable_words_and_shares() -> None:
    some = batch([2], [0], [[1, 0]])
    for bad in ({"weights": "none"}, {"diagonal": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(some, **bad)
