"""The runner of claims: verdicts against scipy, controls that must not hold, and what a claim may do wrong."""

from __future__ import annotations

import random
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from boresight.errors import InputError, RunError
from boresight.lab import claimpool
from boresight.lab.claimfiles import load_claims, select
from boresight.lab.claimpool import run_claims
from boresight.lab.claimrun import run_claim
from boresight.lab.claims import CONTROLS, WORST_FIRST, claim, difference, identity, less, more, overall, same
from boresight.stats import Interval

DOC = "What the world is."
GAIN = more("y")


def declared(function, *, expects=GAIN, **options):
    """A claim of a function that is given without a docstring."""
    function.__doc__ = DOC
    words = {"says": "x", "treatment": "a", "baseline": "b", "seeds": 4} | options
    return claim("dpo", expects=expects, **words)(function).__claim__


def compared(apart, **options):
    """A claim with the given differences, and a baseline that is 0 at every seed."""

    def function(arm, seeds):
        return {"y": [apart[s % len(apart)] if arm == "treatment" else 0.0 for s in seeds]}

    return declared(function, seeds=len(apart), **options)


# Intervals and verdicts


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_a_paired_t_test(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 8)) * [[3.0], [1.0]]
    found, known = difference(a, b), stats.ttest_rel(a, b).confidence_interval(0.95)
    assert [found.low, found.high] == pytest.approx([known.low, known.high], abs=1e-12)
    assert found.value == pytest.approx(float(np.mean(a) - np.mean(b)))


def test_an_interval_worked_out_by_hand():
    # Mean 2, standard deviation 1, three values; the 97.5% point of t with two degrees of freedom is 4.302653.
    found = difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert [found.value, found.low, found.high] == pytest.approx([2, 2 - 4.302653 / sqrt(3), 2 + 4.302653 / sqrt(3)])


def test_equal_differences_are_a_point_and_one_seed_says_nothing():
    assert difference([0.3] * 7, [0.1] * 7).low == difference([0.3] * 7, [0.1] * 7).high
    assert (difference([1.0], [0.0]).low, difference([1.0], [0.0]).high) == (-inf, inf)


@pytest.mark.parametrize(
    ("expectation", "low", "high", "verdict"),
    [
        (more("y"), 0.1, 0.5, "holds"), (more("y"), 0.0, 0.5, "undecided"), (more("y"), -0.1, 0.5, "undecided"),
        (more("y"), -0.5, 0.0, "does not hold"), (more("y"), -0.5, -0.1, "does not hold"),
        (more("y"), 0.0, 0.0, "does not hold"), (more("y"), -inf, inf, "undecided"),
        (more("y", by=0.2), 0.3, 0.5, "holds"), (more("y", by=0.2), 0.1, 0.5, "undecided"),
        (more("y", by=0.2), 0.1, 0.2, "does not hold"), (more("y", by=0.2), 0.2, 0.3, "undecided"),
        (less("y"), -0.5, -0.1, "holds"), (less("y"), -0.5, 0.0, "undecided"), (less("y"), -0.5, 0.1, "undecided"),
        (less("y"), 0.0, 0.5, "does not hold"), (less("y"), 0.1, 0.5, "does not hold"),
        (less("y", by=0.2), -0.5, -0.3, "holds"), (less("y", by=0.2), -0.2, -0.1, "does not hold"),
        (less("y", by=0.2), -0.3, -0.1, "undecided"), (less("y"), -inf, inf, "undecided"),
        (same("y", within=0.2), -0.2, 0.2, "holds"), (same("y", within=0.2), 0.0, 0.0, "holds"),
        (same("y", within=0.2), -0.1, 0.3, "undecided"), (same("y", within=0.2), -0.3, 0.1, "undecided"),
        (same("y", within=0.2), -0.5, 0.5, "undecided"), (same("y", within=0.2), 0.3, 0.5, "does not hold"),
        (same("y", within=0.2), -0.5, -0.3, "does not hold"), (same("y", within=0.2), -inf, inf, "undecided"),
    ],
)  # fmt: skip
def test_what_an_interval_says_of_an_expectation(expectation, low, high, verdict):
    assert expectation.judge(Interval((low + high) / 2, low, high, 8)) == verdict


def test_more_and_less_are_mirror_images():
    rng = np.random.default_rng(0)
    for low, width, by in rng.normal(size=(200, 3)):
        high, by = low + abs(width), abs(by)
        mirrored = less("y", by=by).judge(Interval(0, -high, -low, 8))
        assert more("y", by=by).judge(Interval(0, low, high, 8)) == mirrored


