"""The compiler from logic to losses: known losses derived a second time, truth tables, words for what is wrong."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from boresight.objectives import PairLogProbs, cpo, ln_dpo, orpo, simpo
from boresight.objectives import dpa_logic as loss
from boresight.objectives._logic import compile_formula
from oracles import Pair, average, surprise
from test_objectives_golden import close, numbers, random_pairs

CPO = {"formula": "w or not l", "condition": "w or l", "both": "w and l"}
LN_DPO = {
    "formula": "not (rw and l) or (w and rl)",
    "condition": "(rw and l) or (w and rl)",
    "both": "w and l and rw and rl",
}


def dpa_logic(pair: Pair, beta: float, formula: str, condition: str, both: str) -> float:
    p = {
        "w": math.exp(average(pair.chosen)),
        "l": math.exp(average(pair.rejected)),
        "rw": math.exp(average(pair.ref_chosen)),
        "rl": math.exp(average(pair.ref_rejected)),
    }
    counted = against = 0.0
    for values in itertools.product((True, False), repeat=4):
        row = dict(zip(p, values, strict=True))

        def holds(text: str, row: dict[str, bool] = row) -> bool:
            return bool(eval(text, {"__builtins__": {}}, row | {"true": True, "false": False}))

        weight = math.prod(p[e] if row[e] else 1 - p[e] for e in p)
        counted += weight * (holds(condition) and (holds(formula) or holds(both)))
        against += weight * (holds(condition) and (not holds(formula) or holds(both)))
    return surprise(beta * (math.log(counted) - math.log(against)))


def test_by_hand() -> None:
    # p_w = 3/4, p_l = 1/2: the default's odds are 3 to 1; of "w and not l" with all rows kept, 3/8 to 5/8
    pairs = PairLogProbs.from_sums(numbers(math.log(0.75)), numbers(math.log(0.5)), numbers(-1), numbers(-1))
    close(loss(pairs), [math.log(4 / 3)])
    close(loss(pairs, beta=2.0), [math.log(10 / 9)])
    close(loss(pairs, formula="w and not l", condition="true"), [math.log(1 + 5 / 3)])
    # with all rows kept, "w or not l" is true but for (not w, l), which weighs 1/8
    close(loss(pairs, condition="true"), [math.log(8 / 7)])
    close(loss(pairs, formula="w", condition="true"), [math.log(4 / 3)])
    close(loss(pairs, formula="not l", condition="true"), [math.log(2)])


def with_gradients(pairs: PairLogProbs, of, **values) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    sides = (pairs.policy.chosen, pairs.policy.rejected)
    leaves = [s.values.clone().requires_grad_() for s in sides]
    made = [type(s)(x, s.owner, s.count) for s, x in zip(sides, leaves, strict=True)]
    batch = PairLogProbs(type(pairs.policy)(*made), pairs.reference)
    value = of(batch, **values)
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return value.detach(), torch.cat(
        [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
    )


def odds_ratio_term(pairs: PairLogProbs) -> torch.Tensor:
    return orpo(pairs, lam=1.0) - orpo(pairs, lam=0.0)


@pytest.mark.parametrize("seed", range(3))
def test_known_losses_are_derived_a_second_time_in_value_and_gradient(seed: int) -> None:
    pairs = random_pairs(seed)
    derived = [
        (odds_ratio_term, {}, {}),
        (simpo, {"beta": 1.7, "gamma_beta_ratio": 0.0}, CPO | {"beta": 1.7}),
        (ln_dpo, {"beta": 2.3}, LN_DPO | {"beta": 2.3}),
    ]
    for of, values, logic in derived:
        for a, b in zip(with_gradients(pairs, of, **values), with_gradients(pairs, loss, **logic), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_on_one_token_the_odds_of_cpo_are_its_preference_term() -> None:
    pairs = random_pairs(length=1)
    close(loss(pairs, beta=0.3, **CPO), cpo(pairs, beta=0.3, lam=0.0))


def test_negation_turns_the_odds_over() -> None:
    pairs = random_pairs()
    other = loss(pairs, formula="not (w or not l)")
    # -log sigmoid(x) + log sigmoid(-x) = -x
    gap = loss(pairs) - other
    assert (gap.abs() > 1e-3).all()
    close(torch.exp(-loss(pairs)) + torch.exp(-other), torch.ones(6, dtype=torch.float64))


def test_equal_truth_tables_are_equal_losses() -> None:
    pairs = random_pairs()
    for text in ("not l or w", "not (l and not w)", "(w and l) or (w and not l) or (not w and not l)"):
        close(loss(pairs, formula=text, condition="true"), loss(pairs, formula="w or not l", condition="true"))


def test_a_weaker_formula_never_has_the_larger_loss() -> None:
    """The order of entailment is an order of losses, where the same rows are kept."""
    pairs = random_pairs()
    strong, middle, weak = (loss(pairs, formula=f, condition="true") for f in ("w and not l", "w", "w or not l"))
    assert (strong >= middle).all()
    assert (middle >= weak).all()


def test_all_formulas_over_two_events_are_told_apart() -> None:
    """16 truth tables, of which 14 have odds; each kept table once, and against is what for is not."""
    cells = ["(w and l)", "(w and not l)", "(not w and l)", "(not w and not l)"]
    tables = set()
    for size in range(1, 4):
        for some in itertools.combinations(cells, size):
            counted = compile_formula(" or ".join(some))
            assert len(counted.for_it) == size
            assert {*counted.for_it} | {*counted.against} == {*itertools.product((True, False), repeat=2)}
            assert not {*counted.for_it} & {*counted.against}
            tables.add(counted.for_it)
    assert len(tables) == 14


def test_rows_counted_on_both_sides() -> None:
    counted = compile_formula(**CPO)
    assert counted.for_it == ((True, True), (True, False))
    assert counted.against == ((True, True), (False, True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_where_a_response_is_certain_or_hopeless(dtype: torch.dtype) -> None:
    for c, r in itertools.product((0.0, -1e-12, -1.0, -1e4), repeat=2):
        leaves = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (c, r)]
        one = torch.tensor([-1.0], dtype=dtype)
        for values in ({}, CPO, LN_DPO, {"formula": "w and not l", "condition": "true"}):
            value = loss(PairLogProbs.from_sums(*leaves, one, one), **values)
            assert value.isfinite().all(), (c, r, values)
            slopes = torch.autograd.grad(value.sum(), leaves)
            assert all(s.isfinite().all() for s in slopes), (c, r, values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"formula": "w &&& l"}, "formula 'w &&& l' is no formula"),
        ({"formula": ""}, "is no formula"),
        ({"formula": "w > l"}, "'w > l' is none of"),
        ({"condition": "chosen"}, "condition 'chosen': 'chosen' is none of"),
        ({"both": "__import__('os')"}, "both .* is none of"),
        ({"formula": "w or not w", "condition": "true"}, "always true"),
        ({"formula": "w and not w", "condition": "true"}, "never true"),
        ({"condition": "false"}, "no odds"),
        ({"beta": 0.0}, "beta"),
    ],
)
def test_what_cannot_be_read_is_said(values: dict[str, str | float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loss(random_pairs(), **values)
