"""Two real processes (gloo, CPU): the same losses, gradients and metrics as one, and checkpoints that change hands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

WORDS = "red blue cat dog sat ran on under the a mat hill sun".split()  # noqa: SIM905 - easier to read
COMMON = ["batch=6", "micro_batch=2", "samples=0", "trackers=none", "log_every=1", "max_steps=3", "lr=1e-3", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model and data; 13 rows, so that batches do not divide evenly."""
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("processes")
    make_model([" ".join(WORDS)] * 8, folder / "base", vocab=290, hidden=32, layers=2, heads=2)
    rng = np.random.default_rng(5)

    def text() -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(1, 9))))

    rows = [{"prompt": f"say {i}", "chosen": f"{text()} sun", "rejected": f"{text()} mat"} for i in range(13)]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def launch(place: Path, processes: int, out: str, *words: str) -> subprocess.CompletedProcess[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(several if processes > 1 else []), "-m", "boresight", "train"]
    named = ["--model", "base", "--data", "prefs.jsonl", "--out", out, "eval_data=prefs.jsonl"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "BORESIGHT_CACHE": str(place / "cache")}
    return subprocess.run(
        [*command, *named, *COMMON, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def metrics(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "model").glob("*model.safetensors")))


def same(place: Path, one: str, two: str) -> None:
    a, b = metrics(place / one), metrics(place / two)
    assert len(a) == len(b) > 3
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            if "second" not in key and "time" not in key:
                assert x[key] == pytest.approx(y[key], rel=5e-4, abs=5e-5), key
    first, second = weights(place / one), weights(place / two)
    assert first.keys() == second.keys()
    moved = torch.cat([(first[k] - second[k]).abs().flatten() for k in first])
    assert float((moved > 2e-5).float().mean()) < 0.01  # Adam may move a gradient that is all rounding by lr


METHODS = {"dpo": ["--method", "dpo"], "kto": ["--method", "kto", "adapter=lora", "lora_rank=2"]}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_compute_what_one_does(place, method):
    """Data parallel, and split over the processes (FSDP2)."""
    for out, processes, more in ((method, 1, []), (f"{method}-whole", 2, []), (f"{method}-split", 2, ["shard=true"])):
        done = launch(place, processes, out, *METHODS[method], *more)
        assert done.returncode == 0, done.stderr
    same(place, method, f"{method}-whole")
    same(place, method, f"{method}-split")
