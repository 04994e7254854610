"""Training in stages: each is an ordinary run that starts from the one before it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import boresight as bs
from boresight.errors import InputError
from boresight.training.stages import recipes, split
from everything import write_everything
from words import WORDS

SMALL = {"batch": 8, "samples": 0, "trackers": "none", "log_every": 1, "quiet": True, "lr": 1e-3, "method": "dpo"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    path = tmp_path_factory.mktemp("base") / "model"
    make_model([" ".join(WORDS)] * 8, path, vocab=300, hidden=32, layers=2, heads=2, seed=0)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_everything(tmp_path_factory.mktemp("data") / "all.jsonl", 32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "model").glob("*model.safetensors")))


def same(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_stages_by_number_are_runs_on_consecutive_parts(base, data, tmp_path):
    run = bs.train({"stages": 2}, **SMALL, model=base, data=data, out=tmp_path / "s")
    assert run.folder == tmp_path / "s" / "stage-2"
    half = data.read_text().splitlines(True)
    for k, part in enumerate((half[:16], half[16:]), 1):
        (tmp_path / f"part-{k}.jsonl").write_text("".join(part))
    bs.train(**SMALL, model=base, data=tmp_path / "part-1.jsonl", out=tmp_path / "one")
    first = tmp_path / "one" / "model"
    bs.train(**SMALL, model=first, data=tmp_path / "part-2.jsonl", reference="start", out=tmp_path / "two")
    assert same(tmp_path / "s" / "stage-1", tmp_path / "one")
    assert same(tmp_path / "s" / "stage-2", tmp_path / "two")
    start = json.loads((tmp_path / "s" / "stage-2" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["loss"] == pytest.approx(0.693147, abs=1e-4)  # its reference is the model that it starts from


def test_what_is_finished_is_kept_and_what_is_not_is_done(base, data, tmp_path, monkeypatch):
    words = {**SMALL, "model": base, "data": data, "out": tmp_path / "s", "stages": 2}
    bs.train(**words)
    whole = weights(tmp_path / "s" / "stage-2")
    shutil.rmtree(tmp_path / "s" / "stage-2")
    kept = (tmp_path / "s" / "stage-1" / "run.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="holds stages already"):
        bs.train(**words)
    bs.train(**words, resume=True)
    assert (tmp_path / "s" / "stage-1" / "run.json").stat().st_mtime_ns == kept
    assert all(torch.equal(whole[k], v) for k, v in weights(tmp_path / "s" / "stage-2").items())
    with pytest.raises(InputError, match=r"all stages of .* are finished"):
        bs.train(**words, resume=True)


def test_stages_with_words_of_their_own_and_adapters(base, data, tmp_path):
    own = [{"method": "sft", "max_steps": 2}, {"max_steps": 2, "reference": "@1", "beta": 0.3}]
    words = {**SMALL, "adapter": "lora", "lora_rank": 2, "model": base, "data": data, "out": tmp_path / "s"}
    bs.train({"stages": own}, **words)
    facts = [json.loads((tmp_path / "s" / f"stage-{k}" / "run.json").read_text()) for k in (1, 2)]
    assert [f["method"] for f in facts] == ["sft", "dpo"]
    assert facts[1]["recipe"]["beta"] == 0.3
    assert facts[1]["recipe"]["model"] == str(tmp_path / "s" / "stage-1" / "model")
    assert facts[1]["recipe"]["reference"] == f"adapter:{tmp_path / 's' / 'stage-1' / 'model'}"
    line = next(line for line in facts[1]["proof"] if line["name"] == "loss at zero margin")
    assert line["verdict"] == "holds"


def test_where_stages_point(tmp_path):
    words = {**SMALL, "model": "M", "data": "D", "out": tmp_path, "quiet": None}
    del words["quiet"]
    third = {"method": "mrpo", "references": "@0, @1,other", "reference": "@2"}
    made = recipes(words, [{}, {"method": "sft"}, third])
    assert [m["model"] for m in made] == ["M", str(tmp_path / "stage-1/model"), str(tmp_path / "stage-2/model")]
    assert "reference" not in made[1]
    assert made[2]["reference"] == str(tmp_path / "stage-2/model")
    assert made[2]["references"] == f"M,{tmp_path / 'stage-1/model'},other"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{}, {"reference": "@2"}], "stage 2: reference=@2 names no stage before this one"),
        ([{"model": "@0"}, {"beta": -1}], "stage 2: method dpo: beta must be positive"),
        ([{"nonsense": 1}], "stage 1: unknown option 'nonsense'"),
        (0, "a number of parts of the data"),
        ("three", "a number of parts of the data"),
        ([], "a number of parts of the data"),
        ([3], "a number of parts of the data"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_run(stages, message, tmp_path):
    words = {k: v for k, v in SMALL.items() if k != "quiet"} | {"model": "M", "data": "D", "out": tmp_path}
    with pytest.raises(InputError, match=message):
        recipes(*split({"stages": stages}, words))


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_part_is_one_of_some(part, base, data, tmp_path):
    with pytest.raises(InputError, match="option part"):
        bs.train(**SMALL, model=base, data=data, out=tmp_path / "x", part=part)


def test_parts_cover_the_data_once(base, data, tmp_path):
    from boresight.training.material import read_examples
    from boresight.training.recipe import Recipe
    from boresight.training.reporter import Reporter

    recipe = Recipe.read(method="dpo", model=base, data=data, out=tmp_path)
    reporter = Reporter(quiet=True)
    parts = [read_examples(str(data), recipe, None, reporter, f"{k}/5") for k in range(1, 6)]
    whole = read_examples(str(data), recipe, None, reporter)
    assert [e.prompt for part in parts for e in part] == [e.prompt for e in whole]
    assert {len(p) for p in parts} == {6, 7}
    with pytest.raises(InputError, match="nothing of 32 examples"):
        read_examples(str(data), recipe, None, reporter, "1/40")
