"""Two real processes (gloo), data parallel and split: what they compute is what one computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import boresight as bs
from boresight.training.placement import place as placed
from everything import write_everything

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ACCELERATE = ["accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
ACCELERATE += ["--dynamo_backend=no", "--main_process_port=0"]
WORDS = [f"word{i}" for i in range(24)]
RUN: dict[str, Any] = {
    "model": "base",
    "data": "prefs.jsonl",
    "eval_data": "prefs.jsonl",
    "batch": 7,  # which two processes cannot share evenly
    "micro_batch": 2,
    "max_steps": 4,
    "lr": 1e-3,
    "log_every": 1,
    "save_every": 2,
    "keep": 9,
    "samples": 2,
    "sample_tokens": 5,
    "trackers": "none",
}
METHODS: list[dict[str, Any]] = [{"method": m} for m in ("dpo", "kto", "sft", "bt-reward")]
METHODS += [{"method": m, "adapter": "lora", "lora_rank": 2} for m in ("dpo", "kto")]
ALONE: list[dict[str, Any]] = [
    {"method": m, "data": "all.jsonl", "eval_data": "all.jsonl"}
    for m in (
        "beta-dpo",
        "rpo-relative",
        "gradient-entanglement",
        "spo-preference-degree",
        "plackett-luce",
        "typo",
        "sgdpo",
    )
]
"""What more methods need: the whole batch, embeddings, norms of gradients, heads, lists, samples, noise."""
SPLITTABLE = ("beta-dpo", "gradient-entanglement", "plackett-luce", "sgdpo")
MOVED = [METHODS[0], METHODS[5]]
"""Whose checkpoints are resumed on another number of processes."""
COUNTED = ("length", "accuracy", "accuracy_mean", "chosen_length", "rejected_length")
"""Metrics without rounding: sums of whole numbers over a count."""


def name(words: dict[str, Any]) -> str:
    return "-".join(map(str, words.values()))


def cut(folder: Path, to: Path) -> None:
    """A copy of a run as it was killed after its first checkpoint."""
    shutil.copytree(folder, to)
    shutil.rmtree(to / "model")
    shutil.rmtree(to / "checkpoints" / "step-00000004")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("processes")
    make_model([" ".join(WORDS)] * 8, folder / "base", vocab=280, hidden=32, layers=2, heads=2, seed=0)
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(1, 9))))

    rows = [{"prompt": text(), "chosen": text(), "rejected": f"{text()} {i}"} for i in range(19)]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_everything(folder / "all.jsonl", 19)
    return folder


def call(place: Path, module: list[str], *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in the folder, with a cache of its own, so that no run leans on what another has computed."""
    own = {"BORESIGHT_CACHE": str(place / "cache" / str(time.monotonic_ns())), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", *module, *words],
        cwd=place,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def options(**words: Any) -> list[str]:
    return [f"{k}={v}" for k, v in (RUN | words).items()]


@pytest.fixture(scope="module")
def one(place) -> Iterator[Callable[..., Path]]:
    """The run of a single process: this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("BORESIGHT_CACHE", str(place / "cache" / "one"))

        def of(out: str | None = None, **words: Any) -> Path:
            folder = place / (out or f"one-{name(words)}")
            if words.get("resume") or not folder.exists():
                bs.train(**{**RUN, **words, "out": folder.name, "quiet": True})
            return folder

        yield of


MANY = """
import json, os, sys
import boresight as bs

for k, words in enumerate(json.load(open(sys.argv[1]))):
    os.environ["BORESIGHT_CACHE"] = f"cache/two-{k}"
    bs.train(**words, quiet=True)
"""


@pytest.fixture(scope="module")
def two(place, one) -> Callable[[str, dict[str, Any]], Path]:
    """All runs of two processes, one after the other in one launch: starting takes longer than they do."""
    runs: list[dict[str, Any]] = [
        RUN | words | {"out": f"{how}-{name(words)}", "shard": how == "split"}
        for how in ("two", "split")
        for words in METHODS + [w for w in ALONE if how == "two" or w["method"] in SPLITTABLE]
    ]
    for words in MOVED:
        for how in ("two", "split"):
            cut(one(**words), place / f"one-to-{how}-{name(words)}")
            runs.append(RUN | words | {"out": f"one-to-{how}-{name(words)}", "shard": how == "split", "resume": True})
    (place / "many.py").write_text(MANY)
    (place / "runs.json").write_text(json.dumps(runs))
    done = call(place, [*TORCHRUN, "many.py", "runs.json"], timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return lambda how, words: place / f"{how}-{name(words)}"


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(found: Path, expected: Path) -> None:
    """Losses and metrics within float tolerance, counts exactly, weights within what Adam makes of rounding."""
    ours, theirs = metrics(found), metrics(expected)
    assert [list(x) for x in ours] == [list(x) for x in theirs]
    assert max(x["step"] for x in ours) == RUN["max_steps"]
    for x, y in zip(ours, theirs, strict=True):
        assert x == pytest.approx(y, rel=2e-4, abs=2e-5)
        for key in x:
            if key.removeprefix("eval_") in COUNTED:
                assert x[key] == y[key], key
    a, b = (load_file(next((f / "model").glob("*model.safetensors"))) for f in (found, expected))
    assert a.keys() == b.keys()
    # A gradient that is all rounding may move by up to lr a step.
    apart = torch.cat([(a[k] - b[k]).abs().flatten() for k in a])
    assert float((apart > 2e-5).float().mean()) < 0.01
    assert float(apart.max()) < 1e-3


@pytest.mark.parametrize("how", ["two", "split"])
@pytest.mark.parametrize("words", METHODS, ids=name)
def test_two_processes_compute_what_one_does(one, two, words, how):
    run = two(how, words)
    same(run, one(**words))
    assert json.loads((run / "run.json").read_text())["processes"] == 2


@pytest.mark.parametrize("words", ALONE, ids=lambda words: words["method"])
def test_two_processes_compute_what_one_does_whatever_a_method_needs(one, two, words):
    for how in ("two", "split") if words["method"] in SPLITTABLE else ("two",):
        same(two(how, words), one(**words))


def test_the_comparison_can_fail(one, two):
    """A control: another seed is another run."""
    with pytest.raises(AssertionError):
        same(two("two", METHODS[0]), one(method="dpo", seed=1))


@pytest.mark.parametrize("words", MOVED, ids=name)
@pytest.mark.parametrize("how", ["one-to-two", "two-to-one", "one-to-split", "split-to-one"])
def test_a_checkpoint_is_resumed_on_another_number_of_processes(one, two, words, how):
    run = two(how, words)
    if how.endswith("to-one"):
        cut(two(how.split("-")[0], words), run)
        one(out=run.name, resume=True, **words)
    same(run, one(**words))


@pytest.mark.parametrize("flags", [["--multi_gpu"], ["--use_fsdp", "--fsdp_version=2"]], ids=["data parallel", "split"])
def test_accelerate_launch(place, one, flags):
    """--multi_gpu on a machine without GPUs is accelerate's way of saying several processes."""
    out = f"accelerate-{len(flags)}"
    done = call(place, [*ACCELERATE, *flags, "-m", "boresight"], "train", *options(method="dpo", out=out))
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("the model is in") == 1  # of two processes one speaks
    same(place / out, one(method="dpo"))
    assert json.loads((place / out / "run.json").read_text())["processes"] == 2


def test_the_split_model_is_loaded_by_plain_transformers_and_peft(place, one, two):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 40)[None]
    for words in (METHODS[0], METHODS[4]):
        one(**words)  # trained here, if no test before has asked for it
    with torch.no_grad():
        start = AutoModelForCausalLM.from_pretrained(place / "base")(ids).logits
        for kind, words in ((AutoModelForCausalLM, METHODS[0]), (AutoPeftModelForCausalLM, METHODS[4])):
            folders = [f / "model" for f in (two("split", words), one(**words))]
            logits, expected = (kind.from_pretrained(f).eval()(ids).logits for f in folders)
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
            assert float((logits - start).abs().max()) > 1e-2


