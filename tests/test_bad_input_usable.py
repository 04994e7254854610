"""Input that looks bad and is not: it is used, or what cannot be used of it is counted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import boresight as bs
from bad_input import WORDS, Here, pairs
from boresight.cli import main

RIGHT_TO_LEFT = "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd"
ZERO_WIDTH = "z\u200bw\u200dj\ufeff \u202eoverride\u202c \u2066isolate\u2069"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    path = tmp_path_factory.mktemp("world") / "model"
    return make_model([WORDS] * 8, path, vocab=290, hidden=32, layers=2, heads=2)


@pytest.fixture
def here(model, tmp_path, monkeypatch) -> Here:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "here").mkdir()
    return Here(tmp_path / "here", model, lambda: tmp_path)


def trained(here: Here, capfd, **options: object) -> tuple[dict, str]:
    assert main(here.train(**options)) == 0, capfd.readouterr().err
    told = capfd.readouterr()
    return json.loads((here.folder / "run" / "run.json").read_text("utf-8")), told.out + told.err


def test_right_to_left_and_zero_width_text(here, capfd):
    rows = [p | {"chosen": f"{RIGHT_TO_LEFT} {ZERO_WIDTH} {i}"} for i, p in enumerate(pairs(6))]
    facts, told = trained(here, capfd, data=here.rows(*rows), samples=2, sample_tokens=4)
    assert (facts["data"]["read"], facts["data"]["skipped"], facts["rows"]["made"]) == (6, 0, 6)
    assert "\u202e" not in told
    assert "\u2066" not in told
    assert next(iter(bs.read(here.folder / "data.jsonl"))).responses[0].text == rows[0]["chosen"]


def test_a_file_whose_name_is_no_text_is_checked(here, capfd):
    path = os.path.join(os.fsencode(here.folder), b"odd\xff.jsonl")
    os.replace(here.good(), path)
    assert main(["check", os.fsdecode(path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["read"]["source"].endswith("odd\\udcff.jsonl")


def test_a_response_of_200_kilobytes_is_counted_and_the_rest_is_trained_on(here, capfd):
    long = {"prompt": "q", "chosen": "on the mat " * 20_000, "rejected": "no"}
    facts, told = trained(here, capfd, data=here.rows(long, *pairs(6)))
    assert (facts["data"]["read"], facts["rows"]["made"]) == (7, 6)
    assert facts["rows"]["dropped"] == {"too-long": 1}
    assert "too-long" in told or "max_length" in told, told


def test_a_response_of_200_kilobytes_can_be_cut(here, capfd):
    long = {"prompt": "q", "chosen": "on the mat " * 20_000, "rejected": "no"}
    options = {"data": here.rows(long, *pairs(6)), "truncation": "cut-both", "max_length": 64}
    facts, _ = trained(here, capfd, **options)
    assert facts["rows"]["made"] == 7


def test_a_model_without_template_and_without_pad(here, capfd):
    folder = here.edit("tokenizer_config.json", pad_token=None)
    (folder / "chat_template.jinja").unlink()
    facts, _ = trained(here, capfd, model=folder)
    assert facts["rows"]["made"] == 8
    assert facts["template"]["template"] == "plain"


def test_bad_rows_among_good_ones_are_counted_and_named(here, capfd):
    good = [json.dumps(row) for row in pairs(6)]
    lines = [*good[:3], '{"prompt": "q", "chosen"', '{"prompt": "q", "chosen": 3, "rejected": "x"}', *good[3:]]
    facts, told = trained(here, capfd, data=here.file("data.jsonl", "\n".join(lines)))
    assert (facts["data"]["read"], facts["data"]["skipped"]) == (6, 2)
    flat = "".join(told.split())
    assert "data.jsonl:4" in flat
    assert "data.jsonl:5:chosen" in flat


def test_a_newest_checkpoint_that_breaks_off_is_passed_over(here, capfd):
    out = here.folder / "run"
    trained(here, capfd, save_every=1, max_steps=3, keep=3)
    newest = max((out / "checkpoints").glob("step-*"))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-99])
    before = {p.name for p in (out / "checkpoints").iterdir()}
    os.replace(out / "model", here.folder / "first")
    assert main(["train", "--resume", "--out", str(out)]) == 0
    told = "".join(capfd.readouterr().err.split())
    assert f"{newest.name}/model.safetensorsismissingoraltered" in told
    first, again = (folder / "model.safetensors" for folder in (here.folder / "first", out / "model"))
    assert first.read_bytes() == again.read_bytes()
    assert before <= {p.name for p in (out / "checkpoints").iterdir()}


def test_an_adapter_of_a_known_kind_of_model_with_code_beside_it_is_loaded_without_that_code(here, capfd):
    """A model of a kind that transformers knows may bring a file of code: it is left alone."""
    folder = here.edit("config.json", auto_map={"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Config"})
    here.file("model/mine.py", f"open({str(here.folder / 'touched')!r}, 'w')\n")
    trained(here, capfd, model=folder)
    assert not (here.folder / "touched").exists()


def test_a_method_of_ones_own_is_found_beside_the_data(here, capfd, monkeypatch):
    """The control of the methods that do not import."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(here.folder)
    here.file(
        "goodmethod.py",
        "from boresight.objectives import PairLogProbs, objective\n"
        "@objective('good-loss', needs=('reference',))\n"
        "def loss(pairs: PairLogProbs, *, beta: float = 0.1):\n    return -beta * pairs.margin()\n",
    )
    facts, _ = trained(here, capfd, method="goodmethod.loss", beta=0.5)
    assert facts["method"] == "good-loss"
