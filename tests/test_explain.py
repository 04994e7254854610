"""`explain`: planted rules are found, nothing is found where there is nothing, the verb and its page."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest

from boresight.cli import main
from boresight.data.example import Example, Message, Pair, Response
from boresight.data.write import write
from boresight.errors import InputError
from boresight.judging.concepts_ask import Concept
from boresight.judging.explain import explain
from boresight.judging.explain_alone import words
from boresight.judging.explain_held import CHANCE, LENGTH, held_out, of_columns
from boresight.judging.explain_pairs import compared
from boresight.report.explanation import explanation_page
from report_runs import check_page

NOUNS = ["river", "stone", "window", "garden", "letter", "bridge", "market", "copper", "winter", "pencil", "lantern"]


def text(rng: np.random.Generator, length: int, *, hedge: bool = False, list_: bool = False) -> str:
    said = [*rng.choice(NOUNS, length - 1), "perhaps" if hedge else "also"]
    return " ".join(said) + ("\n- one\n- two." if list_ else ".")


def planted(n: int, seed: int, hedges: float = -2.0, lists: float = 0.0, **more: object) -> list[Example]:
    """Pairs preferred by Bradley-Terry odds of hedges and lists, whatever their lengths; places are shuffled."""
    rng, made = np.random.default_rng(seed), []
    for i in range(n):
        marks = rng.uniform(size=(2, 2)) < 0.5
        sides = [text(rng, int(rng.integers(5, 30)), hedge=bool(h), list_=bool(x)) for h, x in marks]
        gain = (marks[0].astype(float) - marks[1]) @ [hedges, lists]
        first = rng.uniform() < 1 / (1 + np.exp(-gain))
        pair = Pair(0, 1) if first else Pair(1, 0)
        made.append(Example(f"prompt {i}", (Response(sides[0]), Response(sides[1])), pairs=(pair,), **more))  # type: ignore[arg-type]
    return made


def of(found, id: str) -> dict:
    return next(f for f in found.told["features"] if f["id"] == id)


def test_a_planted_rule_is_found_and_nothing_else_is_said():
    found = explain(planted(300, 0), rounds=50)
    hedges = of(found, "hedges")
    assert found.told["features"][0]["id"] == "hedges"
    assert hedges["coefficient"] < 0
    assert hedges["high"] < 0
    assert hedges["p_holm"] < 0.001
    assert hedges["share_p_adjusted"] < 0.001
    # half the pairs differ in the one mark, so that a usual difference is sqrt(1/2) of it; the prior takes a little
    assert hedges["low"] < -2.0 * np.sqrt(0.5) < hedges["high"]
    assert hedges["bootstrap_low"] < hedges["coefficient"] < hedges["bootstrap_high"]
    said = " ".join(found.told["statements"])
    assert "hedges less" in said
    assert "longer" not in said
    assert "say more than length alone" in said
    held = {h["model"]: h for h in found.told["held_out"]}
    assert held["features"]["log_loss"]["high"] < held[LENGTH]["log_loss"]["low"]
    assert held[CHANCE]["log_loss"]["value"] == pytest.approx(log(2))
    assert held[CHANCE]["accuracy"]["value"] == 0.5


def test_where_nothing_is_preferred_nothing_is_said():
    found = explain(planted(300, 1, hedges=0.0), rounds=0)
    assert found.told["statements"][0].startswith("None of these features")
    assert all(f["p_holm"] > 0.05 and f["share_p_adjusted"] > 0.05 for f in found.told["features"])
    held = {h["model"]: h for h in found.told["held_out"]}
    assert held["features"]["log_loss"]["value"] > log(2)  # what was fitted is noise


def test_which_side_is_written_first_does_not_matter():
    given = planted(120, 2)
    turned = [
        Example(e.prompt, e.responses[::-1], pairs=(Pair(1 - e.pairs[0].chosen, 1 - e.pairs[0].rejected),))
        for e in given
    ]
    a, b = explain(given, rounds=0), explain(turned, rounds=0)
    for one in a.told["features"]:
        other = of(b, one["id"])
        sign = -1 if one["id"] == "first" else 1
        assert one["coefficient"] == pytest.approx(sign * other["coefficient"], abs=1e-7)
        assert one["share"]["n"] == other["share"]["n"]


def test_what_decided_a_pair_adds_up():
    found = explain(planted(100, 3), rounds=0, show=4)
    for i in range(5):
        told = found.local(i, most=1000)
        assert sum(b["adds"] for b in told["because"]) == pytest.approx(told["margin"])
        assert told["probability"] == pytest.approx(1 / (1 + np.exp(-told["margin"])))
        for b in told["because"]:
            one = of(found, b["feature"])
            assert b["adds"] == pytest.approx(one["coefficient"] * b["difference"] / one["usual_difference"])
    margins = [one["margin"] for one in found.told["shown"]]
    assert margins[:2] == sorted(found.fit.margins(found.pairs.x), reverse=True)[:2]
    assert margins[2:] == sorted(found.fit.margins(found.pairs.x))[:2]


def test_nothing_of_held_out_prompts_is_known_to_the_fit():
    """The answer to each prompt is in its own pairs alone; a leak would be right of all of them."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(40):
        sides = [f"only{i}a {text(rng, 8)}", f"only{i}b {text(rng, 8)}"]
        order = rng.permutation(2)
        pair = Pair(int(order[0]), int(order[1]))
        examples += [Example(f"p{i}", (Response(sides[0]), Response(sides[1])), pairs=(pair,))] * 3
    pairs = compared([("data", examples)])
    fits: list[set[int]] = []

    def watch(fit, test):
        fits.append(set(fit.prompt.tolist()) & set(test.prompt.tolist()))
        return np.zeros(len(test))

    held_out(pairs, {"watch": watch})
    assert fits == [set()] * 5
    # dialogues that begin alike are one prompt
    turns = [(Message("user", "Hi  there"),), (Message("user", "hi there"), Message("assistant", "?"))]
    alike = [Example(t, (Response("a"), Response("b")), pairs=(Pair(0, 1),)) for t in turns]
    assert compared([("data", alike)]).prompt.tolist() == [0, 0]


