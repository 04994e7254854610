"""Endpoints: any server that speaks OpenAI's chat completions, asked with patience, a budget and a cache."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boresight.data.cells import plain
from boresight.errors import BoresightError, InputError, RunError
from boresight.judging.endpoint_cache import VERSION, Cache, digest
from boresight.judging.endpoint_retry import MOST_ASKED, Budget, Clock, backoff, retry_after
from boresight.judging.endpoint_wire import (
    KEYS,
    Message,
    Reply,
    Settings,
    Token,
    address,
    estimate,
    excerpt,
    is_local,
    key_for,
    read_reply,
    scrubbed,
)

LARGEST = 4 << 20
"""Bytes of a reply that are read; a longer one is an error."""
PATIENCE = 8
"""So many questions may fail before the first answer."""

Advance = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered, or with `error` why it did not. key: the address in the cache; calls: requests sent.

    text: None where the server answered without text. Counts of tokens: None where the server does not tell.
    """

    key: str
    text: str | None = None
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    served_by: str | None = None
    cached: bool = False
    calls: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """Messages and how to sample the answer. repeat: tells identical questions apart, which are asked anew."""

    messages: Sequence[Message]
    settings: Settings = field(default_factory=Settings)
    repeat: int = 0


class OutOfBudget(Exception):
    """The budget is used up."""


class _Stopped(Exception):
    """Another question ended the run."""


class _Failed(Exception):
    """A request that came to nothing. again: worth repeating; wait: the seconds the server asks for."""

    def __init__(self, why: str, *, again: bool = True, wait: float | None = None) -> None:
        super().__init__(why)
        self.why, self.again, self.wait = why, again, wait


