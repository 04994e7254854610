from __future__ import annotations

import math

import pytest
import torch

from boresight.objectives import Given, LogProbs, PairLogProbs, ResponseLogProbs, objectives, rpo_relative
from oracles import Single, surprise, total

EXEMPT = {
    "finite_where_policy_is_reference": "that check has desirable responses only, from which nothing is learnt; tested",
}

loss = objectives()["rpo-relative-unpaired"].function


def rpo_relative_unpaired(examples: list[Single], beta: float, tau: float, weights: str) -> list[float]:
    def cosine(a: list[float], b: list[float]) -> float:
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(x * x for x in b))

    ups = [e for e in examples if e.desirable]
    downs = [e for e in examples if not e.desirable]
    found = []
    for e in examples:
        if not e.desirable or not downs:
            found.append(0.0)
            continue
        near = [1.0] * len(downs)
        if weights == "similarity":
            near = [math.exp((cosine(e.around.embedding, d.around.embedding) - 1) / tau) for d in downs]
        mine = total(e.policy) - total(e.reference)
        each = [
            surprise(beta * w / math.fsum(near) * (mine - (total(d.policy) - total(d.reference))))
            for w, d in zip(near, downs, strict=True)
        ]
        found.append(len(examples) / len(ups) * math.fsum(each) / len(downs))
    return found


def batch(gains: list[float], desirable: list[bool], prompts: list[list[float]]) -> ResponseLogProbs:
    g = torch.tensor(gains, dtype=torch.float64)
    return ResponseLogProbs(
        LogProbs.from_sums(g - 9),
        LogProbs.from_sums(torch.full_like(g, -9)),
        desirable=torch.tensor(desirable),
        given=Given(embedding=torch.tensor(prompts, dtype=torch.float64)),
    )


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    """One desirable response between an equal and an orthogonal prompt: shares e/(e + 1) and 1/(e + 1) at tau 1."""
    some = batch([2, 0, -1], [True, False, False], [[1, 0], [4, 0], [0, 2]])
    mine, other = math.e / (math.e + 1), 1 / (math.e + 1)
    close(loss(some, beta=1.0, tau=1.0), [3 * (surprise(mine * 2) + surprise(other * 3)) / 2, 0, 0])
    close(loss(some, beta=1.0, weights="uniform"), [3 * (surprise(1) + surprise(1.5)) / 2, 0, 0])


def test_batch_mean_is_the_mean_over_all_couples_and_that_of_pairs() -> None:
    won, lost, prompts = [2.0, 1.0], [0.0, -1.0], [[1.0, 0.0], [0.6, 0.8]]
    w, low = (torch.tensor(x, dtype=torch.float64) for x in (won, lost))
    pairs = PairLogProbs.from_sums(w, low, torch.zeros_like(w), torch.zeros_like(w))
    pairs.given = Given(embedding=torch.tensor(prompts, dtype=torch.float64))
    single = batch(won + lost, [True, True, False, False], prompts * 2)
    for weights in ("similarity", "uniform"):
        found = loss(single, weights=weights).mean()
        torch.testing.assert_close(found, rpo_relative(pairs, weights=weights).mean())


def test_undesirable_responses_learn_through_the_others() -> None:
    g = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    some = batch([0, 0, 0], [True, False, False], [[1, 0], [1, 0], [0, 1]])
    one = ResponseLogProbs(LogProbs.from_sums(g), some.reference, desirable=some.desirable, given=some.given)
    (slope,) = torch.autograd.grad(loss(one).sum(), g)
    assert slope[0] < 0 < slope[2] < slope[1], "the nearer prompt is pushed down more"
    found = loss(batch([0, 0, 0], [True, False, False], [[1, 0], [1, 0], [0, 1]])).mean()
    assert found.item() == pytest.approx(math.log(2))  # at policy = reference


def test_one_label_alone_teaches_nothing_and_is_finite() -> None:
    for label in (True, False):
        g = torch.tensor([1.0, -2.0], requires_grad=True)
        one = ResponseLogProbs(
            LogProbs.from_sums(g), LogProbs.from_sums(torch.zeros(2)), desirable=torch.tensor([label] * 2),
            given=Given(embedding=torch.eye(2)),
        )  # fmt: skip
        found = loss(one)
        assert found.tolist() == [0, 0]
        assert torch.autograd.grad(found.sum(), g)[0].tolist() == [0, 0]


def test_uniform_is_the_limit_of_a_flat_temperature_and_words_are_checked() -> None:
    some = batch([2, 1, 0, -1], [True, True, False, False], [[1, 0], [0, 1], [1, 1], [0, 2]])
    torch.testing.assert_close(loss(some, tau=1e8), loss(some, weights="uniform"), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="weights"):
        loss(some, weights="diagonal")


def test_uniform_weights_agree_with_the_rewrite() -> None:
    import random

    from objective_checks import draw_examples, losses_of, rewritten

    known = objectives()["rpo-relative-unpaired"]
    examples = draw_examples(known, random.Random(3), 7)
    found, _ = losses_of(known, examples, weights="uniform")
    torch.testing.assert_close(found.detach(), rewritten(known, examples, weights="uniform"), rtol=1e-10, atol=1e-12)
