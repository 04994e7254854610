"""Bad input that needs a process of its own: an interrupt, a full disk, a folder that is read-only, a dead network."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bad_input import WORDS, pairs, squeezed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no POSIX signals and limits")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("world")
    make_model([WORDS] * 8, folder / "model", vocab=290, hidden=32, layers=2, heads=2)
    (folder / "data.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs(8)), "utf-8")
    return folder


def words(world: Path, out: Path, **options: object) -> list[str]:
    plain = {"method": "dpo", "model": world / "model", "data": world / "data.jsonl", "out": out, "lr": "1e-3"}
    plain |= {"batch": 4, "micro_batch": 4, "max_steps": 2, "samples": 0, "trackers": "none"} | options
    return [sys.executable, "-m", "boresight", "train", *(f"{k}={v}" for k, v in plain.items())]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return os.environ | {"BORESIGHT_CACHE": str(tmp_path / "cache"), "COLUMNS": "80"} | more


def hidden(folder: Path) -> list[Path]:
    """What was written aside and never renamed; a lock is no such thing."""
    return [p for p in folder.rglob(".*") if p.name != ".lock"]


def test_an_interrupt_leaves_130_and_a_run_that_can_be_resumed(world, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        words(world, out, max_steps=100_000, epochs=100_000, save_every=5, log_every=1),
        stderr=subprocess.PIPE, text=True, env=environment(tmp_path),
    )  # fmt: skip
    until = time.monotonic() + 90
    while not list(out.glob("checkpoints/step-*")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.rstrip().endswith("Interrupted.")
    assert "Traceback" not in err
    assert not (out / "model").exists()
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("room", [2_000, 60_000, 150_000])
def test_no_room_is_told_and_nothing_is_half_written(room, world, tmp_path):
    """A file may grow to so many bytes and no further, as on a full disk: in the cache, the store, or the weights."""
    out = tmp_path / "run"
    done = subprocess.run(
        words(world, out, save_every=1), capture_output=True, text=True, env=environment(tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    error = done.stderr[done.stderr.rfind("error: ") :]
    assert squeezed("too large") in squeezed(error.lower()) or "room" in error, error
    assert "mend:  " in error
    assert len(error.splitlines()) <= 24
    assert hidden(tmp_path) == []
    assert not (out / "model").exists()


def test_a_folder_that_is_read_only(world, tmp_path):
    """A file system of its own, mounted read-only: permissions alone do not stop root."""
    locked = tmp_path / "locked"
    locked.mkdir()
    command = subprocess.list2cmdline(words(world, locked / "run"))
    script = f"mount -t tmpfs -o ro,size=1m none {locked} && exec {command}"
    tried = (
        subprocess.run(["unshare", "-rm", "true"], capture_output=True) if Path("/usr/bin/unshare").exists() else None
    )
    if tried is None or tried.returncode:
        pytest.skip("no namespaces of one's own here")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert done.returncode == 2, done.stderr
    assert squeezed("locked/run") in squeezed(done.stderr)
    assert "Read-only file system" in " ".join(done.stderr.split())
    assert "mend:  " in done.stderr
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("line", [["check", "nobody/no-such-data"], ["train", "method=dpo", "model=nobody/no-such"]])
def test_a_hub_that_does_not_answer_is_told_within_seconds(line, world, tmp_path):
    """Retries of what cannot be reached would take half a minute. Port 9 of this machine is silent."""
    if line[0] == "train":
        line = [*line, f"data={world / 'data.jsonl'}", f"out={tmp_path / 'run'}"]
    env = environment(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf"))
    env = {k: v for k, v in env.items() if "proxy" not in k.lower()}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "boresight", *line], capture_output=True, text=True, env=env)
    seconds = time.monotonic() - started
    assert done.returncode == 2, done.stderr
    told = " ".join(done.stderr.split())
    assert "the hub (127.0.0.1) cannot be reached" in told
    assert "nobody/no-such" in told
    assert "Retry" not in told
    assert "mend: " in told
    assert seconds < 20, "imports take most of it; retries alone took 24 s"
    assert not (tmp_path / "run").exists()


def test_where_the_hub_answers_it_is_asked(monkeypatch):
    """The control of the test above: an answer, whatever it says, leaves the hub in use; and each is asked once."""
    from huggingface_hub import constants, utils

    from boresight.data import hub

    asked = []

    class Session:
        def head(self, endpoint: str, **_: object) -> None:
            asked.append(endpoint)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.test")
    monkeypatch.setattr(utils, "get_session", Session)
    monkeypatch.setattr(hub, "_asked", {})
    for _ in range(2):
        with hub.hub() as silent:
            assert silent == ""
            assert not constants.HF_HUB_OFFLINE
    assert asked == ["http://hub.test"]
    hub._asked["http://hub.test"] = (time.monotonic(), "the hub is away")
    with hub.hub() as silent:
        assert silent == "the hub is away"
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
