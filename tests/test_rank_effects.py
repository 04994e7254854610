"""Votes, places, styles, judges: what is planted is found, and what is not there is not."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from arenas import drawn, examples, newton, votes
from boresight.data.example import Example, Label, Message, Pair, Response, Score
from boresight.data.read import read
from boresight.data.table import Examples
from boresight.judging import effects
from boresight.judging.ranking import ranking
from boresight.judging.votes import STYLE, collect, majority, style_of

DATA = Path(os.environ.get("BORESIGHT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
REAL = pytest.mark.skipif(not (DATA / "llmbar").is_dir(), reason=f"real data are not at {DATA}")


def asked(*responses, prompt="?", **feedback):
    return Example(prompt, tuple(Response(t, system=s) for t, s in responses), **feedback)


def test_votes_of_pairs_ranks_and_scores():
    pairs = asked(
        ("x", "a"), ("y", "b"), pairs=(Pair(1, 0, annotator="j"), Pair(0, 1, tie=True), Pair(0, 1, weight=2.0))
    )
    found = collect([pairs])
    assert found.systems == ("a", "b")
    assert found.outcome.tolist() == [0, 0.5, 1]
    assert found.weight.tolist() == [1, 1, 2]
    assert found.judge.tolist() == [0, -1, -1]
    ranked = collect([asked(("x", "a"), ("y", "b"), ("z", "c"), ranks=(2, 1, 2))])
    assert list(zip(ranked.first.tolist(), ranked.second.tolist(), ranked.outcome.tolist(), strict=True)) == [
        (0, 1, 0), (0, 2, 0.5), (1, 2, 1),
    ]  # fmt: skip
    scores = (
        Score(0, 1, annotator="p"),
        Score(1, 3, annotator="p"),
        Score(0, 2, annotator="q"),
        Score(1, 2, annotator="q"),
    )
    scored = collect([asked(("x", "a"), ("y", "b"), scores=scores)])
    assert scored.outcome.tolist() == [0, 0.5]
    assert [scored.judges[k] for k in scored.judge] == ["p", "q"]


def test_what_is_left_out_is_counted():
    rows = [
        asked(("x", "a"), ("y", "b"), pairs=(Pair(0, 1), Pair(0, 1, tie=True))),
        asked(("x", "a"), ("y", None), pairs=(Pair(0, 1),)),
        asked(("x", "a"), ("y", "a"), pairs=(Pair(0, 1),)),
        asked(("x", "a"), labels=(Label(0, True),)),
    ]
    found = collect(Examples.from_list(rows))
    assert found.counts == {
        "examples": 4, "votes": 4, "rows that could not be read": 0, "rows with unparsable votes": 0,
        "examples without a vote": 1, "without a named system": 1, "a system against itself": 1, "used": 2, "tied": 1,
    }  # fmt: skip


def test_a_swapped_vote_saw_the_second_first():
    pairs = (Pair(0, 1, annotator="j"), Pair(1, 0, annotator="j, swapped"))
    found = collect([asked(("x", "a"), ("y", "b"), pairs=pairs)])
    assert found.judges == ("j",)
    assert found.outcome.tolist() == [1, 1]  # the first place won both times
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [1, 0])
    assert found.turned[0] != found.turned[1]
    assert effects.both_orders(found, np.ones(2, bool))["first"] == 1


def test_items_are_the_same_whichever_way_they_are_shown():
    one = asked(("x", "a"), ("y", "b"), pairs=(Pair(0, 1),))
    other = asked(("y", "b"), ("x", "a"), pairs=(Pair(1, 0),))
    found = collect([one, other, asked(("y", "b"), ("x", "a"), prompt="!", pairs=(Pair(1, 0),))])
    assert found.item.tolist() == [0, 0, 1]
    assert len(set(found.verdicts()[:2].tolist())) == 1
    assert len(majority(found)) == 2
    messages = Example((Message("user", "?"),), one.responses, pairs=one.pairs)
    assert collect([messages]).items[0] == found.items[0]


def test_votes_without_a_prompt_are_clustered_by_what_they_compare():
    rows = [asked((str(k), "a"), ("y", "b"), prompt="", pairs=(Pair(0, 1),)) for k in (1, 2, 1)]
    assert collect(rows).prompt.tolist() == [0, 1, 0]


def test_taking_votes_renumbers_systems():
    found = votes([("a", "b", 1), ("c", "d", 0), ("d", "b", 1)])
    some = found.take(np.array([False, True, True]))
    assert set(some.systems) == {"b", "c", "d"}
    assert [some.systems[k] for k in some.first] == ["c", "d"]


def test_style_is_counted_as_a_reader_would():
    text = "# One\n\n- a\n- b\n1. c\n\n## Two **bold** and __this__ * not *\n#hashtag\n"
    assert style_of(text) == (len(text), 2, 3, 2)
    assert style_of("") == (0, 0, 0, 0)
    found = collect(
        [asked(("aaa", "a"), ("a", "b"), pairs=(Pair(0, 1),)), asked(("", "a"), ("", "b"), pairs=(Pair(0, 1),))]
    )
    assert found.style.tolist() == [[0.5, 0, 0, 0], [0, 0, 0, 0]]


def test_planted_place_and_length_are_found_with_their_intervals():
    inside = []
    for seed in range(12):
        found = ranking(collect(drawn([0.8, 0, -0.8], 1500, seed, place=0.4, length=0.6, prompts=150)), rounds=0)
        _, listed = effects.regression(found, found.votes.prompt)
        by = {e.name: e for e in listed}
        assert set(by) == {"first place", "length"}  # no markdown in these answers
        assert by["length"].p < 0.001
        inside += [by["first place"].low <= 0.4 <= by["first place"].high, by["length"].low <= 0.6 <= by["length"].high]
        assert by["first place"].share.value == pytest.approx(1 / (1 + np.exp(-by["first place"].value)))
    assert sum(inside) >= 21  # of 24, at 95%


def test_style_control_takes_out_what_length_gave():
    # The weaker system writes at length, and length is what votes go by.
    random = np.random.default_rng(0)
    rows = []
    for k in range(1500):
        a, b = random.integers(50, 150), random.integers(150, 450)
        away = (a - b) / (a + b)
        win = int(random.random() > 1 / (1 + np.exp(-(0.5 + 4 * away))))
        rows.append(asked(("x" * a, "good"), ("y" * b, "long"), prompt=str(k), pairs=(Pair(win, 1 - win),)))
    found = ranking(collect(rows), rounds=0)
    names = list(found.votes.systems)
    plain = found.fit.strength[names.index("good")] - found.fit.strength[names.index("long")]
    fitted, listed = effects.regression(found, found.votes.prompt)
    equal, error = fitted.difference(names.index("good"), names.index("long"))
    assert plain < -1
    assert abs(equal - 0.5) < 2.5 * error
    # The same as a plain logistic regression written for tests.
    size = np.sqrt((found.votes.style[:, 0] ** 2).mean())
    extra = np.column_stack([np.ones(len(found.votes)), found.votes.style[:, 0] / size])
    strength, slope = newton(found.votes.first, found.votes.second, found.votes.outcome, 2, extra)
    assert fitted.strength == pytest.approx(strength, abs=1e-5)
    assert [e.value for e in listed] == pytest.approx(slope, abs=1e-5)


def test_places_mean_nothing_where_the_better_is_always_listed_first():
    rows = [
        asked(("x" * (k % 7 + 1), "ab"[k % 2]), ("yyy", "ba"[k % 2]), prompt=str(k), pairs=(Pair(0, 1),))
        for k in range(60)
    ]
    found = ranking(collect(rows), rounds=0)
    assert not found.votes.placed
    assert "first place" not in [e.name for e in effects.regression(found, found.votes.prompt)[1]]
    assert STYLE[0] == "length"


def test_judges_who_vote_by_a_coin_or_by_the_place_stand_out():
    judges = {"good": 0.0, "also good": 0.0, "coin": 1.0}
    rows = drawn([1.5, 0.5, -0.5, -1.5], 1500, 1, judges=judges, prompts=100)
    first = [
        Example(e.prompt, e.responses, pairs=(Pair(0, 1, annotator="first"),))
        for e in drawn([0, 0, 0, 0], 120, 2, prompts=100)
    ]
    found = collect([*rows, *first])
    listed = {j.name: j for j in effects.judges(found, ranking(found, rounds=0))}
    assert listed["good"].odd == ()
    # The strengths that all others see are pulled together by those who vote by a coin.
    assert listed["good"].follows.low > 1
    assert listed["coin"].follows.low < 0.2
    assert listed["coin"].follows.high < 0.5
    assert any("hardly follows" in w for w in listed["coin"].odd)
    assert any("first place" in w for w in listed["first"].odd)
    assert listed["first"].chose_first.value == 1


def test_few_votes_do_not_make_a_judge():
    found = votes([("a", "b", 1)] * 40, judges=["much"] * 35 + ["little"] * 5)
    assert [j.name for j in effects.judges(found, None)] == ["much"]


def test_agreement_with_others_by_hand():
    # On the first item x and y say a, z says b; on the second x alone voted.
    results = [("a", "b", 1), ("a", "b", 1), ("a", "b", 0), ("a", "b", 1)]
    found = votes(results, prompts=[0, 0, 0, 1], judges=["x", "y", "z", "x"])
    by = {found.judges[k]: v for k, v in effects._agreeing(found).items()}
    assert by["x"].value == by["y"].value == 0.5
    assert by["z"].value == 0
    assert by["x"].n == 1


@REAL
@pytest.mark.parametrize("part", ["natural", "neighbor"])
def test_llmbar_both_orders_are_the_published_figures(part):
    published = json.loads((DATA / "llmbar" / f"{part}_published_stats.json").read_text())
    found = collect(read(DATA / "llmbar" / f"{part}_judge_votes.jsonl.gz"))
    assert not found.ranked
    listed = {j.name: j for j in effects.judges(found, None)}
    with gzip.open(DATA / "llmbar" / f"{part}_judge_votes.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert len(published) == 65
    for name, stats in published.items():
        both, own = listed[name].orders, [r for r in rows if r["judge"] == name]
        # The authors count an item of which neither verdict could be parsed as one with the same verdict twice.
        lost = sum(r["forward"] is None and r["swapped"] is None for r in own)
        assert both["same"] == int(stats["equal"].split(" / ")[0]) - lost
        assert both["items"] == sum(None not in (r["forward"], r["swapped"]) for r in own)
        assert both["same"] + both["first"] + both["second"] == both["items"]
        assert both["first"] == sum(r["forward"] == "1" and r["swapped"] == "2" for r in own)


def test_examples_of_the_helper_are_what_they_say():
    (one,) = examples([("a", "b", 0)])
    assert one.responses[one.pairs[0].chosen].system == "b"
