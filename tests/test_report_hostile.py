"""Rows that attack whoever reads the report: nothing of them becomes markup, no script runs, no request leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boresight.report.serve import Viewer
from boresight.report.write import report
from report_runs import LOOKS, check_page, facts, make_run

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=4000 --dump-dom"

ATTACKS = (
    "<script>document.title='TAKEN';fetch('BEACON/script')</script>",
    "<img src=BEACON/img onerror=\"document.title='TAKEN'\">",
    "\"><svg onload=\"document.title='TAKEN';fetch('BEACON/svg')\">",
    "' onmouseover='document.title=`TAKEN`' autofocus onfocus='document.title=`TAKEN`' x='",
    "</style><style>body{background:url(BEACON/css)}</style>",
    "</title></head><script src=BEACON/src.js></script>",
    "<a href=\"javascript:document.title='TAKEN'\">javascript:document.title='TAKEN'</a>",
    "<iframe srcdoc=\"<script>parent.document.title='TAKEN'</script>\" src=BEACON/frame></iframe>",
    "<link rel=stylesheet href=BEACON/sheet><meta http-equiv=refresh content='0;url=BEACON/meta'><base href=BEACON/>",
    "<!-- --><!--> <script>document.title='TAKEN'</script> -->]]><![CDATA[",
    "{{ 7 * 191 }}{% include '/etc/passwd' %}${7*191}<%= 7*191 %>",
    "&lt;script&gt;document.title='TAKEN'&lt;/script&gt;&#60;script&#62;",
    "\u202egnitirw tfel-ot-thgir \u2066 \u200b\u200f\ufeff",
    "control \x00\x01\x07\x1b[31m\x9b\x85\u2028\u2029 end",
)


def attack(beacon: str) -> str:
    return "\n".join(a.replace("BEACON", beacon) for a in ATTACKS)


def hostile_run(folder: Path, beacon: str, markup: str | None = None) -> Path:
    """A run that says `markup` wherever a run can say anything."""
    x = attack(beacon) if markup is None else markup
    long = "<b>" + "A" * 200_000 + x
    about = facts(
        method=x,
        paper=x,
        reference=x,
        state=x,
        seed=x,
        recipe={"method": x, "model": x, "data": x, "eval_data": x, x: x, "beta": [x, {x: x}]},
        settings=[{"name": x, "value": x, "source": x}, {"name": "beta", "value": [x], "source": None}, x],
        template={"template": x, "identity": x, "end_of_turn": {"token": x}},
        versions={x: x},
        alarms=[f"step 3, fatal, {x}: {x}\n  mend: {x}", x, {x: x}],
        proof=[{"name": x, "residual": x, "tolerance": x, "verdict": x, "words": x}],
    )
    about["data"] |= {"source": x, "format": x, "unused": [x], "skipped": 1, "fingerprint": x}
    about["data"]["problems"] = [{"file": x, "line": 1, "key": x, "expected": x, "found": long}]
    about["rows"] |= {"kind": x, "dropped": {x: 2}, "first": {x: [x]}, "fingerprint": x}
    looks = [look | {x: 1.0, f"eval_{x}": 2.0, f"sample_{x}": 3.0} for look in LOOKS]
    texts = {
        "sample/0": [(0, f"{x}\n\n---\n\n{x}"), (30, f"{x}\n\n---\n\nnow {x}")],
        f"sample/{x}": [(0, long), (30, x + long)],
    }
    measure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "meaning": x}
    evaluation = {"model": x, "data": x, "reference": x, "measures": {x: measure}, "words": [x, x]}
    about["recipe"]["adapter"] = "half a character: \ud800"
    run = make_run(folder, about, looks, texts, evaluation)
    with (run / "samples.jsonl").open("a") as file:
        file.write(json.dumps({"step": 0, "tag": "sample/1", "text": "half a character: \udfff"}) + "\n")
    return run


NAMES = ('<img src=x onerror="document.title=1">', "\"><svg onload='document.title=1'>", "a&lt;b\u202e\x07")


def test_nothing_of_a_hostile_run_becomes_markup(tmp_path):
    runs = [hostile_run(tmp_path / name, "http://127.0.0.1:9") for name in NAMES]
    for given in (runs[:1], runs):
        done = report(given, tmp_path / f"{len(given)}.html")
        assert done.size < 5_000_000
        page = check_page(done.path.read_text(encoding="utf-8"))
        # It is shown, not swallowed: as text, to the letter.
        for shown in ("<script>document.title='TAKEN'", "{{ 7 * 191 }}", "javascript:document.title", "&lt;script&gt;"):
            assert page.text.count(shown) > 10, shown
        assert "1337" not in page.text
        assert "gnitirw" in page.text
        assert "\\u202e" in page.text
        assert "\\ud800" in page.text
        assert "\\x1b[31m" in page.text
        assert "more characters" in page.text
        assert not any("127.0.0.1" in link or "javascript" in link for link in page.links)


def test_the_check_of_pages_sees_what_it_is_there_to_see(tmp_path):
    """The control: each attack, put into a page as it is, is found."""
    done = report([make_run(tmp_path / "run")], tmp_path / "page.html")
    clean = done.path.read_text(encoding="utf-8")
    check_page(clean)
    for one in ATTACKS[:9]:
        with pytest.raises(AssertionError):
            check_page(clean.replace("<h1>", f"<h1><i title=''>{one}</i>"))


class Beacon:
    """A server that notes every request; what a page asks for ends up here."""

    def __init__(self) -> None:
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(200)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(b"document.title = 'TAKEN'")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    made = Beacon()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def browse(tmp_path):
    """The page as Chromium has it after its scripts have run and its requests have been made: its title and markup."""
    if BROWSER is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium")
        pytest.skip("no Chromium on this machine")

    def load(url: str) -> tuple[str, str]:
        words = [BROWSER, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", url]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, errors="replace")
        found = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)
        assert found, done.stderr[-2000:]
        return found[1], done.stdout

    return load


def test_chromium_runs_no_script_and_asks_for_nothing(tmp_path, beacon, browse):
    run = hostile_run(tmp_path / "run", beacon.url)
    done = report([run, make_run(tmp_path / "good")], tmp_path / "page.html")
    title, markup = browse(done.path.as_uri())
    assert title.endswith("- Boresight")
    assert not title.startswith("TAKEN")
    assert 'class="chart"' in markup
    assert beacon.seen == []


def test_chromium_runs_nothing_even_where_escaping_is_gone(tmp_path, beacon, browse):
    """The second wall: with the attacks put in raw, the page's policy alone stops scripts and requests."""
    done = report([make_run(tmp_path / "run")], tmp_path / "page.html")
    clean = done.path.read_text(encoding="utf-8")
    raw = "".join(a for a in ATTACKS[:8] if "</title>" not in a).replace("BEACON", beacon.url)
    done.path.write_text(clean.replace("<main>", f"<main>{raw}"), encoding="utf-8")
    title, markup = browse(done.path.as_uri())
    assert "<svg onload" in markup
    assert title == "dpo - Boresight"
    assert beacon.seen == []


