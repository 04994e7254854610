"""A scripted server of chat completions on 127.0.0.1, and a clock without time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from boresight.judging.endpoint_retry import Clock


@dataclass
class Said:
    """One reply. close: hang up instead. pause: seconds before it. flood: bytes of filling. drip: seconds a byte."""

    text: str | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False
    pause: float = 0.0
    flood: int = 0
    drip: float = 0.0
    logprobs: Any = None
    usage: tuple[int, int] | None = (10, 2)

    def bytes(self) -> bytes:
        if self.body is not None:
            return self.body
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        if self.logprobs is not None:
            choice["logprobs"] = {"content": self.logprobs}
        reply: dict[str, Any] = {"model": "scripted-1", "choices": [choice]}
        if self.usage is not None:
            reply["usage"] = {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
        return json.dumps(reply).encode()


Script = Callable[[int, dict[str, Any]], Said | str]
"""What to reply to request number n (from 0) with this body."""


class Server:
    """What was asked of it: `bodies`, `headers`; `most` requests were under way at once."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.now = self.most = 0
        self.lock, self.ended = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                outer.reply(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append({k.lower(): v for k, v in handler.headers.items()} | {"path": handler.path})
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            said = self.script(number, body)
            said = Said(said) if isinstance(said, str) else said
            if said.pause:
                self.ended.wait(said.pause)
            if said.close:
                handler.close_connection = True
                handler.connection.close()
                return
            self.send(handler, said)
        except OSError:
            handler.close_connection = True  # the client has gone
        finally:
            with self.lock:
                self.now -= 1

    def send(self, handler: BaseHTTPRequestHandler, said: Said) -> None:
        content = said.bytes()
        handler.send_response(said.status)
        for name, value in said.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content) + said.flood))
        handler.end_headers()
        if said.drip:
            for k in range(len(content)):
                handler.wfile.write(content[k : k + 1])
                if self.ended.wait(said.drip):
                    return
            return
        handler.wfile.write(content)
        for _ in range(said.flood // 65536):
            handler.wfile.write(b" " * 65536)


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    """The server, for as long as the context lasts."""
    server = Server(script)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join(timeout=5)


class Quick(Clock):
    """Sleeping takes no time and is written down."""

    def __init__(self, chance: float = 0.5) -> None:
        self.time, self.slept, self.luck = 1000.0, [], chance
        self.lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1_700_000_000.0

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        with self.lock:
            self.slept.append(seconds)
            self.time += seconds

    def chance(self) -> float:
        return self.luck
