"""Running a piece of Python in a process of its own, with limits, and telling how it ended."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boresight.errors import InputError, RunError

Ended = Literal["finished", "failed", "cpu", "wall", "memory", "output", "signal"]
LAUNCHER = Path(__file__).with_name("_sandboxed.py")
LEAST_MEMORY = 64 * 2**20
_TICK = 0.005


@dataclass(frozen=True, slots=True)
class Limits:
    """What a piece of code may use.

    cpu_s, wall_s: seconds of processor and of clock, start of the interpreter included (about 0.1 s). Without Linux
    the processor's seconds are rounded up to whole ones. memory_bytes: address space, at least 64 MiB. file_bytes: of
    each file that it writes. output_bytes: of stdout and of stderr, each.
    Raises InputError for a limit that is not positive, or too little memory for an interpreter.
    """

    cpu_s: float = 5.0
    wall_s: float = 10.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**20
    output_bytes: int = 2**16

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"the limit {name} is {value}", mend="give a positive number")
        if self.memory_bytes < LEAST_MEMORY:
            raise InputError(f"memory_bytes is {self.memory_bytes}", mend=f"give at least {LEAST_MEMORY}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a piece of code ended.

    exit: its exit status; negative: the signal that ended it. ended: why: "finished" (status 0), "failed" (another
    status), "signal", or the limit that stopped it: "cpu", "wall", "memory" (Python's MemoryError was not caught),
    "output". stdout, stderr: what it wrote, up to the limit; bytes that are no UTF-8 are replaced. cpu_s: seconds of
    processor, start of the interpreter included. unguarded: what this system could not keep from the code.
    """

    exit: int
    ended: Ended
    stdout: str
    stderr: str
    cpu_s: float
    unguarded: tuple[str, ...] = ()


def run_python(source: str, stdin: str = "", limits: Limits | None = None) -> Outcome:
    """Run Python source in a process of its own and tell how it ended.

    It has its own session, an empty temporary folder to work in, which is removed, no environment but PYTHONHASHSEED=0
    (so that sets have the same order each time; Python itself adds LC_CTYPE), `stdin` and then its end, the limits of
    `limits`, and no core files. On Linux (x86-64, ARM64), without any privilege: it cannot start processes (threads it
    can), open sockets, signal or trace others, raise its limits (seccomp), write, make or remove files outside its
    folder, or read others than the interpreter's and the system's (Landlock, Linux 6.2 or newer; so not your home, and
    not /proc). What the system cannot do of this stands in `Outcome.unguarded`: "processes", "network", "signals",
    "files outside", "memory", ...; the code is run all the same, so look there before trusting.

    What it does not protect against: this is a guard against mistakes and cheap tricks of generated code, no security
    boundary. Where Landlock is missing ("files outside") it reads and writes what you can. With it, it still reads
    /usr, /etc and installed packages, lists folders, reads its own source, fills the temporary folder with many files,
    changes the mode or times of your files, uses shared memory, and may attack the kernel. Code that you know to be
    hostile belongs into a virtual machine.

    Raises RunError where the system has no such limits at all (Windows), or the process could not be set up.
    """
    if os.name != "posix":
        raise RunError("code is run with limits on Linux and macOS only", mend="run it there, or in a container")
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="boresight-run-", ignore_cleanup_errors=True) as folder:
        work = Path(folder).resolve() / "work"
        work.mkdir()
        main, given = work.parent / "main.py", work.parent / "stdin"
        main.write_bytes(source.encode("utf-8", "replace"))
        given.write_bytes(stdin.encode("utf-8", "replace"))
        hear, tell = os.pipe()
        try:
            with given.open("rb") as feed:
                process = _start(limits, main, work, feed.fileno(), tell)
            os.close(tell)
            tell = -1
            ended, exit_status, cpu_s, written = _watch(process, limits)
            told = os.read(hear, 65536)
        finally:
            os.close(hear)
            if tell >= 0:
                os.close(tell)
        out, err = (text.decode("utf-8", "replace").replace(f"{work.parent}/", "") for text in written)
        if not told:
            if ended in ("wall", "cpu"):
                return Outcome(exit_status, ended, out, err, cpu_s, ("all: it was stopped before it began",))
            raise RunError(f"the process for the code could not be set up: {err.strip()[-500:]}")
        unguarded = tuple(json.loads(told))
    if ended == "failed" and err.rstrip().rpartition("\n")[2].startswith("MemoryError"):
        ended = "memory"
    return Outcome(exit_status, ended, out, err, cpu_s, unguarded)


