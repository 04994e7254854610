"""What `boresight claims` prints, records and draws, and what the project's own records must be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from boresight.catalogue import rows, show, verdicts
from boresight.catalogue.verdicts import claims_folder, recorded
from boresight.cli import main
from boresight.errors import InputError
from boresight.lab import claimfiles, claimwrite
from boresight.lab.claimfiles import load_claims
from boresight.lab.claimpage import page, picture
from boresight.lab.claimplot import draw
from test_claims import FAKE

ROOT = Path(__file__).parents[1]
OURS = ROOT / "claims"
UNREADABLE: list[InputError] = []
DECLARED = {c.key: c for c in load_claims(OURS, broken=UNREADABLE)}
RECORDS = {r["id"] + (f"/{r['part']}" if r["part"] else ""): r for r in recorded(OURS)}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "fakes.py").write_text(FAKE)
    return tmp_path / "mine"


def claims(folder: Path, *words: str) -> int:
    return main(["claims", *words, "--from", str(folder), "--jobs", "1"])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# The verb


def test_exit_codes(folder, capsys):
    assert claims(folder) == 0, "does not hold is a result"
    assert claims(folder, "simop") == 2
    assert "did you mean simpo?" in capsys.readouterr().err
    text = FAKE.replace("return [0.1 * altered for s in seeds]", "return [0.0 for s in seeds]")
    (folder / "fakes.py").write_text(text)
    assert claims(folder, "dpo") == 0
    assert claims(folder, "simpo") == 1
    assert "simpo is broken: its control holds" in " ".join(capsys.readouterr().out.split())
    (folder / "fakes.py").write_text(FAKE.replace("return [0.1 * altered for s in seeds]", "return 1 / 0"))
    assert claims(folder, "simpo") == 1
    assert "simpo raised ZeroDivisionError: division by zero (fakes.py:" in " ".join(capsys.readouterr().out.split())


def test_a_file_that_cannot_be_read_stops_only_those_who_ask_for_all(folder, capsys):
    (folder / "wrong.py").write_text("import nothing_of_that_name\n")
    assert claims(folder, "dpo") == 0
    assert "left out:" in capsys.readouterr().err
    assert claims(folder) == 2
    assert "wrong.py: ModuleNotFoundError" in capsys.readouterr().err.replace("\n", "")


def test_json(folder, capsys):
    assert claims(folder, "--json", "--seeds", "3", "--sweep") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] is None
    one, two, three = told["claims"]
    keys = {
        "id", "part", "says", "treatment", "baseline", "doc", "verdict", "judged", "control", "seeds", "seconds",
        "values", "sweep", "error",
    }  # fmt: skip
    assert set(one) == set(two) == set(three) == keys
    assert [c["verdict"] for c in told["claims"]] == ["holds", "does not hold", "holds"]
    assert one["judged"] == [
        {"outcome": "gain", "expects": "more", "effect": 1.0, "low": 1.0, "high": 1.0, "verdict": "holds"}
    ]
    assert one["values"] == {"gain": {"treatment": [1.0, 1.1, 1.2], "baseline": [0.0, 0.1, 0.2]}}
    assert (one["seeds"], one["error"], two["part"]) == (3, "", "less-so")
    assert [p["value"] for p in one["sweep"]["f"]["points"]] == [0.5, 1.0]
    assert three["values"]["residual"] == {"treatment": [0.0] * 3, "baseline": [0.1] * 3}
    assert claims(folder, "--json", "dpo", "--seeds", "1") == 0
    assert json.loads(capsys.readouterr().out)["claims"][0]["judged"][0]["low"] is None


@pytest.mark.parametrize("columns", [80, 160])
def test_the_table_says_all(folder, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert claims(folder) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    flat = " ".join(out.split())
    for said in ("More of it", "dpo/less-so", "+1 [+1, +1]", "-1 [-1, -1]", "does not hold", "sft", "ipo"):
        assert said in flat
    assert "3 claims: 2 holds, 1 does not hold" in flat


def test_smoke_is_a_subset(folder, capsys):
    assert claims(folder, "--smoke", "--json") == 0
    assert [(c["id"], c["part"]) for c in json.loads(capsys.readouterr().out)["claims"]] == [("dpo", "")]


# Recording


def test_nothing_is_written_without_being_asked_for(folder):
    before = snapshot(folder.parent)
    assert claims(folder, "--sweep") == 0
    assert snapshot(folder.parent) == before


def test_what_is_recorded_is_read_back_and_added_to(folder):
    assert claims(folder, "dpo/less-so", "--write") == 0
    assert [r["part"] for r in recorded(folder)] == ["less-so"]
    assert claims(folder, "--write") == 0
    found = recorded(folder)
    assert [(r["id"], r["part"], r["verdict"]) for r in found] == [
        ("dpo", "", "holds"),
        ("dpo", "less-so", "does not hold"),
        ("simpo", "", "holds"),
    ]
    assert found[0]["sweep"]["f"]["default"] == 1.0
    assert isinstance(found[0]["seconds"], int)
    shown = (folder / "claims.md").read_text("utf-8")
    assert page(json.loads(json.dumps(found)), "images") == shown, "the page is made of the records alone"
    assert {p.name for p in (folder / "images").iterdir()} == {"dpo.svg", "dpo.less-so.svg", "simpo.svg"}
    for r in found:
        assert draw(r) == (folder / "images" / picture(r)).read_bytes()
    assert not list(folder.rglob(".*")), "nothing half-written is left"


def test_a_sweep_stands_as_long_as_the_claim_comes_to_the_same(folder):
    assert claims(folder, "dpo", "--write") == 0
    first = recorded(folder)
    assert first[0]["sweep"]
    assert claims(folder, "dpo", "--write", "--no-sweep") == 0
    assert [{**r, "seconds": 0} for r in recorded(folder)] == [{**r, "seconds": 0} for r in first]
    changed = FAKE.replace("World(f).level * (arm", "World(f).level * 2 * (arm")
    assert changed != FAKE
    (folder / "fakes.py").write_text(changed)
    assert claims(folder, "dpo", "--write", "--no-sweep") == 0
    assert not recorded(folder)[0]["sweep"], "it was the sweep of another experiment"


def test_what_is_done_is_recorded_when_a_run_is_broken_off(folder):
    text = FAKE.replace("return [0.1 * altered for s in seeds]", "raise KeyboardInterrupt")
    (folder / "fakes.py").write_text(text)
    assert claims(folder, "--write") == 130
    assert [r["part"] for r in recorded(folder)] == ["", "less-so"]
    assert page(recorded(folder), "images") == (folder / "claims.md").read_text("utf-8")


def test_numbers_are_recorded_at_six_digits(folder):
    text = FAKE.replace("s % 3 / 10 for", "s % 3 / 3 for")
    (folder / "fakes.py").write_text(text)
    assert claims(folder, "dpo", "--write") == 0
    assert recorded(folder)[0]["values"]["gain"]["baseline"][:3] == [0.0, 0.333333, 0.666667]


def test_records_follow_the_claims(folder):
    assert claims(folder, "--write") == 0
    text = FAKE.replace("Less of it", "Less of that").replace("tried at one knob", "tried at two knobs")
    (folder / "fakes.py").write_text(text[: text.index("@identity")])
    assert claims(folder, "dpo", "--write") == 0
    assert [r["id"] for r in recorded(folder)] == ["dpo", "dpo"], "what is gone is dropped"
    assert not (folder / "images" / "simpo.svg").exists()
    (folder / "fakes.py").write_text(text.replace("More of it", "More of that"))
    assert claims(folder, "dpo/less-so", "--write") == 0
    assert [r["says"] for r in recorded(folder)] == ["More of that", "Less of that"], "words are brought up to date"
    assert "two knobs" in recorded(folder)[1]["doc"]
    (folder / "more.py").write_text("1 / 0\n")
    (folder / "fakes.py").rename(folder / "fakes.txt")
    (folder / "other.py").write_text(FAKE[FAKE.index("import os") :].replace('"dpo"', '"kto"'))
    assert claims(folder, "kto", "--write") == 0
    assert [r["id"] for r in recorded(folder)] == ["dpo", "dpo", "kto", "kto"], "unless a file cannot be read"


def test_few_seeds_are_not_recorded_and_packaged_claims_not_written_to(folder, monkeypatch, capsys):
    before = snapshot(folder)
    assert claims(folder, "--write", "--seeds", "3") == 2
    assert "its own number of seeds" in capsys.readouterr().err
    packaged = folder.rename(folder.with_name("_claims"))
    for module in (claimfiles, claimwrite):
        monkeypatch.setattr(module, "claims_folder", lambda: packaged)
    assert main(["claims", "--from", str(packaged), "--write"]) == 2
    assert "are not written to" in capsys.readouterr().err
    assert snapshot(packaged) == before


def test_records_that_are_none_are_named_by_their_line(folder):
    good = json.dumps({"id": "dpo", "verdict": "holds"})
    for bad in ("{", "[]", "{}", '{"id": "dpo", "verdict": "good"}', '{"id": 1, "verdict": "holds"}'):
        (folder / "results.jsonl").write_text(f"{good}\n{bad}\n")
        verdicts._read.cache_clear()
        with pytest.raises(InputError, match=r"results.jsonl:2: not the result"):
            recorded(folder)
    assert recorded(folder / "absent") == []


def test_the_catalogue_shows_the_worst_verdict_of_a_paper(folder, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "claims_folder", lambda: folder)
    assert show("dpo").verdict == "not tested yet"
    assert claims(folder, "--write") == 0
    capsys.readouterr()
    assert show("dpo").verdict == "does not hold"
    assert show("simpo").to_dict()["verdict"] == "holds"
    assert show("kto").verdict == "not tested yet"
    assert main(["methods", "show", "dpo"]) == 0
    assert re.search(r"verdict +does not hold\ntest it +boresight claims dpo", capsys.readouterr().out)


# The page and the pictures


HOSTILE = 'a | b <script>x</script> *c* _d_ [e](f) `g|h` $i$ # j \\ & "k" ~l~ &lt;'


def words_of(markdown: str) -> str:
    """What a reader sees of it, without its form."""
    said = []
    for token in MarkdownIt().enable("table").parse(markdown):
        assert token.type not in ("html_block", "fence", "code_block")
        for child in token.children or ():
            assert child.type not in ("html_inline", "link_open") or child.attrGet("href").startswith(("#", "https://"))
            said.append(" " if child.type == "softbreak" else child.content if child.type != "image" else "")
        said.append(" ")
    return " ".join("".join(said).split())


def test_text_on_the_page_is_text(folder):
    text = FAKE.replace('says="More of it"', f"says={HOSTILE!r}").replace("A third.", "- one\n    # two\n    1. three")
    text = text.replace('treatment="dpo", baseline="sft"', f'treatment={HOSTILE!r}, baseline="[x](javascript:1)"')
    (folder / "fakes.py").write_text(text)
    assert claims(folder, "--write") == 0
    shown = words_of((folder / "claims.md").read_text("utf-8"))
    plain = HOSTILE.replace("`", "")
    assert shown.count(plain) == 3, "in the summary, in the section, and as the treatment"
    assert "Baseline: [x](javascript:1)." in shown
    assert "A world | with <b>marks</b>, *stars* and code|bars." in shown
    assert "- one # two 1. three" in shown


def test_a_picture_is_svg_without_a_date_and_the_same_each_time(folder):
    assert claims(folder, "--write") == 0
    for record in recorded(folder):
        drawn = draw(record)
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
        assert b"<dc:date>" not in drawn
        assert drawn == draw(json.loads(json.dumps(record)))
        assert draw(record, "png").startswith(b"\x89PNG")


# The project's own claims


def test_every_claim_is_recorded_and_every_record_is_of_a_claim():
    assert UNREADABLE == []
    assert set(RECORDS) == set(DECLARED), "boresight claims ID --write records a claim"


@pytest.mark.parametrize("key", sorted(DECLARED))
def test_a_claim_of_the_project(key):
    one = DECLARED[key]
    assert one.id in rows(), "a claim is of a paper in the catalogue"
    assert Path(one.function.__code__.co_filename).stem == one.id.replace("-", "_")
    assert one.seeds >= 8


@pytest.mark.parametrize("key", sorted(RECORDS))
def test_a_record_of_the_project(key):
    record, one = RECORDS[key], DECLARED[key]
    words = {"says": one.says, "treatment": one.treatment, "baseline": one.baseline, "doc": one.doc}
    assert {k: record[k] for k in words} == words, "boresight claims ID --write brings the words up to date"
    assert [(j["outcome"], j["expects"]) for j in record["judged"]] == [(e.outcome, e.words) for e in one.expects]
    assert record["seeds"] >= one.seeds
    # A sweep may wait (--no-sweep); half of one is none.
    swept = {k: [p["value"] for p in s["points"]] for k, s in record["sweep"].items()}
    assert swept in ({}, {k: list(v) for k, v in one.sweep.items()})
    assert record["verdict"] != "broken"
    assert record["control"]["verdict"] != "holds"
    assert (ROOT / "docs" / "images" / "claims" / picture(record)).is_file()


@pytest.mark.parametrize("key", sorted(k for k, r in RECORDS.items() if r["verdict"] != "holds"))
def test_what_does_not_hold_says_what_was_tried(key):
    paragraphs = DECLARED[key].doc.split("\n\n")
    assert any(p.startswith("Not shown:") and len(p.split()) > 10 for p in paragraphs)


def test_the_page_in_the_docs_is_that_of_the_records():
    assert (ROOT / "docs" / "claims.md").read_text("utf-8") == page(list(RECORDS.values()), "images/claims")
    there = {p.name for p in (ROOT / "docs" / "images" / "claims").iterdir()}
    assert there == {picture(r) for r in RECORDS.values()}


def test_the_claims_are_those_of_the_clone():
    assert claims_folder() == OURS


@pytest.mark.slow
def test_a_wheel_holds_claims_recipes_and_records(tmp_path):
    """And an installed wheel finds its claims."""
    pytest.importorskip("setuptools", "77")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    source = tmp_path / "source"
    for name in ("src", "claims"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    package = tmp_path / "site" / "boresight"
    assert {p.name for p in (package / "_claims").iterdir()} == {
        *(p.name for p in OURS.glob("*.py")),
        "results.jsonl",
    }
    assert {p.name for p in (package / "recipes").iterdir()} == {
        p.name for p in (ROOT / "src" / "boresight" / "recipes").iterdir()
    }
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from boresight.lab.claimfiles import load_claims\n"
        "from boresight.catalogue.verdicts import recorded\n"
        "print(len(load_claims()), len(recorded()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [str(len(DECLARED)), str(len(RECORDS))]
