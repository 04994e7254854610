"""SIMPLEMIX: what is drawn from where, how many, that nothing is drawn twice or lost uncounted."""

from __future__ import annotations

from collections import Counter

import pytest

from boresight.curation import simplemix
from boresight.data.example import Example, Label, Pair, Response, Score, Step
from boresight.errors import InputError

TWO = (Response("a"), Response("b"))


def paired(count: int, name: str, **more: object) -> list[Example]:
    return [Example(f"{name}{i}", TWO, pairs=(Pair(0, 1),), id=f"{name}{i}", **more) for i in range(count)]  # type: ignore[arg-type]


def test_each_pair_is_drawn_once_and_says_where_it_is_from():
    mix = simplemix(paired(40, "x"), paired(30, "y"), seed=3)
    assert len(mix) == 30
    assert len({e.id for e in mix}) == 30
    for example in mix:
        side, _, own = example.id.partition(":")
        assert (side, own) == ({"x": "on", "y": "off"}[example.prompt[0]], example.prompt)
    own = sum(e.prompt.startswith("x") for e in mix)
    assert dict(mix.counts) == {
        "from on": own, "left over of on": 40 - own, "examples of on without a pair": 0, "ties of on": 0,
        "from off": 30 - own, "left over of off": own, "examples of off without a pair": 0, "ties of off": 0,
    }  # fmt: skip
    assert mix.lines()[0] == "30 examples"
    assert f"  from on: {own}" in mix.lines()


def test_each_is_drawn_by_a_coin_of_its_own():
    """Over 400 seeds the share of own pairs has the mean and the variance of a binomial law, at every place alike."""
    shares, places = [], Counter()
    for seed in range(400):
        mix = simplemix(paired(20, "x"), paired(20, "y"), share=0.3, seed=seed)
        own = [e.prompt.startswith("x") for e in mix]
        shares.append(sum(own))
        places.update(i for i, mine in enumerate(own) if mine)
    mean = sum(shares) / 400
    assert abs(mean - 6) < 4 * (20 * 0.3 * 0.7 / 400) ** 0.5
    variance = sum((s - mean) ** 2 for s in shares) / 399
    assert 0.75 < variance / (20 * 0.3 * 0.7) < 1.25
    assert all(70 < places[i] < 170 for i in range(20))


def test_which_of_a_source_are_drawn_is_by_chance_too():
    drawn = Counter(e.prompt for seed in range(300) for e in simplemix(paired(10, "x"), paired(10, "y"), seed=seed))
    assert len(drawn) == 20
    assert all(110 < n < 190 for n in drawn.values())


def test_the_same_seed_draws_the_same():
    assert simplemix(paired(9, "x"), paired(9, "y"), seed=1) == simplemix(paired(9, "x"), paired(9, "y"), seed=1)
    assert simplemix(paired(9, "x"), paired(9, "y"), seed=1) != simplemix(paired(9, "x"), paired(9, "y"), seed=2)


@pytest.mark.parametrize(("share", "prompts"), [(1.0, "x"), (0.0, "y")])
def test_at_the_ends_it_is_one_source(share: float, prompts: str):
    mix = simplemix(paired(5, "x"), paired(5, "y"), share=share)
    assert sorted(e.prompt for e in mix) == [f"{prompts}{i}" for i in range(5)]


def test_scored_samples_make_the_best_against_the_worst_and_several_pairs_are_told_apart():
    four = tuple(Response(t) for t in "abcd")
    scores = tuple(Score(i, v) for i, v in enumerate((1.0, 4.0, 0.0, 2.0)))
    sampled = Example("q", four, scores=scores, ranks=(), steps=(Step(0, 0, 1.0),), source="own.jsonl:7")
    (made,) = simplemix([sampled], paired(1, "y"), share=1.0)
    assert made.pairs == (Pair(1, 2),)
    assert (made.scores, made.steps, made.responses) == (scores, sampled.steps, four)
    assert made.id == "on:own.jsonl:7"
    every = simplemix([sampled], paired(6, "y"), share=1.0, ranked="all")
    assert {e.id for e in every} == {f"on:own.jsonl:7~{k}" for k in range(6)}
    assert all(len(e.pairs) == 1 for e in every)


def test_pairs_keep_weight_and_annotator_and_labels_and_ranks_go():
    pair = Pair(1, 0, 2.5, annotator="x")
    whole = Example("q", TWO, pairs=(pair, Pair(0, 1, tie=True)), labels=(Label(0, True),), ranks=(1, 2))
    mix = simplemix([whole], paired(1, "y"), share=1.0)
    assert list(mix) == [Example("q", TWO, pairs=(pair,), id="on:example 0")]
    assert mix.counts["ties of on"] == 1


def test_what_has_no_pair_is_counted():
    bare = [Example("q", TWO), Example("q", TWO, pairs=(Pair(0, 1, tie=True),))]
    mix = simplemix([*bare, *paired(2, "x")], paired(2, "y"), share=1.0)
    assert mix.counts["examples of on without a pair"] == 2
    assert len(mix) == 2


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: simplemix(paired(2, "x"), paired(2, "y"), share=1.5), "share"),
        (lambda: simplemix(paired(2, "x"), paired(2, "y"), share=float("nan")), "share"),
        (lambda: simplemix(paired(2, "x"), paired(2, "y"), count=0), "count is 0"),
        (lambda: simplemix([], paired(2, "y")), "on has no pair"),
        (lambda: simplemix(paired(2, "x"), [Example("q", TWO)]), "off has no pair"),
        (lambda: simplemix(paired(2, "x"), paired(20, "y"), share=1.0, count=3), "3 of 3 pairs"),
    ],
)
def test_what_cannot_be_used_is_refused(call, named: str):
    with pytest.raises(InputError) as caught:
        call()
    assert named in caught.value.what
    assert caught.value.mend
