"""Real kills: a run killed with SIGKILL at any moment ends, resumed, as one that was left alone. Bit for bit."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import killing
from boresight.errors import InputError
from killing import Kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a fork server and SIGKILL"),
    pytest.mark.xdist_group("kill"),
]

WORDS = [f"word{i}" for i in range(24)]
RUN: dict[str, Any] = {
    "method": "dpo",
    "model": "../base",
    "data": "../prefs.jsonl",
    "eval_data": "../prefs.jsonl",
    "eval_limit": 12,
    "out": "run",
    "batch": 4,
    "micro_batch": 2,
    "max_steps": 6,
    "lr": 1e-3,
    "log_every": 4,
    "eval_every": 3,
    "save_every": 2,
    "sample_every": 3,
    "samples": 2,
    "sample_tokens": 4,
    "trackers": "none",
}
# Many shards from few rows, so that a kill falls between them.
SHARDS = {"boresight.engine.store:_BLOCK_SEQUENCES": 16, "boresight.engine.store:_FLUSH_SECONDS": 0.0}
T = "boresight.training."


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("kill")
    make_model([" ".join(WORDS)] * 8, folder / "base", vocab=280, hidden=16, layers=2, heads=2, seed=0)
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(1, 7))))

    rows = [{"prompt": text(), "chosen": text(), "rejected": f"{text()} {i}"} for i in range(30)]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """What an uninterrupted run leaves behind, by the options it differs in."""
    known: dict[str, dict[str, Any]] = {}

    def of(**words: Any) -> dict[str, Any]:
        key = json.dumps(words, sort_keys=True)
        if key not in known:
            folder = place / f"whole-{len(known)}"
            folder.mkdir()
            assert killing.run(folder, RUN | words, **SHARDS) == 0, error(folder)
            known[key] = left(folder)
        return known[key]

    return of


@pytest.fixture
def folder(place, request) -> Path:
    path = place / f"case-{len(list(place.iterdir()))}"
    path.mkdir()
    return path


def error(folder: Path) -> str:
    path = folder / "error.txt"
    return path.read_text() if path.exists() else "no error"


def left(folder: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on kills: all bytes, clocks and measured memory apart."""
    run = folder / "run"
    found: dict[str, Any] = {
        str(p.relative_to(run)): p.read_bytes()
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name not in ("run.json", "progress.json", "manifest.json")
    }
    facts = json.loads((run / "run.json").read_text())
    found["run.json"] = {k: v for k, v in facts.items() if k not in ("seconds", "memory", "proof")}
    for path in sorted(run.glob("checkpoints/*/training/progress.json")):
        found[str(path.relative_to(run))] = json.loads(path.read_text()) | {"seconds": 0}
    return found


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sorted(found) == sorted(expected)
    for name in expected:
        assert found[name] == expected[name], name


MOMENTS = [
    Kill(f"{T}folder:os.fsync", 1),  # while the recipe is written
    Kill(f"{T}folder:write_whole", 1, "after"),  # the recipe is all there is
    Kill("boresight.data.rows:write_rows", 1),
    Kill("boresight.engine.reference:token_values", 3),  # between two shards of the reference store
    Kill("boresight.engine.store:write_shard", 2),
    Kill("boresight.engine.shards:os.fsync", 2),  # a shard is written and not yet renamed
    Kill(f"{T}folder:os.fsync", 2),  # while run.json is written
    Kill(f"{T}step:weighted_loss", 3),  # the evaluation at the start
    Kill(f"{T}sample:_cut", 2),  # while sampling
    Kill("torch:Tensor.backward", 8),  # in a step, between two micro-batches
    Kill("torch.optim:AdamW.step", 4),  # gradients are there, weights untouched
    Kill("torch.optim:AdamW.step", 4, "after"),  # weights moved, nothing recorded
    Kill(f"{T}trackers:_line", 5, "torn line"),  # half a line of metrics
    Kill(f"{T}checkpoint:save_file", 2, "torn file"),  # the optimizer's state, half of it
    Kill(f"{T}checkpoint:_digest", 5),  # between files of a checkpoint
    Kill(f"{T}checkpoint:_sync", 12),
    Kill(f"{T}checkpoint:remove", 1, "after"),  # a checkpoint is whole, before its rename
    Kill(f"{T}loop:prune", 2),  # just after the rename
    Kill(f"{T}checkpoint:shutil.rmtree", 9, "torn folder"),  # while an old checkpoint is deleted
    Kill(f"{T}loop:evaluate_rows", 3),  # the evaluation at the end
    Kill(f"{T}checkpoint:save", 1),  # `model/`: loop.py has its own name for the checkpoints' save
    Kill(f"{T}checkpoint:save", 1, "after"),
    Kill(f"{T}folder:os.fsync", 3),  # while run.json is told that the run is finished
]


