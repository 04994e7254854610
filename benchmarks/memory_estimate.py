"""The memory that a run says it will take, against the peak that the system measures.

    python benchmarks/memory_estimate.py [SHAPE ...]     (Linux)

Each shape is an untrained Llama-type model and a run of three steps in a process of its own, twice: with freed memory
handed back at once (what a run does where memory is tight) and as glibc keeps it. The peak is that of resident memory
within the steps; `program` (Python, libraries, data) is held before the estimate and in both figures, so the ratio is
that of the rest.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHAPES: dict[str, tuple[dict[str, int], int, dict[str, Any]]] = {
    "all weights": ({"hidden": 512, "layers": 8, "heads": 8}, 200, {"method": "dpo", "micro_batch": 4}),
    "all weights, one row": ({"hidden": 512, "layers": 8, "heads": 8}, 200, {"method": "dpo", "micro_batch": 1}),
    "an adapter": (
        {"hidden": 768, "layers": 8, "heads": 12},
        200,
        {"method": "dpo", "micro_batch": 4, "adapter": "lora"},
    ),
    "recomputed": (
        {"hidden": 512, "layers": 12, "heads": 8},
        200,
        {"method": "dpo", "micro_batch": 8, "gradient_checkpointing": True},
    ),
    "reward model": ({"hidden": 512, "layers": 8, "heads": 8}, 200, {"method": "bt-reward", "micro_batch": 4}),
}
"""Model, words of a response, and what the run is."""

CHILD = """
import json, os, sys
from pathlib import Path
import torch
import boresight as bs
from boresight.training import loop, memory

torch.set_num_threads(1)
words, memory.ROOM = json.loads(sys.argv[1]), int(sys.argv[2])
real, peaks = loop.train_step, []

def step(*args, **more):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    done = real(*args, **more)
    lines = Path("/proc/self/status").read_text().splitlines()
    peaks.append(1024 * int(next(x.split()[1] for x in lines if x.startswith("VmHWM"))))
    return done

loop.train_step = step
bs.train(**words, quiet=True)
Path("peaks.json").write_text(json.dumps(peaks))
"""


def prepare(folder: Path, model: dict[str, int], length: int) -> None:
    """A model in `base` with a vocabulary of 8,192, and 16 pairs of about equal lengths."""
    from boresight.lab.tiny import make_model

    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    lexicon = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6000)]

    def text(words: int) -> str:
        return " ".join(rng.choices(lexicon, k=words))

    make_model([" ".join(lexicon)] * 3 + [text(20_000)], folder / "base", vocab=8192, seed=0, **model)
    rows = [{"prompt": text(20), "chosen": text(length), "rejected": text(length)} for _ in range(16)]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(folder: Path, words: dict[str, Any], room: int) -> tuple[dict[str, int], int]:
    """What the run said before its first step, and its peak, in bytes. room: see `memory.ROOM`."""
    run = {"model": "base", "data": "prefs.jsonl", "out": f"run-{room}", "batch": 8, "max_steps": 3, "samples": 0}
    run |= {"trackers": "none", "proof": "off", "lr": 1e-4, **words}
    own = os.environ | {"BORESIGHT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", CHILD, json.dumps(run), str(room)], cwd=folder, env=own, check=True)
    said = json.loads((folder / f"run-{room}" / "run.json").read_text(encoding="utf-8"))["memory"]
    return said, max(json.loads((folder / "peaks.json").read_text(encoding="utf-8")))


def main() -> None:
    """Print a table in Markdown, MiB."""
    print("| run | program | estimate | peak, handed back | ratio of the rest | peak, as glibc keeps it |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name in sys.argv[1:] or SHAPES:
        model, length, words = SHAPES[name]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            prepare(folder, model, length)
            said, back = measure(folder, words, 10**9)
            kept_said, kept = measure(folder, words, 0)
        held, total = said["program"], said["together"]
        ratio = (total - held) / (back - held)
        # The program of the other process may be another; what is above it counts.
        kept += held - kept_said["program"]
        mib = [f"{n / (1 << 20):,.0f}" for n in (held, total, back, kept)]
        print(f"| {name} | {mib[0]} | {mib[1]} | {mib[2]} | {ratio:.2f} | {mib[3]} |", flush=True)


if __name__ == "__main__":
    main()
