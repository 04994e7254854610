"""The live view: what it serves, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boresight.errors import InputError
from boresight.report.serve import REFRESH, Viewer
from report_runs import LOOKS, check_page, facts, make_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    make_run(root / "done")
    make_run(root / "deep" / "under way & more", facts(state="running", method="ipo"), LOOKS[:2])
    make_run(tmp_path / "secret", facts(method="SECRET"))
    (tmp_path / "secret.txt").write_text("SECRET")
    return root


@pytest.fixture
def viewer(folder: Path) -> Iterator[Viewer]:
    made = Viewer(folder)
    threading.Thread(target=made.serve, daemon=True).start()
    yield made
    made.close()


def ask(viewer: Viewer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def refresh(text: str) -> list[str | None]:
    return [m["content"] for m in check_page(text).metas if m.get("http-equiv") == "refresh"]


def test_index_names_runs_with_state_progress_and_metrics(viewer):
    status, text, _ = ask(viewer, "/")
    page = check_page(text)
    assert status == 200
    for words in ("done", "deep/under way & more", "finished: 30 of 30 steps", "running, at step 20 of 30", "0.6"):
        assert words in page.text, words
    assert '<progress max="30" value="20"' in text
    assert refresh(text) == [str(REFRESH)]
    assert refresh(ask(viewer, "/?live=off")[1]) == []
    for link in (link for link in page.links if link.startswith("/run/")):
        assert ask(viewer, link)[0] == 200


def test_run_under_way_is_live_and_a_finished_one_is_not(viewer, folder):
    way = "/run/deep/under%20way%20%26%20more"
    status, text, _ = ask(viewer, way)
    assert (status, refresh(text)) == (200, [str(REFRESH)])
    assert f'href="{way}?live=off"' in text
    assert refresh(ask(viewer, f"{way}?live=off")[1]) == []
    assert refresh(ask(viewer, "/run/done")[1]) == []
    make_run(folder / "deep" / "under way & more", facts(state="running", method="ipo"), LOOKS)
    assert "running, at step 30 of 30" in ask(viewer, way)[1]


def test_kept_page_is_made_anew_when_the_run_changes(viewer, folder):
    assert "finished: 30 of 30" in ask(viewer, "/run/done")[1]
    make_run(folder / "done", facts(), LOOKS[:2])
    assert "finished: 20 of 30" in ask(viewer, "/run/done")[1]


def test_runs_side_by_side(viewer):
    status, text, _ = ask(viewer, "/compare?run=done&run=deep%2Funder+way+%26+more&run=done&run=nothing")
    assert status == 200
    assert "Methods side by side" in check_page(text).text
    assert ask(viewer, "/compare")[0] == 400
    assert ask(viewer, "/compare?run=../secret")[0] == 400


def test_folder_that_is_itself_a_run(folder):
    viewer = Viewer(folder / "done")
    assert viewer.answer("/run/done", {})[0] == 200
    viewer._server.server_close()


PATHS = [
    "/run/../secret",
    "/run/../../secret",
    "/run/%2e%2e/secret",
    "/run/%2e%2e%2fsecret",
    "/run/..%5csecret",
    "/run/%252e%252e/secret",
    "/run/done/../../secret",
    "/run/done/run.json",
    "/run/link",
    "/run//SECRETPATH",
    "/run/SECRETPATH",
    "/run/%00",
    "/run/",
    "/run",
    "//etc/passwd",
    "/etc/passwd",
    "/../secret.txt",
    "/run/done%00.html",
    "/%ff%fe",
    "/favicon.ico",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_folder(viewer, folder, path):
    (folder / "link").symlink_to(folder.parent / "secret")
    status, text, _ = ask(viewer, path.replace("SECRETPATH", str(folder.parent / "secret")))
    assert status == 404
    check_page(text)
    assert "SECRET" not in text


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "samples.jsonl", "evaluation.json"])
def test_files_that_are_links_out_of_the_folder_are_not_read(viewer, folder, name):
    away = folder.parent / "secret" / name
    if not away.exists():
        away.write_text(json.dumps({"words": ["SECRET"]}))
    (folder / "done" / name).unlink(missing_ok=True)
    (folder / "done" / name).symlink_to(away)
    status, text, _ = ask(viewer, "/run/done")
    assert status == 500
    assert "leads elsewhere" in text
    assert "SECRET" not in text
    assert "SECRET" not in ask(viewer, "/")[1]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("LOCALHOST:9000", 200),  # through a tunnel
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:80:80", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        (":80", 403),
        ("0.0.0.0", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(viewer, host, status):
    answer = ask(viewer, "/run/done", Host=host)
    assert answer[0] == status
    assert ("finished" in answer[1]) == (status == 200)


def test_requests_without_or_with_two_hosts_are_refused(viewer):
    for head in ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", viewer.port), timeout=20) as line:
            line.sendall(head.encode())
            assert b" 403 " in line.makefile("rb").readline()
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=20) as line:
        line.sendall(b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in line.makefile("rb").readline()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_reading_is_answered(viewer, method):
    assert ask(viewer, "/", method)[0] == 501


def test_head_is_the_head_alone(viewer):
    status, text, headers = ask(viewer, "/run/done", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000


def test_headers_keep_pages_to_this_machine(viewer):
    headers = ask(viewer, "/")[2]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Access-Control-Allow-Origin"] is None
    assert "Python" not in str(headers)


def test_it_listens_on_the_loopback_address_alone(viewer):
    assert viewer._server.server_address[0] == "127.0.0.1"
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {a for a in addresses if a.startswith("127.")}:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, viewer.port), timeout=5)


def test_damaged_run_is_told_and_harms_no_other(viewer, folder):
    (folder / "damaged").mkdir()
    (folder / "damaged" / "run.json").write_text("{")
    status, text, _ = ask(viewer, "/")
    assert status == 200
    assert "damaged/run.json cannot be read" in check_page(text).text
    assert ask(viewer, "/run/damaged")[0] == 500
    assert ask(viewer, "/run/done")[0] == 200


def test_folder_that_vanishes_is_told(viewer, folder):
    folder.rename(folder.parent / "elsewhere")
    status, text, _ = ask(viewer, "/")
    assert status == 500
    assert "is not a folder" in check_page(text).text


def test_silent_request_stops_nobody_else(viewer):
    with socket.create_connection(("127.0.0.1", viewer.port)):
        assert ask(viewer, "/")[0] == 200


def test_many_ask_at_once(viewer):
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(viewer, "/run/done")[0])) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert answers == [200] * 12


@pytest.mark.parametrize("port", [-1, 70_000])
def test_port_that_is_none_is_an_input_error(folder, port):
    with pytest.raises(InputError, match=f"port {port} cannot be had"):
        Viewer(folder, port)


def test_port_in_use_is_an_input_error(viewer, folder):
    with pytest.raises(InputError, match=f"port {viewer.port} cannot be had") as raised:
        Viewer(folder, viewer.port)
    assert "--port" in raised.value.mend


def test_folder_that_is_none_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        Viewer(tmp_path / "nowhere")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_command_line_prints_the_address_and_leaves_in_peace(folder, words):
    command = [sys.executable, "-m", "boresight", "view", str(folder), *words]
    environment = {**os.environ, "COLUMNS": "80"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    with subprocess.Popen(command, **pipes, preexec_fn=listen) as work:
        assert work.stdout is not None
        assert work.stderr is not None
        said = "".join(work.stdout.readline() for _ in range(3 if words else 1))
        url = json.loads(said)["url"] if words else said.strip()
        assert url.startswith("http://127.0.0.1:")
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        started = time.monotonic()
        work.send_signal(signal.SIGINT)
        assert work.wait(20) == 0
        assert time.monotonic() - started < 10
        assert "Traceback" not in work.stderr.read()