@pytest.mark.parametrize("kill", MOMENTS, ids=str)
def test_a_killed_run_resumes_to_the_same_bytes(place, folder, whole, kill):
    assert killing.run(folder, RUN, kill, **SHARDS) == -9, error(folder)
    again = {"out": "run", "resume": True}
    code = killing.run(folder, again, **SHARDS)
    if not (folder / "run" / "recipe.yaml").exists():
        # Killed before the recipe was written: there is nothing to resume, which is said, and the start is free.
        assert code == 1
        assert "start it again without --resume" in error(folder)
        code = killing.run(folder, RUN, **SHARDS)
    assert code == 0, error(folder)
    same(left(folder), whole())


@pytest.mark.parametrize(
    "words", [{"method": "kto", "adapter": "lora", "lora_rank": 2}, {"method": "bt-reward"}], ids=str
)
@pytest.mark.parametrize("kill", [MOMENTS[10], MOMENTS[13], MOMENTS[16]], ids=str)
def test_so_do_adapters_and_reward_models(place, folder, whole, kill, words):
    assert killing.run(folder, RUN | words, kill, **SHARDS) == -9, error(folder)
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 0, error(folder)
    same(left(folder), whole(**words))


def test_killed_again_and_again_at_any_time(place, folder, whole):
    """Not at chosen calls but by the clock, until the run is through."""
    rng, kills, words = np.random.default_rng(1), 0, dict(RUN)
    for _ in range(12):
        process = killing.start(folder, words, **SHARDS)
        process.join(float(rng.uniform(0.05, 0.6)))
        if process.exitcode is None:
            process.kill()
            kills += 1
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9, error(folder)
        if (folder / "run" / "recipe.yaml").exists():
            words = {"out": "run", "resume": True}
    else:
        assert killing.run(folder, words, **SHARDS) == 0, error(folder)
    assert kills >= 1
    same(left(folder), whole())


