"""Preparing the next micro-batch in the background while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

DEPTH = 1
"""Micro-batches that are prepared ahead; 0: none, all is done where it is asked for."""


class Ahead(Generic[K, V]):
    """`prepare(key)`, begun in one background thread before it is asked for.

    prepare: a pure function of its key that draws nothing at random. What it raises is raised by `get`, for that key.
    The thread begins with the first `get` and ends with `close`.
    """

    def __init__(self, prepare: Callable[[K], V]) -> None:
        self._prepare = prepare
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[K, Future[V]] = {}

    def get(self, key: K, then: Sequence[K] = ()) -> V:
        """What `prepare` makes of `key`; then: the keys that will be asked for next, the first of which is begun."""
        if not DEPTH:
            return self._prepare(key)
        wanted = [key, *then[:DEPTH]]
        for stale in [k for k in self._begun if k not in wanted]:
            self._begun.pop(stale).cancel()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="boresight-ahead")
        for k in wanted:
            if k not in self._begun:
                self._begun[k] = self._pool.submit(self._prepare, k)
        return self._begun.pop(key).result()

    def close(self) -> None:
        """End the thread; what it had begun is given up."""
        self._begun.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
