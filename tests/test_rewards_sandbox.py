"""The sandbox against code that means harm, or is merely bad. No test needs a clock to be right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from boresight.errors import InputError, RunError
from boresight.rewards import sandbox
from boresight.rewards.sandbox import Limits, run_python

GENEROUS = Limits(cpu_s=10, wall_s=60)


@pytest.fixture(scope="module")
def unguarded():
    """What this system cannot keep from code: those tests are skipped, and say so."""
    return run_python("", limits=GENEROUS).unguarded


def guarded(unguarded, *what):
    missing = [w for w in what if w in unguarded]
    if missing:
        pytest.skip(f"this system cannot guard {missing}")


def refused(source):
    """The code ends with an OSError of its own."""
    found = run_python(source, limits=GENEROUS)
    assert found.ended == "failed", found
    assert "PermissionError" in found.stderr, found
    return found


def test_what_ends_well_and_what_does_not():
    found = run_python("import sys; print(input() + '!'); print('é', file=sys.stderr)", "hello\n", GENEROUS)
    assert (found.exit, found.ended, found.stdout, found.stderr) == (0, "finished", "hello!\n", "é\n")
    assert 0 < found.cpu_s < 10
    assert (run_python("raise SystemExit(3)").exit, run_python("raise SystemExit(3)").ended) == (3, "failed")
    broken = run_python("x = 1\ny = 1 / 0")
    assert (broken.exit, broken.ended) == (1, "failed")
    assert broken.stderr.startswith('Traceback (most recent call last):\n  File "main.py", line 2')  # no random folder
    assert "SyntaxError" in run_python("def").stderr
    assert run_python("import os; os.write(1, b'\\xff')").stdout == "�"
    assert run_python("import os; os.abort()").exit == -signal.SIGABRT
    assert run_python("import os; os.kill(os.getpid(), 9)", limits=GENEROUS).ended == "signal"


def test_an_infinite_loop_ends_by_its_processor_time():
    found = run_python("while True: pass", limits=Limits(cpu_s=0.3, wall_s=60))
    assert (found.ended, found.exit) == ("cpu", -signal.SIGKILL)
    hidden = run_python("import os\nos.close(1); os.close(2)\nwhile True: pass", limits=Limits(cpu_s=0.3, wall_s=60))
    assert hidden.ended == "cpu"
    polite = run_python(  # it catches what Python lets one catch
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        limits=Limits(cpu_s=0.3, wall_s=60),
    )
    assert polite.ended == "cpu"


def test_sleeping_ends_by_the_clock_and_keeps_what_was_written():
    found = run_python("print('so far', flush=True)\nimport time; time.sleep(600)", limits=Limits(wall_s=2.0))
    assert found.ended == "wall"
    assert found.stdout in ("so far\n", "")  # "" where two seconds were not enough to start


def test_waiting_for_input_gets_its_end():
    found = run_python("input()", limits=GENEROUS)
    assert found.ended == "failed"
    assert "EOFError" in found.stderr


def test_memory_is_bounded(unguarded):
    guarded(unguarded, "memory")
    hog = run_python("kept = []\nwhile True: kept.append(bytearray(10**7))", limits=Limits(10, 60, 256 * 2**20))
    assert hog.ended == "memory"
    assert run_python("bytearray(10**7); print('fits')", limits=Limits(10, 60, 256 * 2**20)).stdout == "fits\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_capped(stream):
    flood = run_python(
        f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", limits=Limits(10, 60, output_bytes=5000)
    )
    assert flood.ended == "output"
    assert getattr(flood, stream) == "x" * 5000
    exact = run_python(f"import sys\nsys.{stream}.write('x' * 5000)", limits=Limits(10, 60, output_bytes=5000))
    assert (exact.ended, getattr(exact, stream)) == ("finished", "x" * 5000)


def test_no_process_can_be_started_and_threads_can(unguarded):
    guarded(unguarded, "processes")
    bomb = "import os\nwhile True:\n    os.fork()"
    assert "fork" in refused(bomb).stderr
    refused("import subprocess\nsubprocess.run(['true'])")
    refused("import os\nos.posix_spawn('/bin/true', ['true'], {})")
    threads = "import threading\nt = threading.Thread(target=print, args=('in a thread',))\nt.start()\nt.join()"
    assert run_python(threads, limits=GENEROUS).stdout == "in a thread\n"


def test_there_is_no_network(unguarded):
    guarded(unguarded, "network")
    refused("import socket\nsocket.create_connection(('127.0.0.1', 9))")
    refused("import socket\nsocket.socket(socket.AF_UNIX)")


def test_the_parent_cannot_be_killed(unguarded):
    guarded(unguarded, "signals")
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        refused(f"import os\nos.kill({bystander.pid}, 9)")
        refused("import os\nos.kill(os.getppid(), 0)")  # 0: asks only, so that a fault here does not end the tests
        refused("import os\nos.kill(0, 0)")
        refused("import os\nos.pidfd_open(os.getppid())")
        refused("import resource, os\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


def test_limits_cannot_be_raised(unguarded):
    guarded(unguarded, "signals")
    source = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))"
    found = run_python(source, limits=GENEROUS)
    assert found.ended == "failed"
    assert "not allowed" in found.stderr


def test_files_outside_are_neither_written_nor_removed_nor_read(unguarded, tmp_path):
    guarded(unguarded, "files outside")
    kept = tmp_path / "kept.txt"
    kept.write_text("secret")
    for source in (
        f"open({str(kept)!r}, 'w')",
        f"open({str(kept)!r}, 'a')",
        f"open({str(tmp_path / 'new.txt')!r}, 'w')",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
        f"import os; os.symlink('/etc', {str(tmp_path / 'link')!r})",
        f"import os; os.symlink({str(kept)!r}, 'link'); open('link', 'w')",
        f"print(open({str(kept)!r}).read())",
        "import os; os.remove('../main.py')",
    ):
        assert "secret" not in refused(source).stdout
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    assert kept.read_text() == "secret"


def test_its_own_folder_is_there_for_it_and_gone_afterwards(monkeypatch):
    source = (
        "import os\nopen('a', 'w').write('text')\nos.mkdir('b')\nos.rename('a', 'b/a')\nprint(open('b/a').read())\n"
        "print(os.getcwd())\nos.chmod('b', 0)"
    )
    made: list[str] = []
    real = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    assert run_python(source, limits=GENEROUS).stdout.split() == ["text", "work"]
    assert len(made) == 1
    assert not Path(made[0]).exists()


def test_files_are_bounded():
    found = run_python("open('big', 'wb').write(bytes(10**6))", limits=Limits(10, 60, file_bytes=1000))
    assert found.ended == "failed"
    assert "File too large" in found.stderr


def test_secrets_of_the_environment_stay_here(monkeypatch, unguarded):
    monkeypatch.setenv("SECRET_KEY", "swordfish")
    found = run_python("import os\nprint(sorted(os.environ))", limits=GENEROUS)
    assert "SECRET_KEY" not in found.stdout
    assert set(eval(found.stdout)) <= {"PYTHONHASHSEED", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    if sys.platform == "linux":
        guarded(unguarded, "files outside")
        refused("import os\nprint(open(f'/proc/{os.getppid()}/environ').read())")


def test_sets_have_the_same_order_each_time():
    source = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    assert run_python(source, limits=GENEROUS).stdout == run_python(source, limits=GENEROUS).stdout


def test_nothing_stays_open():
    if sys.platform != "linux":
        pytest.skip("looks into /proc")
    before = len(os.listdir("/proc/self/fd"))
    for source in ("", "while True: pass", "1 / 0"):
        run_python(source, limits=Limits(cpu_s=0.2, wall_s=60))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", Limits.__slots__)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_must_be_positive(name, value):
    with pytest.raises(InputError, match=name):
        Limits(**{name: value})


def test_what_cannot_be_set_up_is_told(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="memory_bytes"):
        Limits(memory_bytes=2**20)
    monkeypatch.setattr(sandbox, "LAUNCHER", tmp_path / "absent.py")
    with pytest.raises(RunError, match="could not be set up"):
        run_python("print(1)", limits=GENEROUS)
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(RunError, match="Linux and macOS only"):
        run_python("print(1)")
