"""`view`: the reports of a folder of runs on this machine, live while they train.

Listens on 127.0.0.1 alone. A page is looked up by name among the runs that were found, so that no request can name a
file. A Host other than this machine is refused, so that no other site's page can read it through a name of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from boresight.errors import BoresightError, InputError
from boresight.report.page import look, page, policy, report_page, state
from boresight.report.runs import Record, find_runs, read_run
from boresight.report.words import as_number

HOST = "127.0.0.1"
NAMES = {"127.0.0.1", "localhost", "[::1]"}
"""What this machine may be called in a request; any port, as a tunnel may lead here."""
REFRESH = 10
"""Seconds between two readings of a run that is under way."""
KEPT = 32
"""Pages kept until a file of theirs changes."""
PATIENCE = 30.0
"""Seconds that a request may take to arrive."""

FILES = ("run.json", "metrics.jsonl", "samples.jsonl", "evaluation.json")
SHOWN = ("loss", "accuracy", "eval_loss", "eval_accuracy", "margin", "chosen_gain", "rejected_gain")
"""Metrics of the index."""


class Viewer:
    """A server for one folder of runs. `url` is where it listens; `serve` works until `close` is called elsewhere."""

    def __init__(self, folder: str | Path, port: int = 0) -> None:
        """Raises InputError if there is no such folder, or if the port cannot be had."""
        self.folder = Path(folder)
        find_runs(self.folder)
        self._pages: dict[Any, tuple[int, str]] = {}
        self._lock = threading.Lock()
        viewer = self

        class Handler(_Handler):
            answers = viewer

        try:
            self._server = ThreadingHTTPServer((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"port {port} cannot be had: {reason}", mend="give another --port, or 0 for a free one"
            ) from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}/"

    def serve(self) -> None:
        """Answer until `close`."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop answering and give the port back."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, str]:
        """Status and page of a request; path: as it came, without the query."""
        live = query.get("live", [""])[0] != "off"
        runs = find_runs(self.folder)
        if path == "/":
            return 200, self._index(runs, live)
        if path == "/compare":
            names = [n for n in dict.fromkeys(query.get("run", [])) if n in runs]
            if not names:
                return 400, _problem("No run was chosen", "Go back and choose the runs to put side by side.")
            return self._report(
                {n: runs[n] for n in names}, f"/compare?{'&'.join('run=' + _quoted(n) for n in names)}", live
            )
        name = unquote(path.removeprefix("/run/")).removesuffix("/") if path.startswith("/run/") else None
        if name in runs:
            return self._report({name: runs[name]}, f"/run/{_quoted(name)}", live)
        return 404, _problem("There is no such page", "The index names every run.")

    def _index(self, runs: Mapping[str, Path], live: bool) -> str:
        rows = [self._row(name, path) for name, path in runs.items()]
        under_way = any(r["under_way"] for r in rows) or not rows
        return page(
            "index.html",
            folder=self.folder.resolve().name,
            rows=rows,
            metrics=[m for m in SHOWN if any(m in r["last"] for r in rows)],
            refresh=REFRESH if live and under_way else None,
            live="/?live=off" if live and under_way else "/",
        )

    def _row(self, name: str, path: Path) -> dict[str, Any]:
        empty = {
            "name": name,
            "href": f"/run/{_quoted(name)}",
            "under_way": False,
            "last": {},
            "alarms": 0,
            "problem": "",
        }
        try:
            record = read_run(path, name=name, root=self.folder)
        except BoresightError as error:
            return empty | {"problem": _local(error.what, self.folder)}
        last = {k: as_number(v) for k, v in record.last().items()}
        return empty | {
            "method": record.method,
            "state": state(record),
            "look": look(record),
            "under_way": _under_way(record),
            "step": record.step,
            "steps": record.steps,
            "last": last,
            "alarms": len(record.alarms),
            "seed": record.facts.get("seed"),
        }

    def _report(self, runs: Mapping[str, Path], here: str, live: bool) -> tuple[int, str]:
        key = (here, live, *(_stamp(path) for path in runs.values()))
        with self._lock:
            kept = self._pages.get(key)
        if kept:
            return kept
        try:
            records = [read_run(path, name=name, root=self.folder) for name, path in runs.items()]
        except BoresightError as error:
            return 500, _problem(_local(error.what, self.folder), error.mend)
        moving = any(_under_way(r) for r in records)
        off = f"{here}{'&' if '?' in here else '?'}live=off"
        made = report_page(records, live=off if moving and live else here, refresh=REFRESH if moving and live else None)
        if not any(not r.finished for r in records):  # what is said of a run under way depends on the hour
            with self._lock:
                while len(self._pages) >= KEPT:
                    self._pages.pop(next(iter(self._pages)))
                self._pages[key] = (200, made)
        return 200, made


def view(folder: str | Path, port: int = 0, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve the reports of a folder of runs on 127.0.0.1 until Ctrl-C. port: 0 takes a free one.

    ready: called with the address once it listens.
    Raises InputError if there is no such folder, or if the port cannot be had.
    """
    viewer = Viewer(folder, port)
    if ready:
        ready(viewer.url)
    # Serving in a thread of its own leaves Ctrl-C to this one, which can then end the other in order.
    worker = threading.Thread(target=viewer.serve, daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(timeout=3600)
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with pages; anything else is refused."""

    answers: Viewer
    timeout = PATIENCE
    protocol_version = "HTTP/1.0"
    server_version = "boresight"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a page."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with a page's head."""
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        if not _local_host(self.headers.get_all("Host") or []):
            return self._send(403, _problem("This page is for this machine only", ""), body)
        parts = urlsplit(self.path)
        if parts.scheme or parts.netloc:
            return self._send(400, _problem("Not a request for this machine", ""), body)
        try:
            status, text = self.answers.answer(parts.path, parse_qs(parts.query, max_num_fields=600))
        except BoresightError as error:
            status, text = 500, _problem(error.what, error.mend)
        except ValueError:
            status, text = 400, _problem("Not a request that this page can make", "")
        return self._send(status, text, body)

    def _send(self, status: int, text: str, body: bool) -> None:
        data = text.encode("utf-8", errors="replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", f"{policy()}; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if body:
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                return  # the reader has gone

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are nobody's business: nothing is logged."""


def _local_host(hosts: list[str]) -> bool:
    """Whether the request was meant for this machine by a name that nobody else can own."""
    if len(hosts) != 1:
        return False
    name, _, port = hosts[0].strip().lower().rpartition(":") if not hosts[0].endswith("]") else (hosts[0], "", "")
    if not name:
        name, port = port, ""
    return name in NAMES and (port == "" or port.isdigit())


def _under_way(record: Record) -> bool:
    return record.facts["state"] == "running" and record.stopped is None


def _stamp(folder: Path) -> tuple[Any, ...]:
    """What changes whenever a file of the run does."""
    stamps = []
    for name in FILES:
        try:
            found = (folder / name).stat()
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)


def _problem(what: str, mend: str) -> str:
    return page("problem.html", what=what, mend=mend, at=time.strftime("%H:%M:%S"))


def _local(text: str, folder: Path) -> str:
    """A message without the part of its paths that everybody who looks knows already."""
    return text.replace(f"{folder}/", "")


def _quoted(name: str) -> str:
    return quote(name, safe="/")
