"""Preference vectors: the law they are drawn from, what the prompt and the scores say, and which pairs are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boresight.curation import preference_vectors, toward
from boresight.curation.preference_vectors import told_weights
from boresight.data.example import Example, Label, Message, Pair, Response, Score
from boresight.data.write import write
from boresight.errors import InputError
from proofs import job_of, save_family

NAMES = ("helpfulness", "safety")


def scored(*rows: tuple[float, float], pairs: tuple[Pair, ...] = (), **more: object) -> Example:
    scores = tuple(Score(i, v, n) for i, row in enumerate(rows) for n, v in zip(NAMES, row, strict=True))
    responses = tuple(Response(f"answer {i}") for i in range(len(rows)))
    return Example("q", responses, pairs, scores, **more)  # type: ignore[arg-type]


def weights(example: Example, response: int = 0) -> list[float]:
    return [s.value for s in example.scores if s.response == response and s.name.startswith("weight_")]


def test_prompt_scores_and_id_say_the_same_vector():
    made = preference_vectors([scored((1, 0), (0, 1), id="e")], NAMES, copies=50)
    assert len(made) == made.counts["pairs"] == 50
    for example in made:
        a, b = weights(example)
        assert weights(example, 1) == [a, b]
        assert round(100 * a) + round(100 * b) == 100
        told = f"What counts in the answer: helpfulness {a:.2f}, safety {b:.2f}."
        assert example.prompt == (Message("system", told), Message("user", "q"))
        assert example.id == f"e~weights {a:.2f} {b:.2f}"
        assert [s for s in example.scores if s.name in NAMES] == list(scored((1, 0), (0, 1)).scores)
    assert len({e.id for e in made}) > 20


@pytest.mark.parametrize("spread", [0.5, 1.0, 5.0])
def test_vectors_have_the_moments_of_the_law(spread: float):
    """Dirichlet(a, a, a): mean 1/3, variance 2 / (9 * (3 a + 1)); hundredths add less than a thousandth."""
    example = Example("q", (Response("x"), Response("y")), scores=tuple(
        Score(i, float(i), n) for i in range(2) for n in "abc"))  # fmt: skip
    made = preference_vectors([example], "abc", spread=spread, copies=1500, seed=1)
    found = np.array([weights(e) for e in made])
    variance = 2 / (9 * (3 * spread + 1))
    assert np.abs(found.mean(0) - 1 / 3).max() < 4 * (variance / 1500) ** 0.5 + 1e-3
    assert np.abs(found.var(0) / variance - 1).max() < 0.15
    assert np.abs(found.sum(1) - 1).max() < 1e-12


def test_the_chosen_has_the_higher_weighted_sum():
    made = preference_vectors([scored((1, 0), (0, 1))], NAMES, copies=200)
    for example in made:
        a, b = weights(example)
        assert example.pairs == (Pair(0, 1) if a >= b else Pair(1, 0),)
    assert len({e.pairs for e in made}) == 2


def test_pairs_that_are_there_are_the_ones_turned_and_keep_their_weight():
    three = scored((3, 3), (2, 2), (1, 1), pairs=(Pair(2, 0, 2.5),), labels=(Label(0, True),), ranks=(1, 2, 3))
    (made,) = preference_vectors([three], NAMES)
    assert made.pairs == (Pair(0, 2, 2.5),)
    assert (made.labels, made.ranks) == ((), ())
    (every,) = preference_vectors([scored((3, 3), (2, 2), (1, 1))], NAMES)
    assert every.pairs == (Pair(0, 1), Pair(0, 2), Pair(1, 2))


def test_scores_are_means_over_annotators():
    scores = (
        Score(0, 0.0, "a", "x"),
        Score(0, 4.0, "a", "y"),
        Score(1, 1.0, "a"),
        Score(0, 1.0, "b"),
        Score(1, 1.0, "b"),
    )
    (made,) = preference_vectors([Example("q", (Response("x"), Response("y")), scores=scores)], "ab")
    assert made.pairs == (Pair(0, 1),)


def test_what_is_left_out_is_counted():
    lacking = Example(
        "q", (Response("x"), Response("y")), scores=(Score(0, 1.0, "helpfulness"), Score(0, 1.0, "safety"))
    )
    alike, one = scored((1, 2), (1, 2)), scored((1, 2))
    made = preference_vectors([lacking, alike, one, scored((1, 0), (0, 0), (0, 0))], NAMES, copies=2)
    assert dict(made.counts) == {
        "pairs": 4, "pairs without scores": 2, "pairs of equal scores": 4, "examples without a pair": 6,
    }  # fmt: skip
    assert len(made) == 2


def test_a_vector_does_not_hang_on_what_was_left_out_before():
    some = [scored((1, 0), (0, 1)), scored((2, 0), (0, 1))]
    gap = [some[0], scored((1, 2), (1, 2)), some[1]]
    assert preference_vectors(gap, NAMES, seed=5)[0] == preference_vectors(some, NAMES, seed=5)[0]


def test_weights_asked_for_are_told_as_in_training():
    (asked,) = toward([scored((1, 0))], {"helpfulness": 3, "safety": 1})
    assert asked.prompt[0] == Message("system", "What counts in the answer: helpfulness 0.75, safety 0.25.")
    assert told_weights({"a": 1, "b": 1, "c": 1}) == "What counts in the answer: a 0.34, b 0.33, c 0.33."
    assert told_weights({"a": 0.57, "b": 0.43}) == "What counts in the answer: a 0.57, b 0.43."
    (plain,) = toward([scored((1, 0))], {"a": 1, "b": 0}, system=False)
    assert plain.prompt == "What counts in the answer: a 1.00, b 0.00.\n\nq"


def test_a_run_finds_the_weights_of_each_row(tmp_path, monkeypatch):
    """At the start all losses are log 2, so that what is told of the weights alone makes the penalty."""
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    base = save_family("llama", tmp_path / "model", initializer_range=0.1)
    some = [scored((1, 0), (0, 1)), scored((0, 2), (1, 0)), scored((0, 1), (0.5, 0))]
    made = preference_vectors(some, NAMES, copies=3, system=False)
    write(made, tmp_path / "made.jsonl")
    own = {"attributes": "helpfulness,safety", "weights": "weight_helpfulness,weight_safety"}
    job = job_of(base, tmp_path / "made.jsonl", method="multitron", batch=3, penalty=0.5, **own)
    assert [row.scores["weight_safety"][0] for row in job.rows] == [weights(e)[1] for e in made]
    losses, _ = job.losses([job.rows[i] for i in range(len(job.rows))], job.context(0))
    share = torch.tensor([weights(e) for e in made]).softmax(1)
    wanted = math.log(2) + 0.5 * (share * (2 * share).log()).sum(1)
    torch.testing.assert_close(losses.detach(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: preference_vectors([], ["a"]), "attributes"),
        (lambda: preference_vectors([], ["a", "a"]), "attributes"),
        (lambda: preference_vectors([], NAMES, spread=0.0), "spread"),
        (lambda: preference_vectors([], NAMES, spread=float("inf")), "spread"),
        (lambda: preference_vectors([], NAMES, copies=0), "copies"),
        (lambda: told_weights({"a": 1.0}), "weights"),
        (lambda: told_weights({"a": 0.0, "b": 0.0}), "weights"),
        (lambda: told_weights({"a": -1.0, "b": 2.0}), "weights"),
    ],
)
def test_what_cannot_be_used_is_refused(call, named: str):
    with pytest.raises(InputError) as caught:
        call()
    assert named in caught.value.what
    assert caught.value.mend
