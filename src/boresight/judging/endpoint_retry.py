"""When to ask an endpoint again: backoff with jitter, what the server asks for, and a budget of calls and tokens."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from boresight.errors import InputError

FIRST, LONGEST = 0.5, 30.0
"""Seconds before the first repetition, and the most before any."""
MOST_ASKED = 120.0
"""Seconds: a server that asks for a longer pause is not waited for."""


class Clock:
    """Time, sleep and chance, so that tests can do without them."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Wait, but not longer than until `stop` is set."""
        stop.wait(seconds)

    def chance(self) -> float:
        """A number drawn from [0, 1)."""
        return random.random()


def backoff(attempt: int, chance: float) -> float:
    """Seconds before repetition `attempt` (from 0): FIRST * 2^attempt, at most LONGEST, times 0.5 + chance / 2.

    chance: in [0, 1), drawn anew each time, so that clients that failed together do not come back together.
    """
    return min(LONGEST, FIRST * 2.0 ** min(attempt, 30)) * (0.5 + chance / 2)


def retry_after(header: str | None, wall: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date against `wall` (seconds since 1970).

    None where there is no header or it cannot be read; never negative.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(wall, UTC)).total_seconds())


@dataclass
class Budget:
    """What may be spent at most: requests sent, repetitions too, and tokens of prompts and answers. None: no bound.

    Tokens are reserved before a request, by an estimate, and settled by what the server reports: the bound is kept
    as well as the estimate is. Once anything was refused, everything is. Raises InputError for a negative bound.
    """

    calls: int | None = None
    tokens: int | None = None
    called: int = 0
    spent: int = 0
    closed: bool = False
    _reserved: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        for name, bound in (("calls", self.calls), ("tokens", self.tokens)):
            if bound is not None and bound < 0:
                raise InputError(f"a budget of {bound} {name}", mend="give 0 or more, or leave it out")

    def take(self, tokens: int) -> bool:
        """Whether one more request of about `tokens` may be sent; if so it counts as sent."""
        with self._lock:
            over = self.tokens is not None and self.spent + self._reserved + tokens > self.tokens
            if self.closed or over or (self.calls is not None and self.called >= self.calls):
                self.closed = True
                return False
            self.called += 1
            self._reserved += tokens
            return True

    def settle(self, reserved: int, used: int) -> None:
        """A request that had `reserved` tokens used so many."""
        with self._lock:
            self._reserved -= reserved
            self.spent += used