def test_the_worst_of_several_counts():
    assert WORST_FIRST == ("broken", "does not hold", "undecided", "holds")
    for k, worst in enumerate(WORST_FIRST):
        assert overall([*WORST_FIRST[k:], "holds"]) == worst


@pytest.mark.parametrize(
    ("apart", "verdict"),
    [([1.0, 1.1, 0.9, 1.0], "holds"), ([-1.0, -1.1, -0.9, -1.0], "does not hold"), ([1.0, -1, 1, -1], "undecided")],
)
def test_the_verdict_of_a_claim(apart, verdict):
    found = run_claim(compared(apart))
    assert found.verdict == verdict
    (judged,) = found.judged
    known = stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert [judged.low, judged.high] == pytest.approx([known.low, known.high])
    assert judged.effect == pytest.approx(float(np.mean(apart)))
    assert found.values["y"] == {"treatment": apart, "baseline": [0.0] * 4}
    assert found.control["verdict"] == "does not hold"
    assert len(found.control["tries"]) == 1


def test_a_claim_of_several_expectations_is_as_bad_as_the_worst():
    def function(arm, seeds):
        on = arm == "treatment"
        return {
            "up": [on * (1 + s / 10) for s in seeds],
            "flat": [on * (-1.0) ** s for s in seeds],
            "x": torch.zeros(4),
        }

    up, flat, x = more("up"), more("flat"), more("x")
    for expects, verdict in (
        ((up, same("x", 1)), "holds"),
        ((up, flat), "undecided"),
        ((up, flat, x), "does not hold"),
    ):
        names = {e.outcome for e in expects}

        def part(arm, seeds, names=names):
            return {k: v for k, v in function(arm, seeds).items() if k in names}

        assert run_claim(declared(part, expects=expects)).verdict == verdict


def test_seeds_on_the_command_line_take_the_place_of_the_claims_own():
    seen = []

    def function(arm, seeds):
        seen.append(list(seeds))
        return {"y": [s % 1000 / 7 for s in seeds]}

    assert run_claim(declared(function), seeds=3).seeds == 3
    assert seen == [[0, 1, 2], [0, 1, 2], [1000, 1001, 1002]]
    assert run_claim(declared(function), seeds=1).verdict == "undecided"


# The control


def with_control(held):
    """A claim whose control holds at the offsets in `held`."""

    def function(arm, seeds):
        level = 5.0 if arm == "treatment" or seeds[0] in held else 0.0
        return {"y": [level + s % 500 / 100 for s in seeds]}

    return declared(function)


@pytest.mark.parametrize(
    ("held", "verdicts", "control", "verdict"),
    [
        ((), ["does not hold"], "does not hold", "holds"),
        ((2000, 3000), ["does not hold"], "does not hold", "holds"),  # repeated only where the first one holds
        ((1000,), ["holds", "does not hold", "does not hold"], "does not hold", "holds"),
        ((1000, 2000), ["holds", "holds"], "holds", "broken"),
        ((1000, 3000), ["holds", "does not hold", "holds"], "holds", "broken"),
        (CONTROLS, ["holds", "holds"], "holds", "broken"),
    ],
)
def test_a_control_counts_as_holding_if_two_of_three_do(held, verdicts, control, verdict):
    found = run_claim(with_control(held))
    assert [t["verdict"] for t in found.control["tries"]] == verdicts
    assert [t["offset"] for t in found.control["tries"]] == list(CONTROLS[: len(verdicts)])
    assert found.control["verdict"] == control
    assert found.verdict == verdict


def test_the_control_is_the_baseline_with_other_seeds_against_itself():
    calls = []

    def function(arm, seeds):
        calls.append((arm, list(seeds)))
        return {"y": [s / 7 for s in seeds]}

    found = run_claim(declared(function))
    assert calls[:3] == [
        ("treatment", [0, 1, 2, 3]),
        ("baseline", [0, 1, 2, 3]),
        ("baseline", [1000, 1001, 1002, 1003]),
    ]
    assert found.control["tries"][0]["judged"][0]["effect"] == pytest.approx(1000 / 7)


# Identities


@pytest.mark.parametrize(
    ("exact", "altered", "verdict", "control"),
    [
        (1e-7, 0.5, "holds", "does not hold"),
        (1e-3, 0.5, "does not hold", "does not hold"),
        (1e-5, 0.5, "holds", "does not hold"),
        (1e-7, 1e-6, "broken", "holds"),  # an altered copy that passes
        (-1e-3, -0.5, "does not hold", "does not hold"),
    ],
)
def test_an_identity_holds_within_its_tolerance_and_its_altered_copy_must_not(exact, altered, verdict, control):
    wrong = altered

    @identity("dpo", says="x", tolerance=1e-5, seeds=3)
    def function(seeds, *, altered):
        """What the world is."""
        return [0.0, 0.0, wrong if altered else exact]

    found = run_claim(function.__claim__)
    assert (found.verdict, found.control["verdict"]) == (verdict, control)
    assert found.judged[0].effect == abs(exact)