def test_standardised_on_what_is_fitted_on():
    pairs = compared([("data", planted(60, 4))])
    model = of_columns(slice(None))
    fit, test = pairs.take(np.arange(40)), pairs.take(np.arange(40, 60))
    alone = model(fit, test.take(np.arange(1)))
    assert model(fit, test)[0] == pytest.approx(alone[0])


def test_ties_ranks_and_places():
    tie = Example("p", (Response("a b"), Response("a")), pairs=(Pair(0, 1, tie=True),))
    ranked = Example("q", (Response("a"), Response("a b c"), Response("a b")), ranks=(3, 1, 2))
    pairs = compared([("data", [tie, ranked])])
    assert pairs.y.tolist() == [0.5, 1, 1, 1]
    assert pairs.ties == 1
    assert "first" in pairs.ids  # both places were preferred
    listed = compared([("data", [Example("q", (Response("a"), Response("b")), pairs=(Pair(0, 1),))] * 3)])
    assert "first" not in listed.ids
    nothing = explain([tie] * 3, rounds=0)
    assert "All pairs are ties" in nothing.told["cautions"][0]
    assert nothing.told["statements"][0].startswith("None")


def test_one_pair_and_no_pair():
    one = explain([Example("p", (Response("a b"), Response("a")), pairs=(Pair(0, 1),))], rounds=10)
    assert any("right about every pair" in c for c in one.told["cautions"])
    assert any("only 1 different prompt:" in c for c in one.told["cautions"])
    assert one.told["held_out"] == []
    assert "Nothing could be held out" in one.told["statements"][-1]
    assert all(np.isfinite(f["coefficient"]) for f in one.told["features"])
    check_page(explanation_page(json.loads(json.dumps(one.told).replace("Infinity", "1e9"))))
    with pytest.raises(InputError, match="no preferences"):
        explain([Example("p", (Response("a"),))])


def test_groups_show_what_is_shared_and_what_is_special():
    given = planted(200, 5, domain="a") + planted(200, 6, hedges=-2.0, lists=3.0, domain="b")
    given += planted(3, 7, domain="small")
    found = explain(given, by="domain", rounds=0).told["by"]
    assert {g["name"]: g["pairs"] for g in found["groups"]} == {"a": 200, "b": 200}
    assert found["left_out"] == 3
    groups = {g["name"]: g for g in found["groups"]}
    assert found["shared"]["hedges"] < -0.5
    assert groups["b"]["coefficients"]["list"] - groups["a"]["coefficients"]["list"] > 0.5
    sure = {(d["group"], d["feature"]) for d in found["differences"] if d["p_holm"] < 0.05}
    assert {("a", "list"), ("b", "list")} == sure
    shares = {s["feature"]: s for s in groups["b"]["shares"]}
    assert shares["list"]["value"] > 0.7
    assert shares["list"]["p_adjusted"] < 0.001
    losses = {h["model"]: h["log_loss"]["value"] for h in found["held_out"]}
    assert losses["shared + specific"] < losses["one for all"]
    for bad in ("colour", "annotator"):
        with pytest.raises(InputError):
            explain(given[:50], by=bad, rounds=0)


