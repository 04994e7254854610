"""The step-zero proof under two processes, with the model whole on each and split over them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proofs import save_family, write_prefs

WAYS = {
    "whole": {},
    "lora": {"adapter": "lora", "lora_rank": 2},
    "kto": {"method": "kto"},
    "split": {"shard": True},
    "split-reward": {"shard": True, "method": "bt-reward"},
    "fault": {},
}

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from proofs import failing, job_of, lines_of

for way, words in {ways!r}.items():
    job = job_of({model!r}, {prefs!r}, **words)
    if way == "fault" and job.accelerator.process_index == 1:
        with torch.no_grad():
            job.model.lm_head.weight.mul_(1.1)
    lines = lines_of(job)
    if way == "fault":
        assert failing(lines)[0] == "policy = reference", failing(lines)
        assert "processes" in failing(lines)
        said = lines["policy = reference"].words
        assert said.startswith("it fails on process 1") or job.accelerator.process_index == 1, said
    else:
        assert not failing(lines), (way, [lines[n] for n in failing(lines)])
        assert lines["processes"].residual < 1e-5, (way, lines["processes"])
        assert lines["gradient"].verdict == lines["gradient reaches"].verdict == "holds"
    print(f"<{{way}}>", flush=True)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """All ways in one launch: starting takes longer than they do. It ends at the first whose lines are not right."""
    folder = tmp_path_factory.mktemp("processes")
    model = save_family("llama", folder / "model", initializer_range=0.05)
    prefs = write_prefs(folder / "prefs.jsonl")
    script = folder / "run.py"
    words = {"tests": os.path.dirname(__file__), "ways": WAYS, "model": str(model), "prefs": str(prefs)}
    script.write_text(SCRIPT.format(**words))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "BORESIGHT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@pytest.mark.slow
@pytest.mark.xdist_group("proof processes")
@pytest.mark.parametrize("way", WAYS)
def test_two_processes(way, launched):
    """All lines hold; what is planted on one process fails on both, and is said."""
    assert launched.stdout.count(f"<{way}>") == 2, launched.stderr[-3000:]
    assert launched.returncode == 0 or way != "fault", launched.stderr[-3000:]