def _libraries() -> list[str]:
    paths = sysconfig.get_paths()
    return [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def _start(limits: Limits, main: Path, work: Path, stdin: int, tell: int) -> subprocess.Popen[bytes]:
    told = {
        "tell": tell,
        "cpu_s": math.ceil(limits.cpu_s),
        "memory_bytes": int(limits.memory_bytes),
        "file_bytes": int(limits.file_bytes),
        "readable": [str(work.parent), sys.prefix, sys.base_prefix, sys.exec_prefix, *_libraries()],
    }
    python = sys.executable
    return subprocess.Popen(
        [python, "-I", "-S", "-B", str(LAUNCHER), json.dumps(told), python, "-s", "-P", "-B", "-X", "utf8", str(main)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=work,
        env={"PYTHONHASHSEED": "0"},
        pass_fds=(tell,),
        start_new_session=True,
    )


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> tuple[Ended, int, float, list[bytes]]:
    """Read what it writes until it ends or must be ended: why it did, its status, cpu seconds, and two outputs."""
    deadline = time.monotonic() + limits.wall_s
    written: dict[int, bytearray] = {}
    stopped: Ended | None = None
    status: tuple[int, float] | None = None
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as waiting:
        for pipe in (process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
            waiting.register(pipe, selectors.EVENT_READ)
            written[pipe.fileno()] = bytearray()
        try:
            while True:
                status = _ended(process)  # before the last reading, so that nothing written is missed
                _read(waiting, written, limits.output_bytes, 0.0 if status else _TICK)
                if any(len(text) > limits.output_bytes for text in written.values()):
                    stopped = "output"
                elif status is None and time.monotonic() > deadline:
                    stopped = "wall"
                elif status is None and _cpu(process.pid) > limits.cpu_s:
                    stopped = "cpu"
                if stopped or status:
                    break
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            while status is None:
                status = _ended(process)
                time.sleep(0 if status else _TICK / 5)
            process.stdout.close()
            process.stderr.close()
    code, cpu_s = status
    ended: Ended = "finished" if code == 0 else "failed" if code > 0 else "signal"
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and cpu_s >= limits.cpu_s:
        ended = "cpu"
    return stopped or ended, code, cpu_s, [bytes(text[: limits.output_bytes]) for text in written.values()]


def _read(waiting: selectors.BaseSelector, written: dict[int, bytearray], most: int, wait: float) -> None:
    """Take what there is, up to a byte more than `most` of each, and drop pipes at their end."""
    if not waiting.get_map():
        time.sleep(wait)
        return
    for key, _ in waiting.select(wait):
        text = written[key.fd]
        while len(text) <= most:
            try:
                piece = os.read(key.fd, min(65536, most + 1 - len(text)))
            except BlockingIOError:
                break
            if not piece:
                waiting.unregister(key.fileobj)
                break
            text += piece


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, float] | None:
    """The exit status and the cpu seconds, once the process has ended."""
    found, status, used = os.wait4(process.pid, os.WNOHANG)
    if not found:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def _cpu(pid: int) -> float:
    """Seconds of processor that a running process has used; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0.0
    try:
        return time.clock_gettime(~pid << 3 | 2)  # the id of a process's clock, as clock_getcpuclockid makes it
    except OSError:
        return 0.0
