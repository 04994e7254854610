"""Runs in processes of their own, killed with SIGKILL at a chosen moment. A fork server has imported everything.

The production code knows nothing of this: a function is wrapped in the child, and at its n-th call the child kills
itself before it, after it, or halfway through what it writes.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = [
    "boresight.training.train",
    "boresight.training.loop",
    "boresight.training.proof",
    "boresight.training.trackers",
    "boresight.training.card",
    "boresight.data.read",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.generation.utils",
    "peft",
    "accelerate",
    "datasets",
]


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the n-th call of `target` (module:name.name): before it, after it, or with its file torn in two."""

    target: str
    call: int = 1
    when: str = "before"

    def __str__(self) -> str:
        return f"{self.when} {self.target.replace('boresight.', '')} #{self.call}"


LIMIT: int | None = None
"""Largest file in bytes that a child may write, for the full disk."""

PEAKS = False
"""Whether a child writes down the peak of its resident memory in each step, in bytes."""
SPACE: int | None = None
"""Bytes of address space that a child may still take once its job is prepared."""


def measure() -> None:
    """Write the peaks of memory in training steps to `peaks.json`."""
    from boresight.training import loop

    real, peaks = loop.train_step, []

    def step(*args: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")
        done = real(*args)
        status = Path("/proc/self/status").read_text().splitlines()
        peaks.append(1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM"))))
        Path("peaks.json").write_text(str(peaks))
        return done

    loop.train_step = step


def limit(space: int) -> None:
    """Give the steps of a run so much more address space than it has when they begin, and no more."""
    import resource

    from boresight.training import (
        loop,
        train,  # noqa: F401  (loads the loop)
    )

    real = loop.fit

    def fit(*args: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + space,) * 2)
        return real(*args)

    loop.fit = fit


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kill: Kill) -> None:
    module, _, path = kill.target.partition(":")
    *owners, name = path.split(".")
    holder: Any = importlib.import_module(module)
    for owner in owners:
        holder = getattr(holder, owner)
    real, calls = getattr(holder, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != kill.call:
            return real(*args, **kwargs)
        if kill.when == "torn line":  # (file, row): a line without its end
            args[0].write('{"step": 3, "lo')
            args[0].flush()
        elif kill.when == "torn file":  # (tensors, path): half of the file
            real(*args, **kwargs)
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        elif kill.when == "torn folder":  # (path): half of what is in it is gone
            files = sorted(p for p in Path(args[0]).rglob("*") if p.is_file())
            for file in files[: len(files) // 2]:
                file.unlink()
        elif kill.when == "after":
            real(*args, **kwargs)
        return die()

    setattr(holder, name, wrapped)


def work(folder: str, words: dict[str, Any], kill: Kill | None, limits: dict[str, Any]) -> None:
    """One run in `folder`, its own cache beside it. What went wrong is left in `error.txt`."""
    os.chdir(folder)
    os.environ["BORESIGHT_CACHE"] = str(Path(folder) / "cache")
    import torch

    import boresight as bs

    torch.set_num_threads(1)
    for where, value in limits.items():
        module, _, name = where.partition(":")
        setattr(importlib.import_module(module), name, value)
    if kill is not None:
        arm(kill)
    own = importlib.import_module("killing")
    if own.PEAKS:
        own.measure()
    if own.SPACE:
        own.limit(own.SPACE)
    if own.LIMIT:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (own.LIMIT,) * 2)
    try:
        bs.train(quiet=True, **words)
    except BaseException:
        Path("error.txt").write_text(traceback.format_exc())
        sys.exit(1)
    os._exit(0)


def start(folder: Path, words: dict[str, Any], kill: Kill | None = None, **limits: Any) -> Any:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    (folder / "error.txt").unlink(missing_ok=True)
    process = context.Process(target=work, args=(str(folder), words, kill, limits))
    process.start()
    return process


def run(folder: Path, words: dict[str, Any], kill: Kill | None = None, **limits: Any) -> int:
    """The exit code: 0, 1, or -9 where it was killed."""
    process = start(folder, words, kill, **limits)
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return int(process.exitcode)