ONE_FAILS = """
import os
import boresight as bs
from torch import Tensor

calls = 0

@bs.objective("fails", needs=("reference",))
def fails(pairs: bs.PairLogProbs) -> Tensor:
    global calls
    calls += os.environ.get("RANK") == "1"
    if calls > 4:
        raise ValueError("planted on process 1")
    return -pairs.margin()
"""


@pytest.mark.parametrize("split", ["false", "true"])
def test_an_error_on_one_process_ends_the_other(place, split):
    """It neither hangs nor trains on, and what is said names the cause."""
    (place / "failing.py").write_text(ONE_FAILS)
    words = options(method="failing.fails", out=f"fails-{split}", shard=split, proof="off", eval_data="")
    words = [w for w in words if not w.startswith("eval_data")]
    done = call(place, [*TORCHRUN, "-m", "boresight"], "train", *words)  # its time limit is the test
    assert done.returncode != 0
    assert "planted on process 1" in done.stderr
    if split == "false":
        assert "another process stopped" in done.stderr
    assert not (place / f"fails-{split}" / "model").exists()


def test_bad_data_ends_all_processes_and_nothing_is_written(place):
    (place / "bad.jsonl").write_text('{"prompt": 1}\n')
    done = call(place, [*TORCHRUN, "-m", "boresight"], "train", *options(method="dpo", data="bad.jsonl", out="bad"))
    assert done.returncode != 0
    assert "bad.jsonl" in done.stderr
    assert "process 0 stopped" in done.stderr
    assert not (place / "bad").exists()


