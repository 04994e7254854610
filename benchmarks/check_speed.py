"""Rows a second and peak memory of `boresight check` without a model.

    python benchmarks/check_speed.py [ROWS ...]     (BORESIGHT_DATA names the folder of real data)

hh-helpful's training pairs, repeated with a suffix of their own on either side so that no two are equal, are written
to a file and checked by the command line in a process of its own: reading, all findings, both models and the output
are in the time, the start of Python too. The cache is empty at first; the second time the data is found in it.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(source: Path, out: Path, rows: int) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    with out.open("w", encoding="utf-8") as file:
        for number in range(rows):
            pair = pairs[number % len(pairs)]
            again = {"chosen": f"{pair['chosen']} ({number})", "rejected": f"{pair['rejected']} ({number})"}
            file.write(json.dumps(again) + "\n")


def measure(path: Path, cache: Path) -> tuple[float, float, float]:
    """Seconds on the wall, seconds of processors, and MiB at the peak."""
    before = time.perf_counter()
    environment = os.environ | {"BORESIGHT_CACHE": str(cache)}
    words = [sys.executable, "-m", "boresight", "check", str(path), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: it found errors, as it should in these data
        raise SystemExit(f"boresight check failed: {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - before, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    here = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("BORESIGHT_DATA") or here.parent / "shared" / "data")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, page size {resource.getpagesize()}")
    for rows in [int(word) for word in sys.argv[1:]] or [12_500, 50_000, 100_000]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.jsonl"
            write(data / "hh-helpful" / "train.jsonl.gz", path, rows)
            for what in ("read from the file", "found in the cache"):
                wall, used, peak = measure(path, Path(folder) / "cache")
                print(f"{rows:>7,} rows, {what}: {wall:5.1f} s, {rows / wall:7,.0f} rows/s", end="")
                print(f" ({used:5.1f} s of one core, {rows / used:7,.0f} rows/s), {peak:4.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