def test_the_comparison_can_fail(place, folder, whole):
    """A control: one weight of one checkpoint is nudged before the run goes on, under a manifest that fits."""
    import torch
    from safetensors.torch import load_file, save_file

    from boresight.training import checkpoint

    assert killing.run(folder, RUN, Kill("torch.optim:AdamW.step", 5), **SHARDS) == -9
    newest = checkpoint.newest(folder / "run" / "checkpoints")
    assert newest is not None
    path = newest / "training" / "optimizer.safetensors"
    state = load_file(path)
    name = next(k for k in state if k.endswith("exp_avg"))
    state[name].view(-1)[0] = torch.nextafter(state[name].view(-1)[0], torch.tensor(1.0))
    save_file(state, path)
    manifest = json.loads((newest / checkpoint.MANIFEST).read_text())
    manifest["training/optimizer.safetensors"] = checkpoint._digest(path)
    (newest / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 0, error(folder)
    with pytest.raises(AssertionError):
        same(left(folder), whole())


def killed_at_the_end(folder: Path) -> Path:
    """A run with two checkpoints, killed before its last."""
    assert killing.run(folder, RUN | {"max_steps": 6}, Kill(f"{T}loop:evaluate_rows", 3), **SHARDS) == -9
    return folder / "run" / "checkpoints"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "weights cut short": ("model.safetensors", truncate),
    "one bit of the optimizer": ("training/optimizer.safetensors", flip),
    "progress altered": ("training/progress.json", flip),
    "a file missing": ("config.json", Path.unlink),
    "no manifest": ("manifest.json", Path.unlink),
    "manifest cut short": ("manifest.json", truncate),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(place, folder, whole, kind, capsys):
    from boresight.training import checkpoint

    checkpoints = killed_at_the_end(folder)
    name, damage = DAMAGE[kind]
    damage(checkpoints / "step-00000004" / name)
    said: list[str] = []
    assert checkpoint.newest(checkpoints, lambda text, **_: said.append(text)) == checkpoints / "step-00000002"
    assert len(said) == 1
    assert "step-00000004" in said[0]
    assert "damaged" in said[0]
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 0, error(folder)
    same(left(folder), whole())


def test_where_all_checkpoints_are_damaged_the_run_begins_again(place, folder, whole):
    for step in killed_at_the_end(folder).glob("step-*"):
        truncate(step / "model.safetensors")
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 0, error(folder)
    same(left(folder), whole())


def test_two_processes_never_train_into_one_folder(place, folder):
    first = killing.start(folder, RUN | {"max_steps": 400, "save_every": 0, "eval_every": 0}, **SHARDS)
    until = time.monotonic() + 60
    while not (folder / "run" / "recipe.yaml").exists() and time.monotonic() < until:
        time.sleep(0.02)
    before = (folder / "run" / "recipe.yaml").read_bytes()
    for words in (RUN, {"out": "run", "resume": True}):
        assert killing.run(folder, words, **SHARDS) == 1
        assert "InputError: another process is training into out=run" in error(folder)
    assert first.exitcode is None
    first.kill()
    first.join()
    assert (folder / "run" / "recipe.yaml").read_bytes() == before
    # The dead hold no locks.
    assert killing.run(folder, RUN, **SHARDS) == 1
    assert "InputError: out=run holds a run" in error(folder)


@pytest.mark.parametrize("size", [2_000, 30_000])
def test_no_space_left_is_said_and_leaves_nothing_half_written(place, folder, whole, size, monkeypatch):
    """A limit on the size of files stands for the full disk: the same calls fail, with EFBIG for ENOSPC."""
    monkeypatch.chdir(folder)
    assert killing.run(folder, RUN | {"max_steps": 6, "store": "store"}, Kill(f"{T}loop:evaluate_rows", 2)) == -9
    code = killing.run(folder, {"out": "run", "resume": True}, **{"killing:LIMIT": size})
    assert code == 1
    assert "RunError" in error(folder)
    assert "cannot be written to" in error(folder)
    assert "free some space" in error(folder)
    assert not list((folder / "run").rglob("*.partial"))
    assert killing.run(folder, {"out": "run", "resume": True}) == 0, error(folder)


def test_a_folder_that_cannot_be_made_is_refused_at_once(place, tmp_path):
    import boresight as bs

    (tmp_path / "file").write_text("mine")
    words = RUN | {"model": place / "base", "data": place / "prefs.jsonl", "eval_data": None, "quiet": True}
    for out in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(InputError, match=r"cannot be written to|is a file"):
            bs.train(**{**words, "out": out})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_half_written_run_json_is_said(place, folder):
    assert killing.run(folder, RUN, Kill("torch.optim:AdamW.step", 4), **SHARDS) == -9
    (folder / "run" / "run.json").write_text('{"state": "run')
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 1
    assert "run.json cannot be read" in error(folder)
    (folder / "run" / "run.json").unlink()
    assert killing.run(folder, {"out": "run", "resume": True}, **SHARDS) == 0, error(folder)