def test_words_that_tell_pairs_apart():
    rng, examples = np.random.default_rng(0), []
    for i in range(60):
        a, b = text(rng, 6), text(rng, 6)
        examples.append(Example(f"p{i}", (Response(f"Surely {a}"), Response(f"Never {b}")), pairs=(Pair(0, 1),)))
    found = words(compared([("data", examples)]))
    assert {found[0].word, found[1].word} == {"surely", "never"}
    assert found[0].share.n == 60
    assert found[0].p_holm < 1e-10
    assert all(one.p_holm > 0.05 for one in found[2:])


def test_a_judged_concept_is_a_feature_beside_the_others():
    given = planted(150, 8)
    asked = []

    def judge(question, prompt, first, second):
        asked.append(question)
        return ("perhaps" not in first) - ("perhaps" not in second)

    both = [Concept("sure", "Which is surer?"), Concept("never", "Which is blue?")]
    found = explain(given, concepts=both[:1], judge=judge, rounds=0)
    assert len(asked) == 300
    one = of(found, "concept: sure")
    assert one["coefficient"] > 0
    assert one["share"]["value"] == pytest.approx(1 - of(found, "hedges")["share"]["value"])
    assert ("hedges", "concept: sure") in {(a["first"], a["second"]) for a in found.told["alike"]}
    told = found.told["concepts"]
    assert told["asked"][0]["turned"] == 0
    assert told["arbitrariness"]["value"] == pytest.approx(1 - one["share"]["value"])
    with pytest.raises(InputError, match="judge"):
        explain(given, concepts=both)


def test_the_page_escapes_and_stands_alone():
    bad = "<script>alert(1)</script>\u202e"
    given = planted(20, 9, domain=bad) + planted(20, 10, domain="b")
    given += [Example(bad, (Response(bad), Response("b")), pairs=(Pair(0, 1),), domain="b")]
    found = explain(given, by="domain", with_words=True, rounds=0, show=41)
    page = explanation_page(found.told)
    check_page(page)
    assert "<script>" not in page
    assert "\u202e" not in page


def test_the_verb(tmp_path, capsys):
    data = tmp_path / "prefs.jsonl"
    write(planted(80, 11, hedges=-4.0), data)
    html, pairs = tmp_path / "e.html", tmp_path / "p.jsonl"
    words_ = [
        "explain",
        str(data),
        "--rounds",
        "5",
        "--html",
        str(html),
        "--pairs",
        str(pairs),
        "--words",
        "--show",
        "2",
    ]
    assert main([*words_, "-q"]) == 0
    out = capsys.readouterr().out
    assert "hedges less" in " ".join(out.split())
    assert "80 pairs, on 80 prompts" in out
    check_page(html.read_text("utf-8"))
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    assert [row["pair"] for row in rows] == list(range(80))
    assert main([*words_[:4], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == 80
    assert told["features"][0]["id"] == "hedges"
    assert main(["explain", str(data), "--concepts", "c.txt"]) == 2
    assert main(["explain", str(data), "--by", "domain"]) == 2
    assert main(["explain", str(data), "--pairs", str(tmp_path / "x.csv"), "--rounds", "0", "-q"]) == 2


def test_the_known_rules_of_icai_synthetic_are_found(real_data):
    """Three rules, ten pairs of one prompt each: the true answer, an answer and no evasion, willing help."""
    found = explain(real_data / "icai-synthetic" / "aligned_vqvtb.csv", by="prompt", with_words=True, rounds=0)
    sure = {
        g["name"].split()[-1]: {s["feature"]: s["value"] for s in g["shares"] if s["p_adjusted"] < 0.05}
        for g in found.told["by"]["groups"]
    }
    # willing help asks back and is glad to, an answer names places, the false capital takes more words
    assert sure["me?"]["questions"] == sure["me?"]["exclamations"] == 1
    assert sure["UK?"]["names"] == 1
    assert sure["US?"]["length"] == 0
    alone = {f["id"]: f for f in found.told["features"] if f["share_p_adjusted"] < 0.05}
    assert alone["hedges"]["share"]["value"] == 0
    assert alone["polite"]["share"]["value"] == 1
    words_ = {w["word"]: w["share"]["value"] for w in found.told["words"]["other"] if w["p_holm"] < 0.05}
    assert words_["paris"] == words_["traveling"] == 0


def test_human_preferences_are_longer_and_not_only_that(real_data):
    found = explain(real_data / "hh-helpful" / "test.jsonl.gz", rounds=0)
    length = of(found, "length")
    assert length["share"]["value"] == pytest.approx(0.57, abs=0.02)  # in words; SOURCE.md: .563 in characters
    held = {h["model"]: h for h in found.told["held_out"]}
    assert held["features"]["log_loss"]["value"] < held[LENGTH]["log_loss"]["value"] < log(2)
    assert held["features"]["accuracy"]["value"] < 0.65
