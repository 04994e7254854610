"""CPO: DPO without a reference, plus the likelihood of the chosen."""

from __future__ import annotations

import math
import random

import pytest
import torch

from boresight.objectives import PairLogProbs, ResponseLogProbs, dpo, objectives, sft
from boresight.objectives import cpo as loss
from objective_checks import draw_examples, losses_of, rewritten
from oracles import Pair, average, surprise, total
from test_objectives_golden import close, numbers, random_pairs


def cpo(pair: Pair, beta: float, lam: float, form: str) -> float:
    likelihood = average(pair.chosen) if form == "code" else total(pair.chosen)
    return surprise(beta * total(pair.chosen) - beta * total(pair.rejected)) - lam * likelihood


def test_by_hand() -> None:
    # chosen: 3 tokens, -6 nats; rejected: -16 nats; beta m = 1
    lengths = {"chosen_lengths": torch.tensor([3]), "rejected_lengths": torch.tensor([4])}
    pairs = PairLogProbs.from_sums(numbers(-6), numbers(-16), **lengths)
    close(loss(pairs, beta=0.1), [math.log1p(math.exp(-1)) + 2])
    close(loss(pairs, beta=0.1, lam=0.5), [math.log1p(math.exp(-1)) + 1])
    close(loss(pairs, beta=0.1, form="paper"), [math.log1p(math.exp(-1)) + 6])


def test_without_its_second_term_it_is_dpo_under_a_reference_that_is_indifferent() -> None:
    pairs = random_pairs()
    c, r = pairs.policy.chosen.sum(), pairs.policy.rejected.sum()
    flat = PairLogProbs.from_sums(c, r, torch.full_like(c, -3), torch.full_like(c, -3))
    close(loss(pairs, beta=0.4, lam=0.0), dpo(flat, beta=0.4))


def test_without_its_first_term_it_is_sft_on_the_chosen() -> None:
    """As beta goes to 0 the first term is log 2 whatever the margin."""
    pairs = random_pairs()
    close(loss(pairs, beta=1e-14, form="paper") - math.log(2), sft(ResponseLogProbs(pairs.policy.chosen)), 1e-11)


def test_the_two_forms_agree_on_one_token() -> None:
    pairs = PairLogProbs.from_sums(numbers(-2, -0.3), numbers(-1, -5))
    close(loss(pairs), loss(pairs, form="paper"))


def test_the_chosen_is_raised_even_where_the_pair_is_learnt() -> None:
    c, r = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-1.0, -1e6))
    up, down = torch.autograd.grad(loss(PairLogProbs.from_sums(c, r)).sum(), [c, r])
    close(up, [-1])
    close(down, [0])


def test_unusable_values_are_named() -> None:
    for bad in ({"form": "mean"}, {"lam": -0.1}, {"beta": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            loss(random_pairs(), **bad)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_each_agrees_with_the_rewrite(form: str) -> None:
    known = objectives()["cpo"]
    examples = draw_examples(known, random.Random(1), 12)
    found = losses_of(known, examples, form=form)[0].detach()
    torch.testing.assert_close(found, rewritten(known, examples, form=form), rtol=1e-10, atol=1e-12)
