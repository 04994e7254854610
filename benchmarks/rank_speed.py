"""Seconds and peak memory of `boresight rank` with 1,000 bootstrap rounds.

    python benchmarks/rank_speed.py [SYSTEMS VOTES ...]     (BORESIGHT_DATA names the folder of real data)

llmfao-arena's human votes (59 systems, 6,194 votes), and made-up votes of as many systems and as many votes as are
asked for, on a prompt for each hundred, ranked by the command line in a process of its own: the start of Python,
reading and the page are in the time. The cache is empty at first; the second time the votes are found in it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(out: Path, systems: int, votes: int) -> None:
    rng = random.Random(0)
    with out.open("w", encoding="utf-8") as file:
        for k in range(votes):
            a, b = rng.sample(range(systems), 2)
            won = rng.random() < 1 / (1 + 10 ** ((a - b) / systems))
            row = {"prompt": f"prompt {k // 100}", "model_a": f"s{a}", "model_b": f"s{b}", "judge": f"j{k % 20}"}
            row |= {"response_a": f"answer {a}" * (1 + a % 5), "response_b": f"answer {b}" * (1 + b % 5)}
            file.write(json.dumps(row | {"winner": "model_a" if won else "model_b"}) + "\n")


def measure(path: Path, cache: Path) -> tuple[float, float, float]:
    """Seconds on the wall, seconds of processors, and MiB at the peak."""
    before = time.perf_counter()
    environment = os.environ | {"BORESIGHT_CACHE": str(cache)}
    words = [sys.executable, "-m", "boresight", "rank", str(path), "--html", str(cache / "arena.html")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"boresight rank failed: {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - before, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    here = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("BORESIGHT_DATA") or here.parent / "shared" / "data")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, page size {resource.getpagesize()}")
    numbers = [int(word) for word in sys.argv[1:]] or [20, 20_000, 100, 50_000]
    with tempfile.TemporaryDirectory() as folder:
        asked = [("llmfao-arena", data / "llmfao-arena" / "human_votes.csv.gz")]
        for systems, votes in zip(numbers[::2], numbers[1::2], strict=True):
            path = Path(folder) / f"{systems}-{votes}.jsonl"
            write(path, systems, votes)
            asked.append((f"{systems} systems, {votes:,} votes", path))
        for name, path in asked:
            for what in ("read from the file", "found in the cache"):
                wall, used, peak = measure(path, Path(folder) / "cache")
                print(f"{name}, {what}: {wall:.1f} s ({used:.1f} s of one core), {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
