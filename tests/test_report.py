"""Reports: what is read, what is drawn, what is said, and what a damaged run gets."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from boresight.errors import InputError
from boresight.report import tables
from boresight.report.page import Budget, report_page
from boresight.report.runs import find_runs, read_run
from boresight.report.series import Group, curve, groups
from boresight.report.write import LARGEST, report
from report_runs import LOOKS, check_page, facts, make_run


def page_of(*folders: Path, **more):
    return check_page(report_page([read_run(f) for f in folders], **more))


# One run


def test_one_run_has_every_part_and_says_what_is_missing(tmp_path):
    text = page_of(make_run(tmp_path / "run")).text
    for words in (
        "finished: 30 of 30 steps in 14 s",
        "Rafailov et al. 2023, app. B",  # where a setting comes from
        "ffa0993e",  # the data's fingerprint
        "torch 2.13.0",
        "training rows (pairs): 38, made of 40 examples",
        "pairs whose two responses are the same tokens: 2 (first: prefs.jsonl:7)",
        "The step-zero proof was not recorded.",
        "No alarm was raised.",
        "The margin, split",
        "Name a bird.",
        "beta: 0.1",  # the recipe
    ):
        assert words in text, words


def test_bare_run_says_in_words_what_is_not_there(tmp_path):
    about = {"state": "running", "method": "their.own.method"}
    text = page_of(make_run(tmp_path / "run", about, looks=[], texts={})).text
    for words in (
        "No metrics were written yet.",
        "No samples were taken",
        "How the data was read was not recorded.",
        "Not recorded.",
        "running, at step 0",
    ):
        assert words in text, words


def test_before_and_after_have_their_differences_marked(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    assert page.marked == {"del": ["cat"], "ins": ["owl"]}


def test_local_folders_and_keys_stay_at_home(tmp_path):
    about = facts()
    about["recipe"] |= {"api_key": "abcdefgh12345", "endpoint": "https://me:hunter2222@host/x"}
    about["settings"].append({"name": "data", "value": "/home/someone/prefs.jsonl", "source": "given"})
    text = report_page([read_run(make_run(tmp_path / "run", about))])
    for secret in ("/home/someone", "abcdefgh12345", "hunter2222", str(tmp_path)):
        assert secret not in text, secret
    assert "prefs.jsonl" in text


def test_proof_lines_are_shown_and_one_that_was_switched_off_is_told(tmp_path):
    line = {
        "name": "policy equals reference",
        "residual": 3e-8,
        "tolerance": 1e-5,
        "verdict": "holds",
        "words": "all 8",
    }
    bad = line | {"name": "one EOS", "verdict": "fails", "words": "two in row 3", "residual": 2.345e-7}
    idle = line | {"name": "packed", "residual": None, "tolerance": None, "verdict": "not applicable"}
    text = report_page([read_run(make_run(tmp_path / "a", facts(proof=[line, bad, idle])))])
    page = check_page(text)
    assert "3e-08" in page.text
    assert "2e-07" in page.text  # of a residual the order of magnitude says all
    assert "2.345" not in page.text
    assert "two in row 3" in page.text
    assert '<span class="chip good">holds</span>' in text
    assert '<span class="chip bad">fails</span>' in text
    assert "not recorded" not in page.text
    assert "Of no use to this run: packed." in page.text
    assert "No step-zero proof: off." in page_of(make_run(tmp_path / "b", facts(proof="off"))).text


def test_alarms_of_a_run_under_way_come_from_its_metrics(tmp_path):
    looks = [{"step": s, "loss": 0.7, "grad_norm": 0.0} for s in (1, 2)]
    under_way = make_run(tmp_path / "a", facts(state="running", alarms=[]), looks)
    assert "The gradient is exactly 0 although the loss is not" in page_of(under_way).text
    healthy = [look | {"grad_norm": 1.0} for look in looks]
    assert "No alarm was raised." in page_of(make_run(tmp_path / "b", facts(state="running"), healthy)).text


def test_alarms_that_were_written_down_are_told_once_with_their_mend(tmp_path):
    told = "step 10, warning, zero gradient: Nothing moved.\n  mend: raise lr"
    looks = [{"step": 10, "loss": 0.7, "grad_norm": 0.0}]
    text = page_of(make_run(tmp_path / "a", facts(alarms=[told, "free words"]), looks)).text
    assert text.count("zero gradient") == 1
    assert "Mend: raise lr" in text
    assert "free words" in text


def test_method_of_a_run_folder_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = page_of(make_run(tmp_path / "run", facts(method="evil_module.objective"))).text
    assert "evil_module.objective" in text


@pytest.mark.parametrize(
    ("state", "age", "offending", "words", "look"),
    [
        ("running", 0, None, "running, at step 30 of 30", ""),
        ("running", 9000, None, "If no process is at work on it, it broke off", "bad"),
        ("running", 0, 12, "stopped at step 12 of 30: a number was not finite", "bad"),
        ("finished", 9000, None, "finished: 30 of 30 steps", "good"),
        ("proof only", 9000, None, "proof only, at step 30 of 30", ""),
        ("stopped by the proof", 0, None, "stopped by the proof, at step 30 of 30", "bad"),
    ],
)
def test_state_in_words(tmp_path, state, age, offending, words, look):
    run = make_run(tmp_path / "run", facts(state=state))
    if offending is not None:
        (run / f"offending-rows-step-{offending}.jsonl").write_text("")
    for path in run.iterdir():
        os.utime(path, (time.time() - age,) * 2)
    text = report_page([read_run(run)])
    assert words in check_page(text).text
    assert f'<span class="chip {look}">run</span>' in text


def test_last_line_that_is_still_being_written_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", facts(state="running"))
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 40, "lo')
    record = read_run(run)
    assert record.step == 30
    page_of(run)


def test_page_depends_on_nothing_but_the_run_and_the_hour(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(time, "time", lambda: 1.8e9)
    assert report_page([read_run(run)]) == report_page([read_run(run)])


def test_style_is_the_one_that_the_policy_allows(tmp_path):
    text = report_page([read_run(make_run(tmp_path / "run"))])
    style = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in text.replace("&#39;", "'").replace("&#43;", "+")


def test_templates_have_no_way_around_escaping():
    folder = Path(tables.__file__).parent
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".py"):
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"\|\s*safe\b|autoescape\s+false|autoescape=False|Markup\(", source), path


# Several runs


def seeds(tmp_path: Path, losses: list[float], method: str = "dpo", **more) -> list[Path]:
    runs = []
    for seed, loss in enumerate(losses):
        looks = [LOOKS[0], LOOKS[2] | {"loss": loss, "eval_accuracy": loss}]
        about = facts(method=method, seed=seed, **more)
        about["recipe"] |= {"method": method, "seed": seed, "out": f"{method}-{seed}"}
        runs.append(make_run(tmp_path / f"{method}-{seed}", about, looks))
    return runs


def test_seeds_of_one_method_are_one_group_with_a_t_interval(tmp_path):
    runs = seeds(tmp_path, [0.4, 0.5, 0.7])
    found = groups([read_run(r) for r in runs])
    assert [(g.label, g.seeds) for g in found] == [("dpo", ["0", "1", "2"])]
    # t interval of three values by hand: mean 1.6/3, sd 0.1527525, t(2, .975) = 4.302653
    (row,) = [r for s in tables.figures(found) for r in s.rows if r.name == "accuracy"]
    half = 4.302653 * 0.1527525 / math.sqrt(3)
    assert row.cells[0].value == "0.5333"
    assert row.cells[0].interval == f"[{1.6 / 3 - half:.3g}, {1.6 / 3 + half:.3g}] 3 seeds"


def test_band_reaches_from_the_lowest_to_the_highest_seed(tmp_path):
    (group,) = groups([read_run(r) for r in seeds(tmp_path, [0.4, 0.5, 0.7])])
    found = curve(group, "loss", 100)
    assert found is not None
    assert found.points[-1] == (30.0, pytest.approx(1.6 / 3))
    assert found.band[-1] == (30.0, 0.4, 0.7)
    assert "means over seeds" in page_of(*(r.folder for r in group.records)).text


def test_runs_that_differ_in_more_than_the_seed_are_apart(tmp_path):
    one, two = seeds(tmp_path, [0.4, 0.5])
    about = facts(seed=1)
    about["recipe"] |= {"seed": 1, "beta": 0.5}
    (two / "run.json").write_text(json.dumps(about))
    labels = [g.label for g in groups([read_run(one), read_run(two)])]
    assert labels == ["dpo beta=0.1", "dpo beta=0.5"]


def test_same_seed_twice_is_not_taken_for_two_seeds(tmp_path):
    records = [read_run(make_run(tmp_path / name)) for name in ("a", "b")]
    assert [len(g.records) for g in groups(records)] == [1, 1]
    assert len({g.label for g in groups(records)}) == 2


def test_unfair_comparisons_are_named(tmp_path):
    (a,), (b,) = seeds(tmp_path, [0.4]), seeds(tmp_path, [0.4], "ipo", data={"fingerprint": "other"})
    text = page_of(a, b).text
    assert "trained on different data" in text
    assert "One seed each" in text
    (c,) = seeds(tmp_path, [0.4], "simpo")
    text = page_of(a, c).text
    assert "different data" not in text
    assert "simpo" in text


def evaluation(low: float, value: float, high: float) -> dict:
    measure = {"value": value, "low": low, "high": high, "n": 400, "meaning": "share of pairs"}
    return {"model": "m", "data": "test.jsonl", "reference": None, "measures": {"accuracy": measure}, "words": ["So."]}


def test_evaluation_of_one_run_brings_its_own_interval(tmp_path):
    a = make_run(tmp_path / "a", evaluation=evaluation(0.6, 0.7, 0.75))
    about = facts(method="ipo")
    about["recipe"] |= {"method": "ipo"}
    b = make_run(tmp_path / "b", about, evaluation=evaluation(0.5, 0.55, 0.6))
    found = groups([read_run(a), read_run(b)])
    (row,) = [r for s in tables.figures(found) for r in s.rows if r.name == "accuracy"]
    assert [c.value for c in row.cells] == ["0.7", "0.55"]
    assert [c.interval for c in row.cells] == ["[0.6, 0.75] n=400", "[0.5, 0.6] n=400"]
    left, right = row.cells[1], row.cells[0]
    assert left.low < left.at < left.high <= right.low < right.at < right.high
    assert "So." in page_of(a, b).text


def test_interval_without_ends_is_no_interval(tmp_path):
    run = make_run(tmp_path / "a", evaluation=evaluation(-math.inf, 0.7, math.inf))
    (row,) = [r for s in tables.figures(groups([read_run(run)])) for r in s.rows if r.name == "accuracy"]
    assert (row.cells[0].value, row.cells[0].interval, row.cells[0].low) == ("0.7", "", None)


# Writing


def test_report_is_written_whole_and_replaces_only_reports(tmp_path):
    run = make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "deep" / "b", facts(method="ipo"))
    done = report([tmp_path / "runs"], tmp_path / "new" / "page.html")
    assert done.runs == [run, tmp_path / "runs" / "deep" / "b"]
    assert done.size == done.path.stat().st_size
    assert [p.name for p in done.path.parent.iterdir()] == ["page.html"]
    assert report([run, run], done.path).runs == [run]
    precious = tmp_path / "prefs.jsonl"
    precious.write_text("{}")
    with pytest.raises(InputError, match="not a report"):
        report([run], precious)
    assert precious.read_text() == "{}"


def test_many_long_runs_fit_below_the_limit(tmp_path):
    draw = random.Random(0)
    looks = [{"step": s, "loss": draw.random(), "chosen_gain": draw.random(), "rejected_gain": 0.0} for s in range(400)]
    texts = {
        f"sample/{k}": [(s, "p\n\n---\n\n" + "".join(draw.choices("一二三四五 ", k=3000))) for s in (0, 9)]
        for k in range(8)
    }
    for k in range(60):
        about = facts(seed=0)
        about["recipe"] |= {"beta": k}
        make_run(tmp_path / "runs" / f"r{k}", about, looks, texts)
    done = report([tmp_path / "runs"], tmp_path / "page.html")
    assert done.size < LARGEST
    assert done.shortened
    check_page(done.path.read_text(encoding="utf-8"))
    assert not report([tmp_path / "runs" / "r0"], tmp_path / "one.html").shortened


def test_budget_bounds_what_is_shown(tmp_path):
    texts = {f"sample/{k}": [(0, "p\n\n---\n\n" + "x" * 200_000)] for k in range(20)}
    page = page_of(make_run(tmp_path / "run", texts=texts), budget=Budget(samples=3, characters=100))
    assert page.text.count("x" * 100) == 3
    assert "and 199,900 more characters" in page.text
    assert "17 more are in samples.jsonl" in page.text


DAMAGES = {
    "no run.json": lambda run: (run / "run.json").unlink(),
    "run.json cut off": lambda run: (run / "run.json").write_text('{"state": "fin'),
    "run.json a list": lambda run: (run / "run.json").write_text("[]"),
    "run.json binary": lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"),
    "run.json nested": lambda run: (run / "run.json").write_text("[" * 100_000),
    "no method": lambda run: (run / "run.json").write_text('{"state": "finished"}'),
    "settings no list": lambda run: (run / "run.json").write_text(json.dumps(facts(settings={"a": 1}))),
    "steps no number": lambda run: (run / "run.json").write_text(json.dumps(facts(steps="many"))),
    "metrics line broken": lambda run: (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n'),
    "metrics line a list": lambda run: (run / "metrics.jsonl").write_text("[1]\n"),
    "metrics without step": lambda run: (run / "metrics.jsonl").write_text('{"loss": 1}\n'),
    "metrics value a word": lambda run: (run / "metrics.jsonl").write_text('{"step": 1, "loss": "low"}\n'),
    "samples line broken": lambda run: (run / "samples.jsonl").write_text('{"step": 1}\n'),
    "evaluation broken": lambda run: (run / "evaluation.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_runs_are_input_errors_that_name_the_file(tmp_path, damage):
    run = make_run(tmp_path / "run")
    DAMAGES[damage](run)
    with pytest.raises(InputError) as raised:
        report([run], tmp_path / "page.html")
    assert str(run) in raised.value.what
    assert raised.value.mend
    assert not (tmp_path / "page.html").exists()


def test_damaged_line_is_named_by_its_number(tmp_path):
    run = make_run(tmp_path / "run")
    DAMAGES["metrics line broken"](run)
    with pytest.raises(InputError, match=r"metrics\.jsonl:2 is not what a run writes"):
        read_run(run)


@pytest.mark.parametrize("value", [None, [], "x", {"a": [1]}, 1e999])
@pytest.mark.parametrize("key", ["measures", "words", "data"])
def test_odd_evaluations_make_a_page_all_the_same(tmp_path, key, value):
    page_of(make_run(tmp_path / "run", evaluation=evaluation(0.1, 0.2, 0.3) | {key: value}))


@pytest.mark.parametrize("key", ["data", "rows", "template", "recipe", "versions"])
def test_facts_of_another_version_make_a_page_all_the_same(tmp_path, key):
    text = page_of(make_run(tmp_path / "run", facts(**{key: {"odd": ["x"], "count": 4, "end_of_turn": 3}}))).text
    assert "dpo" in text


@pytest.mark.parametrize(
    ("given", "out", "words"),
    [
        (["nowhere"], "page.html", "not a run"),
        (["empty"], "page.html", "not a run"),
        ([], "page.html", "at least one run"),
        (["run"], "empty", "is a folder"),
        (["run"], "run/run.json/page.html", "cannot be"),
    ],
)
def test_unusable_arguments(tmp_path, monkeypatch, given, out, words):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        report(given, out)


def test_runs_are_found_below_a_folder_but_not_through_links(tmp_path):
    make_run(tmp_path / "outside")
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "x" / "b")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    assert list(find_runs(tmp_path / "runs")) == ["a", "x/b"]
    assert list(find_runs(tmp_path / "outside")) == ["outside"]


def test_command_line_writes_and_says_where(tmp_path, monkeypatch, capsys):
    from boresight.cli import main

    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    assert main(["report", "run"]) == 0
    assert re.fullmatch(r"report\.html: 1 run, \d+ kB\n", capsys.readouterr().out)
    check_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert main(["report", "run", "--json", "-o", "two.html"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == "two.html"
    assert said["shortened"] is False
    assert main(["report", "nothing"]) == 2


def test_record_of_a_real_run_fills_every_part(tmp_path, monkeypatch):
    from boresight.lab.tiny import make_model
    from boresight.training.train import train

    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    make_model(["one two three four five"] * 8, tmp_path / "base", vocab=300, hidden=32, layers=2, heads=2, seed=0)
    rows = [{"prompt": f"say {i}", "chosen": f"one two {i}", "rejected": f"three {i}"} for i in range(12)]
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = {"max_steps": 4, "batch": 4, "log_every": 1, "samples": 2, "sample_tokens": 8, "trackers": "none"}
    words = {"method": "dpo", "model": tmp_path / "base", "data": tmp_path / "prefs.jsonl", "out": tmp_path / "run"}
    run = train(**words, eval_data=tmp_path / "prefs.jsonl", quiet=True, **options)
    text = page_of(run.folder).text
    for part in ("finished: 4 of 4 steps", "The margin, split", "Held out, at the last look", "12 examples", "say 0"):
        assert part in text, part
    record = read_run(run.folder)
    assert isinstance(groups([record])[0], Group)
    assert replace(record, metrics=[]).step == 0