# What may be wrong with a claim


def test_unusable_declarations_are_refused():
    def refused(words, **options):
        with pytest.raises(ValueError, match=words):
            declared(lambda arm, seeds, *, f=1.0: {}, **options)

    refused("identity", expects=(same("a", 0.1), same("b", 0.1)))
    refused("expects nothing", expects=())
    refused("no keyword-only argument", sweep={"g": (1, 2)})
    refused("no keyword-only argument", sweep={"arm": (1, 2)})
    refused("1 values", sweep={"f": (1,)})
    refused("spread", seeds=1)
    refused("says nothing", says=" ")
    refused("in words", treatment="")
    refused("a name is", part="A b")
    with pytest.raises(ValueError, match="docstring"):
        claim("dpo", says="x", expects=more("y"), treatment="a", baseline="b")(lambda arm, seeds: {})
    with pytest.raises(ValueError, match=r"takes \(arm, seeds"):
        claim("dpo", says="x", expects=more("y"), treatment="a", baseline="b")(lambda seeds: {})
    with pytest.raises(ValueError, match="a name is"):
        claim("../dpo", says="x", expects=more("y"), treatment="a", baseline="b")
    for tolerance in (0.0, -1.0, inf):
        with pytest.raises(ValueError, match="tolerance"):
            identity("dpo", says="x", tolerance=tolerance)
    for make in (lambda: more("y", by=-1), lambda: less("y", by=inf), lambda: same("y", within=0)):
        with pytest.raises(ValueError, match="must be"):
            make()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"y": [1.0] * 3}, r"y has shape \(3,\)"),
        ({"y": 1.0}, r"y has shape \(\)"),
        ({"y": [[1.0] * 4]}, r"shape \(1, 4\)"),
        ({"y": [1.0, float("nan"), 1, 1]}, "y is not finite at seed 1"),
        ({"y": torch.tensor([1.0, 1, 1, inf])}, "y is not finite at seed 3"),
        ({"z": [1.0] * 4}, r"returned \['z'\]"),
        ({"y": [1.0] * 4, "z": [1.0] * 4}, "z"),
        ([1.0] * 4, "returned list"),
    ],
)
def test_a_claim_that_returns_something_else_is_broken(returned, words):
    import re

    found = run_claim(declared(lambda arm, seeds: returned))
    assert found.verdict == "broken"
    assert re.search(words, found.error)


def test_a_claim_that_raises_is_broken_and_says_where():
    def function(arm, seeds):
        raise ZeroDivisionError("by zero")

    found = run_claim(declared(function))
    assert found.verdict == "broken"
    assert found.error == f"ZeroDivisionError: by zero (test_claims.py:{function.__code__.co_firstlineno + 1})"
    assert (found.judged, found.values) == ((), {})


# The sweep


def test_a_sweep_runs_both_arms_at_each_value_of_one_knob():
    def function(arm, seeds, *, f=1.0, g="a"):
        level = {"a": 0.0, "b": 10.0}[g] + (f if arm == "treatment" else f / 2)
        return {"y": [level + s / 100 * (arm == "treatment") for s in seeds]}

    one = declared(function, sweep={"f": (1.0, 4.0), "g": ("a", "b")})
    assert run_claim(one).sweep == {}
    found = run_claim(one, sweep=True)
    assert set(found.sweep) == {"f", "g"}
    assert found.sweep["f"]["default"] == 1.0
    points = found.sweep["f"]["points"]
    assert [p["value"] for p in points] == [1.0, 4.0]
    assert [p["judged"][0]["effect"] for p in points] == pytest.approx([0.515, 2.015])
    assert [p["judged"][0]["effect"] for p in found.sweep["g"]["points"]] == pytest.approx([0.515, 0.515])
    assert points[0]["judged"][0] == vars(found.judged[0]) | {}


# What runs beside what


def test_a_claim_depends_on_no_state_and_leaves_none(capsys):
    def function(arm, seeds):
        print("noise on stdout")
        drawn = float(torch.rand(()) + random.random() + np.random.rand())  # noqa: NPY002
        return {"y": [drawn + s for s in seeds]}

    threads = torch.get_num_threads()
    one = declared(function)
    torch.manual_seed(7)
    random.seed(7)
    first = run_claim(one)
    after = (torch.rand(()), random.random())
    torch.manual_seed(7)
    random.seed(7)
    assert (torch.rand(()), random.random()) == after
    assert run_claim(one).values == first.values
    assert torch.get_num_threads() == threads
    assert capsys.readouterr().out == ""


