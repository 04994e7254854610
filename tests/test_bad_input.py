"""What bad input gets: one screen that names the thing and the mend, the promised exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bad_input_data
import bad_input_models
import bad_input_options
import boresight as bs
from bad_input import CASES, WORDS, Here, error_of, pairs, snapshot, squeezed
from boresight.cli import main

REGISTERED = (bad_input_data, bad_input_models, bad_input_options)
"""The files of cases; importing one registers what is in it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a model; a run of it comes when it is asked for."""
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("world")
    make_model([WORDS] * 8, folder / "model", vocab=290, hidden=32, layers=2, heads=2)
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch) -> Here:
    def run() -> Path:
        if not (world / "run").exists():
            data = world / "data.jsonl"
            data.write_text("".join(json.dumps(p) + "\n" for p in pairs(8)), "utf-8")
            words = {"batch": 4, "micro_batch": 4, "samples": 0, "trackers": "none", "quiet": True, "save_every": 1}
            bs.train(method="dpo", model=world / "model", data=data, out=world / "run", lr=1e-3, max_steps=2, **words)
        return world / "run"

    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mymethod", "mine"):
        sys.modules.pop(name, None)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BORESIGHT_DEBUG", raising=False)
    return Here(folder, world / "model", run)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """What hangs is broken off, and then fails as a defect."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, here, world, capfd, monkeypatch):
    case = CASES[name](here)
    for key, value in case.env.items():
        monkeypatch.setenv(key, value)
    roots = (here.folder, world)
    before = snapshot(*roots)
    with at_most(case.seconds):
        code = main(case.line)
    out, err = capfd.readouterr()
    told = error_of(err) if "error: " in err else err + out
    assert (code, told.count("Traceback")) == (case.code, 0), told
    missing = [words for words in case.says if squeezed(words) not in squeezed(told)]
    assert not missing, told
    assert code == 1 or "\nmend:  " in told, told
    assert code == 1 or len(told.splitlines()) <= 24, told
    assert max(map(len, told.splitlines())) <= 80, told
    after = snapshot(*roots)
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}, "something was written"
    assert before.keys() <= after.keys(), "something was removed"
    assert list((here.folder.parent / "cache").rglob(".*")) == [], "something was left half-written"
    assert not os.path.exists("touched"), "code of the model's was run"
