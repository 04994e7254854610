"""Running many claims, in one process or several."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from inspect import getsourcefile
from pathlib import Path

from boresight.errors import RunError
from boresight.lab.claimfiles import load_file
from boresight.lab.claimrun import Result, run_claim
from boresight.lab.claims import Claim


def run_claims(
    claims: Sequence[Claim],
    *,
    seeds: int | None = None,
    jobs: int | None = None,
    sweep: bool = False,
    progress: Callable[..., object] | None = None,
    each: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Run claims, each in one process with one torch thread; the results in the order of `claims`.

    jobs: how many processes at once; as many as processors by default. What a claim comes to does not depend on it.
    each(result) and then progress(1, note) are called as soon as one is done. Raises RunError if a process dies.
    """
    jobs = min(jobs or _processors(), len(claims))
    found: dict[str, Result] = {}

    def done(result: Result) -> None:
        found[result.key] = result
        if each is not None:
            each(result)
        if progress is not None:
            progress(1, f"{result.key}: {result.verdict}")

    if jobs <= 1:
        for one in claims:
            done(run_claim(one, seeds=seeds, sweep=sweep))
    else:
        _spread(claims, jobs, partial(_work, seeds=seeds, sweep=sweep), done)
    return [found[one.key] for one in claims]


def _spread(claims: Sequence[Claim], jobs: int, work: Callable[..., Result], done: Callable[[Result], None]) -> None:
    before = set(multiprocessing.active_children())
    # Not forked: torch's threads do not survive it.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_worker)
    try:
        waiting = [pool.submit(work, getsourcefile(one.function), one.key) for one in claims]
        for future in as_completed(waiting):
            done(future.result())
    except BrokenProcessPool:
        raise RunError("a process that ran claims died; it may have run out of memory", mend="try --jobs 1") from None
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _work(path: str, key: str, *, seeds: int | None, sweep: bool) -> Result:
    one = next(c for c in load_file(Path(path)) if c.key == key)
    return run_claim(one, seeds=seeds, sweep=sweep)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