FAKE = '''
"""Fakes."""
import os
from dataclasses import dataclass
from boresight.lab.claims import claim, identity, more


@dataclass
class World:
    level: float


@claim("dpo", says="More of it", expects=more("gain"), treatment="dpo", baseline="sft", smoke=True,
       sweep={"f": (0.5, 1.0)})
def one(arm, seeds, *, f: float = 1.0):
    """A world | with <b>marks</b>, *stars* and `code|bars`."""
    return {"gain": [World(f).level * (arm == "treatment") + s % 3 / 10 for s in seeds]}


@claim("dpo", part="less-so", says="Less of it", expects=more("gain"), treatment="dpo", baseline="ipo")
def two(arm, seeds):
    """Another.

    Not shown: tried at one knob."""
    return {"gain": [-1.0 * (arm == "treatment") for s in seeds]}


@identity("simpo", says="The same", tolerance=1e-6)
def three(seeds, *, altered):
    """A third."""
    return [0.1 * altered for s in seeds]
'''


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "fakes.py").write_text(FAKE)
    return tmp_path / "mine"


def test_several_processes_come_to_the_same(folder):
    claims = load_claims(folder)
    said = []
    many = run_claims(claims, jobs=2, sweep=True, progress=lambda n, note: said.append((n, note)))
    alone = run_claims(claims, jobs=1, sweep=True)
    assert [r.to_dict() | {"seconds": 0} for r in many] == [r.to_dict() | {"seconds": 0} for r in alone]
    assert sorted(said) == [(1, "dpo/less-so: does not hold"), (1, "dpo: holds"), (1, "simpo: holds")]


def test_a_process_that_dies_is_told_and_not_waited_for(folder):
    (folder / "dies.py").write_text(FAKE.replace('"dpo"', '"kto"').replace('"simpo"', '"ipo"').replace(
        "return [0.1 * altered for s in seeds]", "os._exit(3)"
    ))  # fmt: skip
    with pytest.raises(RunError, match="died"):
        run_claims(load_claims(folder), jobs=2)


def test_there_are_no_more_processes_than_claims(folder, monkeypatch):
    monkeypatch.setattr(claimpool, "_spread", lambda *_: pytest.fail("one claim needs no process"))
    assert run_claims(load_claims(folder)[:1], jobs=4)[0].verdict == "holds"


# Finding claims


def test_claims_of_a_folder_are_found_by_path_in_order(folder):
    found = load_claims(folder)
    assert [c.key for c in found] == ["dpo", "dpo/less-so", "simpo"]
    assert [c.smoke for c in found] == [True, False, False]
    assert found[0].sweep == {"f": (0.5, 1.0)}
    assert found[1].doc == "Another.\n\nNot shown: tried at one knob."
    (folder / "again.py").write_text("from boresight.lab import claims\n" + FAKE)
    with pytest.raises(InputError, match="declared twice"):
        load_claims(folder)
    (folder / "again.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"again.py: ZeroDivisionError"):
        load_claims(folder)
    broken: list[InputError] = []
    assert [c.key for c in load_claims(folder, broken=broken)] == ["dpo", "dpo/less-so", "simpo"]
    assert len(broken) == 1


def test_folders_without_claims_are_named(tmp_path):
    with pytest.raises(InputError, match="no claims in"):
        load_claims(tmp_path / "absent")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="no claims in"):
        load_claims(tmp_path)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([], ["dpo", "dpo/less-so", "simpo"]),
        (["dpo"], ["dpo", "dpo/less-so"]),
        (["dpo/less-so"], ["dpo/less-so"]),
        (["simpo", "dpo/less-so"], ["dpo/less-so", "simpo"]),
        (["LESS"], ["dpo/less-so"]),
        (["of", "it"], ["dpo", "dpo/less-so"]),
        (["sft"], ["dpo"]),
        (["reference-free"], ["simpo"]),  # the paper's title
    ],
)
def test_words_select(folder, words, keys):
    assert [c.key for c in select(load_claims(folder), words)] == keys


def test_unknown_words_name_the_nearest_claim(folder):
    claims = load_claims(folder)
    for words, mend in ((["simop"], "did you mean simpo"), (["dpo/lesso"], "did you mean dpo/less-so")):
        with pytest.raises(InputError, match=mend) as caught:
            select(claims, words)
        assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="no claim 'kto' yet"):
        select(claims, ["kto"])
    with pytest.raises(InputError, match="marked smoke"):
        select(claims, ["simpo"], smoke=True)
    assert [c.key for c in select(claims, [], smoke=True)] == ["dpo"]
