"""The step-zero proof under two processes, with the model whole on each and split over them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proofs import save_family, write_prefs

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from proofs import failing, job_of, lines_of
words, fault = {words!r}, {fault!r}
job = job_of({model!r}, {prefs!r}, **words)
if fault and job.accelerator.process_index == 1:
    with torch.no_grad():
        job.model.lm_head.weight.mul_(1.1)
lines = lines_of(job)
if not fault:
    assert not failing(lines), [lines[n] for n in failing(lines)]
    assert lines["processes"].residual < 1e-5, lines["processes"]
    assert lines["gradient"].verdict == lines["gradient reaches"].verdict == "holds"
    print("proved")
else:
    assert failing(lines)[0] == "policy = reference", failing(lines)
    assert "processes" in failing(lines)
    said = lines["policy = reference"].words
    assert said.startswith("it fails on process 1") or job.accelerator.process_index == 1, said
    print("caught")
"""

WAYS = {
    "whole": {},
    "lora": {"adapter": "lora", "lora_rank": 2},
    "kto": {"method": "kto"},
    "split": {"shard": True},
    "split-reward": {"shard": True, "method": "bt-reward"},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        {},
        {"adapter": "lora", "lora_rank": 2},
        {"method": "kto"},
        {"shard": True},
        {"shard": True, "method": "bt-reward"},
    ],
    ids=["whole", "lora", "kto", "split", "split-reward"],
)
def test_two_processes(words, fault, tmp_path):
    if fault and words:
        pytest.skip("the fault is planted once")
    model = save_family("llama", tmp_path / "model", initializer_range=0.05)
    prefs = write_prefs(tmp_path / "prefs.jsonl")
    script = tmp_path / "run.py"
    script.write_text(
        SCRIPT.format(tests=os.path.dirname(__file__), words=words, fault=fault, model=str(model), prefs=str(prefs))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "BORESIGHT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("caught" if fault else "proved") == 2