class Endpoint:
    """A model behind an address. Use it as a context, or call `close`.

    url: of the server's API, such as http://127.0.0.1:8000/v1. key_env: the environment variable with the key, see
    `endpoint_wire.key_for`; it is sent to this address alone and stands nowhere else. timeout: seconds without a byte,
    and of a reply from its head to its last byte. retries: how often a request that failed is repeated (timeouts,
    broken connections, 408, 409, 425, 429, 5xx, replies that cannot be read). concurrency: requests under way at once.
    budget: what may be spent. cache: its folder; False keeps nothing and finds nothing.

    Raises InputError if the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 4,
        budget: Budget | None = None,
        cache: str | Path | bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        import httpx

        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise InputError(
                f"timeout={timeout}, retries={retries}, concurrency={concurrency}",
                mend="give timeout > 0, retries >= 0, concurrency >= 1",
            )
        if not model.strip():
            raise InputError("endpoint: no model is named", mend="give the name that the server knows it by")
        self.url, self.model = address(url), model
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        self.budget = budget or Budget()
        self.cache = None if cache is False else Cache(None if cache is True else cache)
        self.clock = clock or Clock()
        self._key = key_for(self.url, key_env)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._not_before = 0.0
        self._answered = self._failures = 0
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=timeout,
            follow_redirects=False,  # the key is for this address
            trust_env=not is_local(self.url),  # proxies are for other machines
            limits=httpx.Limits(max_connections=concurrency),
        )

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.model!r})"

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def address_of(self, question: Question) -> str:
        """Where the answer is kept: told by server, model, messages, settings and repetition."""
        return digest(
            {
                "version": VERSION,
                "endpoint": self.url,
                "model": self.model,
                "messages": [dict(m) for m in question.messages],
                "settings": question.settings.request(),
                "repeat": question.repeat,
            }
        )

    def ask(self, question: Question) -> Answer:
        """The answer: the kept one, or the server's. What fails for good has `error`.

        Raises OutOfBudget where the budget is used up, InputError where the server refuses key, model or address, and
        RunError where the first PATIENCE questions have all failed.
        """
        key = self.address_of(question)
        kept = self.cache.get(key) if self.cache else None
        answer = _kept(key, kept) if kept else None
        if answer is not None:
            return answer
        body = {"model": self.model, "messages": [dict(m) for m in question.messages], **question.settings.request()}
        payload = json.dumps(body, allow_nan=False).encode()
        about, calls = estimate(question.messages, question.settings), 0
        while True:
            self._wait()
            if not self.budget.take(about):
                raise OutOfBudget
            used, calls = 0, calls + 1
            try:
                reply = self._send(payload)
                counts = (reply.prompt_tokens, reply.completion_tokens)
                used = about if None in counts else sum(c for c in counts if c is not None)
                break
            except _Failed as failed:
                wait = backoff(calls - 1, self.clock.chance())
                if failed.wait is not None:
                    wait = max(wait, failed.wait)
                if not failed.again or calls > self.retries or wait > MOST_ASKED:
                    more = f"; it asks for a pause of {wait:.0f} s" if wait > MOST_ASKED else ""
                    return self._gave_up(key, f"{failed.why}{more}", calls)
                if failed.wait is not None:  # the server speaks of the client, not of this question
                    with self._lock:
                        self._not_before = max(self._not_before, self.clock.now() + wait)
                else:
                    self.clock.sleep(wait, self._stop)
            finally:
                self.budget.settle(about, used)
        with self._lock:
            self._answered += 1
        if self.cache:
            self.cache.put(key, self._record(question, reply))
        return _answer(key, reply, calls)

    def ask_all(self, questions: Sequence[Question], advance: Advance | None = None) -> list[Answer | None]:
        """The answers in the order of the questions, `concurrency` at a time; None where the budget was used up.

        Questions that are alike, with the same repetition, are asked once.
        Whatever was answered before an interruption or error is in the cache. Raises what `ask` raises.
        """
        answers: list[Answer | None] = [None] * len(questions)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="boresight-judge")
        try:
            places: dict[str, list[int]] = {}
            for place, question in enumerate(questions):
                places.setdefault(self.address_of(question), []).append(place)
            asked = {pool.submit(self._pooled, questions[same[0]]): same for same in places.values()}
            for done in as_completed(asked):
                try:
                    answer = done.result()
                except (OutOfBudget, _Stopped):  # who stopped the run raises what it stopped for
                    continue
                for place in asked[done]:
                    answers[place] = answer
                if advance is not None:
                    advance(len(asked[done]))
        except BaseException:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            pool.shutdown(wait=True)  # requests under way are waited for: their answers are paid for, and kept
            self._stop.clear()
        return answers

    def _pooled(self, question: Question) -> Answer:
        """`ask`, which ends the whole run where it raises what no other question would be spared."""
        try:
            return self.ask(question)
        except BoresightError:
            self._stop.set()
            raise

    def _wait(self) -> None:
        """Until the server may be asked again. Raises _Stopped if the run has ended meanwhile."""
        while not self._stop.is_set():
            with self._lock:
                left = self._not_before - self.clock.now()
            if left <= 0:
                return
            self.clock.sleep(left, self._stop)
        raise _Stopped

    def _gave_up(self, key: str, why: str, calls: int) -> Answer:
        with self._lock:
            self._failures += 1
            if not self._answered and self._failures >= PATIENCE:
                raise RunError(
                    f"{self.url}: the first {self._failures} questions have failed; the last: {why}",
                    mend="see that the server runs and knows the model and the settings; then start again",
                )
        return Answer(key, calls=calls, error=why)

    def _send(self, payload: bytes) -> Reply:
        """One request. Raises _Failed, or InputError where no other question would fare better."""
        import httpx

        end = time.monotonic() + self.timeout
        try:
            with self._client.stream(
                "POST", self.url, content=payload, headers={"Content-Type": "application/json"}
            ) as response:
                body, status = bytearray(), response.status_code
                asked = retry_after(response.headers.get("retry-after"), self.clock.wall())
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > LARGEST:
                        raise _Failed(f"a reply of more than {LARGEST >> 20} MiB", again=False)
                    if time.monotonic() > end:
                        raise _Failed(f"no whole reply within {self.timeout:g} s")
        except httpx.TimeoutException:
            raise _Failed(f"no reply within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            said = plain(scrubbed(" ".join(str(error).split()), self._key))[:200]
            raise _Failed(f"{type(error).__name__}: {said}") from None
        if status == 200:
            try:
                return read_reply(bytes(body), self._key)
            except ValueError as error:
                raise _Failed(str(error)) from None
        self._refused(status, excerpt(bytes(body), self._key), asked)
        raise AssertionError("every other status is refused")

    def _refused(self, status: int, said: str, asked: float | None) -> None:
        if status in (401, 403):
            mend = f"set the key in the environment as {KEYS[0]}, or name its variable with key_env"
            raise InputError(f"{self.url} refuses the key, or wants one ({status}): {said}", mend=mend)
        if status == 404:
            mend = "give the API's address up to /v1, and a model that the server lists under /v1/models"
            raise InputError(f"{self.url} knows no such address or model {self.model!r} (404): {said}", mend=mend)
        if 300 <= status < 400:
            raise InputError(f"{self.url} sends its clients elsewhere ({status})", mend="give the final address")
        again = status in (408, 409, 425, 429) or status >= 500
        raise _Failed(f"status {status}: {said}", again=again, wait=asked if again else None)

    def _record(self, question: Question, reply: Reply) -> dict[str, Any]:
        """What is kept of an answer; pictures by their digest."""
        return {
            "endpoint": self.url,
            "model": self.model,
            "settings": question.settings.request(),
            "repeat": question.repeat,
            "messages": [{**m, "content": _told(m["content"])} for m in question.messages],
            "text": reply.text,
            "tokens": [[t.text, t.logprob, [list(x) for x in t.top]] for t in reply.tokens],
            "finish": reply.finish,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "served_by": reply.served_by,
        }


def _told(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [p if p.get("type") == "text" else {"type": p.get("type"), "digest": digest(p)} for p in content]


def _answer(key: str, reply: Reply, calls: int) -> Answer:
    return Answer(
        key, reply.text, reply.tokens, reply.finish, reply.prompt_tokens, reply.completion_tokens, reply.served_by,
        calls=calls,
    )  # fmt: skip


def _kept(key: str, kept: Mapping[str, Any]) -> Answer | None:
    """The answer in a file of the cache; None where it is damaged."""
    try:
        tokens = tuple(Token(t, float(lp), tuple((str(a), float(b)) for a, b in top)) for t, lp, top in kept["tokens"])
        text, finish, served = kept["text"], kept["finish"], kept["served_by"]
        if any(not (value is None or isinstance(value, str)) for value in (text, finish, served)):
            return None
        return Answer(key, text, tokens, finish, kept["prompt_tokens"], kept["completion_tokens"], served, cached=True)
    except (KeyError, TypeError, ValueError):
        return None
