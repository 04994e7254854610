"""DPO plus a likelihood term, and that it is what a pessimistic reward model comes to."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import PairLogProbs, dpo, objectives
from boresight.objectives import rpo_sft_regularizer as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, average, implicit_rewards, surprise, total
from test_objectives_golden import close, margins, numbers, random_pairs


def rpo_sft_regularizer(pair: Pair, beta: float, eta: float, form: str) -> float:
    won, lost = implicit_rewards(pair)
    likelihood = beta * total(pair.chosen) if form == "paper" else average(pair.chosen)
    return surprise(beta * (won - lost)) - eta * likelihood


def test_by_hand() -> None:
    # chosen: 4 tokens of log-prob -2 each, margin 0
    lengths = {"chosen_lengths": torch.tensor([4]), "rejected_lengths": torch.tensor([2])}
    pairs = PairLogProbs.from_sums(numbers(-8), numbers(-3), numbers(-8), numbers(-3), **lengths)
    close(loss(pairs, beta=0.1, eta=0.5), [math.log(2) + 0.5 * 0.1 * 8])
    close(loss(pairs, beta=0.1, eta=0.5, form="trl"), [math.log(2) + 0.5 * 2])


def test_eta_of_zero_is_dpo() -> None:
    for form in ("paper", "trl"):
        close(loss(random_pairs(), beta=0.3, eta=0.0, form=form), dpo(random_pairs(), beta=0.3), 0)


def test_the_likelihood_term_pulls_a_learnt_pair_up() -> None:
    """Where DPO's slope has died, only the chosen has one: eta * beta a nat."""
    c, r = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-1e5, -9e5))
    value = loss(PairLogProbs.from_sums(c, r, numbers(0), numbers(0)), beta=0.1, eta=0.3)
    up, down = torch.autograd.grad(value.sum(), [c, r])
    close(up, [-0.03])
    close(down, [0])


def test_it_is_the_inner_minimum_over_rewards() -> None:
    """With r = beta log(pi / ref) + Z, eta (E_pi r - E_base r - beta KL(pi, ref)) + NLL(r) is this loss up to the
    reference's own likelihood, where the base policy is all on the chosen response: the theorem, on three responses.
    """
    beta, eta = 0.7, 0.4
    policy, reference = (numbers(0.2, 1.1, -0.6).log_softmax(0), numbers(0.5, -0.3, 0.1).log_softmax(0))
    reward = beta * (policy - reference)
    kl = (policy.exp() * (policy - reference)).sum()
    game = eta * ((policy.exp() * reward).sum() - reward[0] - beta * kl) + torch.nn.functional.softplus(
        reward[1] - reward[0]
    )
    pairs = PairLogProbs.from_sums(policy[:1], policy[1:2], reference[:1], reference[1:2])
    close(loss(pairs, beta=beta, eta=eta), (game - eta * beta * reference[0])[None])


def test_unusable_values_are_named() -> None:
    for bad in ({"form": "sum"}, {"eta": -0.1}, {"beta": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(margins(1), **bad)


@pytest.mark.parametrize("form", ["paper", "trl"])
def test_each_agrees_with_the_rewrite(form: str) -> None:
    known = objectives()["rpo-sft-regularizer"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, form=form)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, form=form), rtol=1e-10, atol=1e-12)