SHORT = """
import os, sys
import torch
import boresight.training.step as step

real = step.weighted_loss

def loss(job, micro, kl):
    # Process 1 alone runs out.
    if os.environ["RANK"] == "1" and len(micro) > 1 and torch.is_grad_enabled():
        raise torch.OutOfMemoryError("planted")
    return real(job, micro, kl)

step.weighted_loss = loss
from boresight.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_out_of_memory_on_one_process_halves_the_micro_batch_of_both(place, one, method):
    (place / "short.py").write_text(SHORT)
    out = f"short-{method}"
    done = call(place, [*TORCHRUN, "short.py"], "train", *options(method=method, out=out, micro_batch=4, proof="off"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory: micro_tokens=" in done.stderr
    same(place / out, one(method=method))
    progress = json.loads((place / out / "checkpoints" / "step-00000004" / "training" / "progress.json").read_text())
    assert progress["micro_tokens"] < 200


COUNTS = """
import json
import torch
from boresight.errors import InputError, RunError
from boresight.training.distributed import add_up, agree, exchange, start, together
from boresight.training.metrics import Meter
from boresight.training.placement import place

class Plain:
    shard = False

accelerator = start(Plain(), bf16=False)
rank, world = accelerator.process_index, accelerator.num_processes
found = {}
for size in (1, 2, 5, 8):
    for micro in (1, 3):
        tokens = list(range(10, 10 + size))
        split = dict(world=world, rows=micro, equal=True)
        parts = place(tokens, tokens, cost=lambda rows, total, longest: total, budget=60, **split)[rank]
        meter = Meter()
        for part in parts:
            values = torch.tensor([float(tokens[i]) for i, _ in part])
            meter.add({"value": (values, None)}, torch.tensor([counts for _, counts in part]))
        sums = meter.sums(accelerator)["value"]
        shapes = exchange(accelerator, [len(p) for p in parts])
        found[f"{size} {micro}"] = [sums, shapes, meter.reduce(accelerator)["value"]]
found["agree"] = [agree(accelerator, rank), agree(accelerator, 0)]
found["exchange"] = exchange(accelerator, rank * 10)
found["fp64"] = add_up(accelerator, torch.tensor([1e-12 + rank], dtype=torch.float64)).item()

def fails():
    if rank == 1:
        raise InputError("planted", mend="none")

try:
    together(accelerator, fails)
except (InputError, RunError) as error:
    found["together"] = error.what
print("FOUND" + json.dumps([rank, found]) + "END", flush=True)
"""


def test_placement_and_global_counts_under_two_real_processes(place):
    (place / "counts.py").write_text(COUNTS)
    done = call(place, [*TORCHRUN, "counts.py"])
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(json.loads(part.split("END")[0]) for part in done.stdout.split("FOUND")[1:])
    assert sorted(said) == [0, 1]
    for rank in (0, 1):
        for size in (1, 2, 5, 8):
            for micro in (1, 3):
                numbers = list(range(10, 10 + size))
                (total, count), shapes, mean = said[rank][f"{size} {micro}"]
                assert (total, count) == (sum(numbers), size)  # every row once, those that fill up not at all
                assert mean == sum(numbers) / size
                assert len(shapes[0]) == len(shapes[1])  # equally many micro-batches
                words = {"cost": lambda rows, total, longest: total, "budget": 60, "rows": micro, "equal": True}
                assert shapes == [[len(p) for p in mine] for mine in placed(numbers, numbers, world=2, **words)]
        assert said[rank]["agree"] == [1, 0]
        assert said[rank]["exchange"] == [0, 10]
        assert said[rank]["fp64"] == pytest.approx(1 + 2e-12, abs=1e-15)
    assert said[0]["together"] == "process 1 stopped"
    assert said[1]["together"] == "planted"


LATE = """
import os, sys
import torch
import boresight.training.step as step
from boresight.training import prepare

prepare.lazily = lambda optimizer, device: True  # as on a GPU
real, seen = step.weighted_loss, 0

def loss(job, micro, kl):
    global seen
    loss, values, live = real(job, micro, kl)
    seen += torch.is_grad_enabled()
    if os.environ["RANK"] == "1" and seen == 3 and torch.is_grad_enabled():
        values["loss"] = (values["loss"][0] * torch.nan, values["loss"][1])
        loss = loss * torch.nan
    return loss, values, live

step.weighted_loss = loss
from boresight.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("split", ["false", "true"])
def test_what_is_not_finite_on_one_process_is_found_late_on_both(place, split):
    """The optimizer of both leaves the step out, both stop, and the process it came from names its rows."""
    (place / "late.py").write_text(LATE)
    out = f"late-{split}"
    done = call(place, [*TORCHRUN, "late.py"], "train", *options(method="dpo", out=out, shard=split, proof="off"))
    assert done.returncode != 0
    assert "step 1: the loss is not finite" in done.stderr  # two micro-batches a step: the third is of the second step
    assert (place / out / "offending-rows-step-1-process-1.jsonl").exists()
    assert not (place / out / "model").exists()
    for file in (place / out).glob("checkpoints/*/model.safetensors"):
        assert all(torch.isfinite(t).all() for t in load_file(file).values())
