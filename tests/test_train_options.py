"""Options that change how a run computes and not what, the verbs as they are called, and the examples."""

from __future__ import annotations

import importlib.util
import json
from math import log
from pathlib import Path

import numpy as np
import pytest

import boresight as bs
from boresight.cli import main
from boresight.errors import InputError
from boresight.training.recipe import Recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = "red blue cat dog sat ran on under the a mat hill sun".split()  # noqa: SIM905 - easier to read
SMALL = {"batch": 4, "micro_batch": 2, "samples": 0, "trackers": "none", "log_every": 1, "quiet": True, "lr": 1e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    path = tmp_path_factory.mktemp("base") / "model"
    return make_model([" ".join(WORDS)] * 8, path, vocab=290, hidden=32, layers=2, heads=2)


@pytest.fixture(scope="module")
def prefs(tmp_path_factory) -> Path:
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "prefs.jsonl"
    rows = [
        {"prompt": f"say {i}", "chosen": " ".join(rng.choice(WORDS, 5)), "rejected": " ".join(rng.choice(WORDS, 3))}
        for i in range(24)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [x["loss"] for x in lines(folder) if "loss" in x]


def test_gradient_checkpointing_changes_nothing(base, prefs, tmp_path):
    for words in ({}, {"adapter": "lora", "lora_rank": 2}):
        for on in (False, True):
            out = tmp_path / f"{on}{len(words)}"
            bs.train(
                method="dpo", model=base, data=prefs, out=out, max_steps=4, gradient_checkpointing=on, **words, **SMALL
            )
        a, b = losses(tmp_path / f"False{len(words)}"), losses(tmp_path / f"True{len(words)}")
        assert a == pytest.approx(b, rel=1e-5)
        assert a[-1] != a[0]


def test_bf16_stays_near_fp32(base, prefs, tmp_path):
    for dtype in ("fp32", "bf16"):
        bs.train(method="dpo", model=base, data=prefs, out=tmp_path / dtype, max_steps=6, dtype=dtype, **SMALL)
    a, b = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert b[0] == pytest.approx(log(2), abs=2e-2)  # policy and reference go through the same arithmetic
    assert a == pytest.approx(b, abs=5e-2)


def test_weights_of_pairs_scale_their_loss(base, prefs, tmp_path):
    rows = [json.loads(x) for x in prefs.read_text().splitlines()]
    heavy = tmp_path / "heavy.jsonl"
    heavy.write_text("".join(json.dumps(r | {"weight": 3.0}) + "\n" for r in rows), encoding="utf-8")
    for name, data in (("one", prefs), ("three", heavy)):
        bs.train(method="ipo", model=base, data=data, out=tmp_path / name, max_steps=1, **SMALL)
    assert losses(tmp_path / "three")[0] == pytest.approx(3 * losses(tmp_path / "one")[0], rel=1e-5)


def test_ranked_lists_train_as_pairs(base, tmp_path):
    data = tmp_path / "ranked.jsonl"
    rows = [
        {"prompt": f"say {i}", "responses": ["cat sat", "dog ran", "the sun"], "ranks": [2, 1, 3]} for i in range(4)
    ]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    counts = {}
    for ranked in ("all", "best-worst"):
        run = bs.train(method="dpo", model=base, data=data, out=tmp_path / ranked, max_steps=1, ranked=ranked, **SMALL)
        counts[ranked] = json.loads((run.folder / "run.json").read_text())["rows"]["made"]
    assert counts == {"all": 12, "best-worst": 4}


def test_a_loss_that_learns_lowers_itself(base, prefs, tmp_path):
    """With three rows seen over and over every method that has a gradient fits them."""
    for method, reached in (("dpo", 0.5), ("sft", None), ("bt-reward", 0.5)):
        run = bs.train(
            method=method, model=base, data=prefs, out=tmp_path / method, limit=3, max_steps=30, warmup=0.0, **SMALL
        )
        found = losses(run.folder)
        assert found[-1] < (reached if reached is not None else found[0] - 1)


def test_tracked_by_tensorboard_and_sampled(base, prefs, tmp_path):
    words = SMALL | {"samples": 2, "sample_tokens": 4, "trackers": "tensorboard"}
    run = bs.train(method="dpo", model=base, data=prefs, out=tmp_path / "run", max_steps=2, **words)
    assert list(run.folder.rglob("events.out.tfevents*"))
    sampled = [json.loads(x) for x in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert sorted({x["step"] for x in sampled}) == [0, 2]
    assert all("say " in x["text"] for x in sampled)


def test_verbs_from_end_to_end(base, prefs, tmp_path, capsys, monkeypatch):
    """tiny, train with a recipe and words on top, evaluate: as a user calls them, for machines."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> dict:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    made = call("tiny", "--data", str(prefs), "--out", "base", "--hidden", "32", "--layers", "1", "--heads", "2")
    assert made["parameters"] > 1000
    Path("recipe.yaml").write_text(
        f"method: dpo\nmodel: base\ndata: {prefs}\nout: first\n"
        "batch: 4\nmax_steps: 2\nbeta: 0.3\nlr: 1e-4\nsamples: 0\n"
    )
    first = call("train", "recipe.yaml")
    assert first["steps"] == 2
    assert json.loads(Path("first/run.json").read_text())["recipe"]["beta"] == 0.3
    second = call("train", "recipe.yaml", "--out", "second", "beta=0.4", "max_steps=3")
    assert (second["steps"], json.loads(Path("second/run.json").read_text())["recipe"]["beta"]) == (3, 0.4)
    found = call("evaluate", "second", "--data", str(prefs), "--samples", "3", "--sample-tokens", "4")
    measures = found["measures"]
    assert measures["implicit-reward accuracy"]["n"] == 24
    assert measures["longer wins"]["value"] == 1.0  # chosen has five words, rejected three
    assert measures["KL"]["n"] == 3
    assert "TF-IDF + BT" in measures


def test_verbs_print_for_people(base, prefs, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "--method", "dpo", "--model", str(base), "--data", str(prefs), "--out", str(out)]
    assert main([*words, "max_steps=1", "samples=0", "batch=4", "beta=0.7"]) == 0
    shown = capsys.readouterr()
    assert "Rafailov" in shown.err  # where the defaults come from
    assert "0.7" in shown.err
    assert "next: boresight evaluate" in " ".join(shown.out.split())
    assert main([*words, "max_steps=1"]) == 2
    assert "holds a run" in " ".join(capsys.readouterr().err.split())


def test_the_recipe_among_the_examples_is_valid():
    recipe = Recipe.read(EXAMPLES / "dpo.yaml", model="m", data="d", out="o")
    assert (recipe.peak_lr, recipe.adapter) == (5e-6, "lora")
    with pytest.raises(InputError, match="model"):
        Recipe.read(EXAMPLES / "dpo.yaml", data="d", out="o")


def test_the_loop_of_ones_own_runs(base, prefs):
    spec = importlib.util.spec_from_file_location("own_loop", EXAMPLES / "own_loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(str(base), str(prefs), steps=8, batch=8)
    assert found[0] == pytest.approx(log(2), abs=1e-6)
    assert found[3] < found[0]  # the same rows come again from the fourth step on
