"""`boresight rank` from end to end: what is told of made-up and of real votes, on the terminal and on the page."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

import boresight
from arenas import drawn, examples
from arenas import table as columns
from boresight.cli import main
from boresight.data.example import Example, Pair, Response
from boresight.data.table import Examples
from boresight.data.write import write
from boresight.errors import InputError
from boresight.judging.rank import correlations, kendall, rank, spearman
from boresight.judging.ranking import ranking
from boresight.judging.ranking_fit import cluster_weights
from boresight.report.arena import arena_page

DATA = Path(os.environ.get("BORESIGHT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
LLMFAO = DATA / "llmfao-arena"
REAL = pytest.mark.skipif(not LLMFAO.is_dir(), reason=f"real data are not at {DATA}")


def table(rows):
    return Examples.from_list(rows)


@pytest.fixture(scope="module")
def made():
    rows = drawn([1.2, 0.4, 0, -0.5, -1.1], 900, 0, prompts=60, place=0.5, ties=0.1, judges={"x": 0, "y": 0, "z": 1})
    return rank(table(rows), rounds=200).told


def test_the_door_of_the_package_is_the_same_function():
    assert boresight.rank is rank


def test_systems_come_in_order_with_their_counts(made):
    (one,) = made["rankings"]
    assert [r["system"] for r in one["systems"]] == ["s0", "s1", "s2", "s3", "s4"]
    assert sum(r["won"] + r["tied"] + r["lost"] for r in one["systems"]) == 1800
    assert sum(r["tied"] for r in one["systems"]) == 2 * one["counts"]["tied"]
    for r in one["systems"]:
        assert r["low"] < r["strength"] < r["high"]
        assert r["rank_low"] <= r["rank"] <= r["rank_high"]
        assert r["rating"] == pytest.approx(1000 + 400 * np.log10(np.exp(r["strength"])))
        assert r["win_rate"]["value"] == pytest.approx((r["won"] + r["tied"] / 2) / (r["won"] + r["tied"] + r["lost"]))
    assert np.mean([r["rating"] for r in one["systems"]]) == pytest.approx(1000)
    wins = np.array(one["matrix"]["wins"])
    assert wins.sum() + np.array(one["matrix"]["ties"]).sum() / 2 == 900
    assert "0 without a named system" in one["counted"]
    assert json.loads(json.dumps(made)) == made


def test_what_was_planted_is_said(made):
    words = " ".join(s["words"] for s in made["statements"])
    assert re.search(r"the one shown first wins (5[5-9]|6[0-9])", words)
    assert "z hardly follows what the others see" in words


def test_by_judge_gives_a_ranking_each_and_their_correlations():
    rows = drawn([1.2, 0.4, 0, -0.5, -1.1], 900, 0, prompts=60, judges={"x": 0, "y": 0, "z": 1})
    told = rank(table(rows), by="judge", rounds=200).told
    assert {r["name"] for r in told["rankings"][1:]} == {"x", "y", "z"}
    between = {(p["a"], p["b"]): p for p in told["between"]}
    good = next(p for pair, p in between.items() if set(pair) == {"x", "y"})
    assert good["spearman"]["value"] >= 0.9
    assert good["spearman"]["low"] > 0
    whole = next(p for pair, p in between.items() if "z" in pair and "x" in pair)
    assert whole["spearman"]["high"] - whole["spearman"]["low"] > 0.5
    with pytest.raises(InputError, match="no vote names its domain"):
        rank(table(rows), by="domain")
    with pytest.raises(InputError, match="split by jugde"):
        rank(table(rows), by="jugde")


def test_by_domain_counts_what_is_left_out():
    rows = [
        Example(e.prompt, e.responses, pairs=e.pairs, domain="big" if k < 150 else "small" if k < 160 else None)
        for k, e in enumerate(drawn([1, 0, -1], 200, 1))
    ]
    told = rank(table(rows), by="domain", rounds=100).told
    assert [r["name"] for r in told["rankings"][1:]] == ["big"]
    assert told["left_out"] == [{"name": "small", "votes": 10}, {"name": "without a domain", "votes": 40}]


def test_two_sources_of_the_same_votes_agree_wholly():
    rows = table(drawn([1, 0.3, -0.4, -0.9], 400, 3, prompts=40))
    told = rank([rows, rows], rounds=100).told
    (pair,) = told["between"]
    assert pair["spearman"]["value"] == pair["kendall"]["value"] == pytest.approx(1)
    assert pair["spearman"]["low"] == pytest.approx(1)  # drawn on the same prompts, nothing differs
    assert pair["agreement"]["agree"]["value"] == 1
    assert pair["agreement"]["kappa"]["value"] == pytest.approx(1)


def test_correlations_are_those_of_scipy():
    random = np.random.default_rng(0)
    x, y = random.normal(0, 1, (2, 20, 9))
    x[0, :3] = 1.0  # tied
    for p, q, s, k in zip(x, y, spearman(x, y), kendall(x, y), strict=True):
        assert s == pytest.approx(spearmanr(p, q)[0])
        assert k == pytest.approx(kendalltau(p, q)[0])
    told = correlations(x[1], y[1], np.empty((0, 9)), np.empty((0, 9)))
    assert (told["spearman"]["low"], told["spearman"]["high"]) == (-1, 1)


def test_the_interval_of_a_correlation_covers_that_of_endless_votes():
    truth = np.array([1.0, 0.6, 0.2, 0.0, -0.3, -0.6, -1.0, -1.2])
    other = truth + np.array([0, 0.5, -0.5, 0.3, 0.6, -0.6, 0.5, 0.4])
    real, inside = spearmanr(truth, other)[0], []
    weights = cluster_weights(60, 100, 0)
    for seed in range(20):
        pair = [columns(t, 2400, 50 * seed + k, prompts=60, spread=0.3) for k, t in enumerate((truth, other))]
        one, two = (ranking(votes, weights=weights) for votes in pair)
        found = correlations(one.fit.strength, two.fit.strength, one.rounds, two.rounds)["spearman"]
        inside.append(found["low"] <= real <= found["high"])
        assert one.reliability > 0.9
    assert sum(inside) >= 17


def test_degenerate_votes_are_told_with_the_mend():
    ring = [("a", "b", 1), ("b", "a", 1)] * 4
    for results, what in (
        ([*ring, ("top", "a", 1), ("top", "b", 1)], r"top never lost or tied: votes give no upper bound.*Mend"),
        ([*ring, ("a", "low", 1)], r"low never won or tied.*Mend"),
        ([*ring, ("c", "d", 1), ("d", "c", 1)], r"do not connect all systems \(2 parts.*Mend"),
    ):
        told = rank(table(examples(results)), rounds=100).told
        words = [s["words"] for s in told["statements"] if s["severity"] == "warning"]
        assert any(re.search(what, w) for w in words), words
        assert any("half won" in s["words"] for s in told["statements"])
        assert arena_page(told)
    told = rank(table(examples([("a", "b", 0.5), ("b", "c", 0.5), ("c", "a", 0.5)] * 3)), rounds=100).told
    assert {r["rank"] for r in told["rankings"][0]["systems"]} == {1}
    assert arena_page(told)


def test_what_cannot_be_ranked_is_said():
    nameless = [Example("?", (Response("x"), Response("y")), pairs=(Pair(0, 1),))]
    with pytest.raises(InputError, match="name no systems"):
        rank(table(nameless))
    with pytest.raises(InputError, match=r"no vote is left.*1 a system against itself"):
        rank(table([Example("?", (Response("x", system="a"), Response("y", system="a")), pairs=(Pair(0, 1),))]))
    good = table(examples([("a", "b", 1), ("b", "a", 1)] * 3))
    for options, what in (
        ({"against": "c"}, "no system is called c"), ({"rounds": 5}, "too few"), ({"cluster": "x"}, "clustered by x"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=what):
            rank(good, **options)
    with pytest.raises(InputError, match="one source"):
        rank([good, good], by="judge")
    with pytest.raises(InputError, match="no votes are given"):
        rank([])


def test_judges_of_systems_without_a_name_are_told():
    rows = [
        Example(
            str(k),
            (Response("x"), Response("y")),
            pairs=(Pair(0, 1, annotator="j"), Pair(1, 0, annotator="j, swapped")),
        )
        for k in range(40)
    ]
    told = rank(table(rows)).told
    assert told["rankings"] == []
    (judge,) = told["judged"][0]["judges"]
    assert judge["orders"]["first"] == 40
    assert judge["odd"] == ["prefers the first place"]
    assert "1 of 1 judges stand out" in told["statements"][0]["words"]
    assert "always first / second" in arena_page(told)


def test_against_one_system():
    told = rank(table(drawn([1, 0, -1], 300, 1)), against="s1", rounds=100).told
    assert [(d["a"], d["b"]) for d in told["rankings"][0]["apart"]] == [("s0", "s1"), ("s2", "s1")]


def test_on_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    path, page = tmp_path / "votes.jsonl", tmp_path / "arena.html"
    write(drawn([1, 0, -1], 300, 1, judges={"x": 0, "y": 0}), path)
    assert main(["rank", str(path), "--rounds", "100", "--html", str(page), "--by", "judge"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 + len(str(page))
    for words in ("3 systems, 300 votes", "1 s0", "Votes still needed: between", "first place", "Spearman", "300 used"):
        assert words in " ".join(out.split()), words
    assert main(["rank", str(path), "--rounds", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rankings"][0]["systems"][0]["system"] == "s0"
    assert main(["rank", str(tmp_path / "none.jsonl")]) == 2
    assert main(["rank", str(path), "--against", "s7"]) == 2
    assert "mend" in capsys.readouterr().err


def test_names_from_votes_are_escaped_on_the_page():
    evil = '<script>alert(1)</script>"\x1b[31m'
    rows = examples([(evil, "b", 1), ("b", evil, 1), ("b", evil, 1)] * 12, judges=[evil, "j"] * 18)
    page = arena_page(rank(table(rows), rounds=100).told)
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "Content-Security-Policy" in page
    assert not re.search(r"\sstyle=|\son\w+=|https?://(?!www\.w3\.org)", page)


@REAL
def test_people_and_two_models_on_the_same_answers(tmp_path, monkeypatch):
    told = rank([LLMFAO / f"{who}_votes.csv.gz" for who in ("human", "gpt4", "gpt3")], rounds=100).told
    human, gpt4, gpt3 = told["rankings"]
    assert [r["counts"]["used"] for r in told["rankings"]] == [6194, 1483, 1483]
    assert [len(r["systems"]) for r in told["rankings"]] == [59, 59, 59]
    assert human["counts"]["tied"] == 2217
    assert human["clusters"] == {"by": "prompt", "count": 9}
    places = [{e["name"]: e for e in r["effects"]}["first place"] for r in (human, gpt4, gpt3)]
    # GPT-3.5 takes the first place, people and GPT-4 do not.
    assert places[2]["share"]["low"] > 0.6
    assert places[0]["share"]["high"] < 0.6
    assert places[1]["share"]["high"] < 0.5
    pairs = {(p["a"], p["b"]): p for p in told["between"]}
    near, far = (pairs["human_votes", f"{g}_votes"] for g in ("gpt4", "gpt3"))
    assert near["spearman"]["value"] > far["spearman"]["value"] > 0.3
    assert near["agreement"]["items"] == 1483
    assert near["agreement"]["decided"]["value"] > far["agreement"]["decided"]["value"] > 0.5