def test_chromium_would_run_them_without_both_walls(tmp_path, beacon, browse):
    """The control: the same attacks in a page without policy do run, and do reach the beacon."""
    done = report([make_run(tmp_path / "run")], tmp_path / "page.html")
    clean = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", done.path.read_text(encoding="utf-8"))
    raw = "".join(a for a in ATTACKS[:8] if "</title>" not in a).replace("BEACON", beacon.url)
    done.path.write_text(clean.replace("<main>", f"<main>{raw}"), encoding="utf-8")
    title, _ = browse(done.path.as_uri())
    assert title == "TAKEN"
    assert {"/img", "/svg", "/css"} <= set(beacon.seen)


def test_chromium_in_the_live_view_runs_nothing_either(tmp_path, beacon, browse):
    hostile_run(tmp_path / "runs" / NAMES[0], beacon.url)
    hostile_run(tmp_path / "runs" / "run", beacon.url)
    viewer = Viewer(tmp_path / "runs")
    threading.Thread(target=viewer.serve, daemon=True).start()
    try:
        assert browse(viewer.url)[0] == "runs - Boresight"
        title, markup = browse(f"{viewer.url}run/run")
    finally:
        viewer.close()
    assert title.endswith("- Boresight")
    assert "TAKEN" not in title[:5]
    assert 'class="chart"' in markup
    assert beacon.seen == []
