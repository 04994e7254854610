"""What runs inside the sandbox's process before the code does: limits are set, then the code takes its place.

A script on its own, that imports nothing of Boresight: `sandbox.py` starts it by its path. It writes what it could not
guard to a pipe, as JSON, and replaces itself with the interpreter that runs the code.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
CLONE_THREAD = 0x10000
NUMBERS = {
    # what is refused: fork, vfork, socket, ptrace, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, process_vm_readv and
    # _writev, setrlimit, unshare, setns
    "x86_64": (0xC000003E, [57, 58, 41, 101, 200, 129, 297, 310, 311, 160, 272, 308], 56, [62, 234], 302),
    "aarch64": (0xC00000B7, [198, 117, 130, 138, 240, 270, 271, 164, 97, 268], 220, [129, 131], 261),
}
"""By machine: its audit number, system calls that are refused, clone, kill and tgkill, prlimit64."""
EVERYWHERE = [424, 434, 438, 425]
"""Refused on all machines: pidfd_send_signal, pidfd_open, pidfd_getfd, io_uring_setup."""
CLONE3 = 435
WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
"""Landlock's rights that alter the file system: write, remove, make."""
READ = 1 << 2
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/opt", "/etc", "/nix", "/dev", "/proc/cpuinfo", "/proc/meminfo")


def no_more_rights(libc: Any) -> bool:
    """Give up gaining rights by exec, without which neither filter may be set by a plain user."""
    return bool(libc.prctl(38, 1, 0, 0, 0) == 0)


def filter_calls(libc: Any) -> bool:
    """Refuse new processes, sockets, and signals and limits for others, by a seccomp filter. False: the OS cannot."""
    if sys.platform != "linux" or platform.machine() not in NUMBERS or sys.maxsize < 2**32:
        return False
    arch, refused, clone, kills, prlimit = NUMBERS[platform.machine()]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if arch == NUMBERS["x86_64"][0]:
        code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]  # the other numbering, x32
    for number in refused + EVERYWHERE:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM)]
    code += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ENOSYS)]  # its flags cannot be read here; libc falls back to clone
    code += [(EQUAL, 0, 4, clone), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, EPERM)]
    for number in kills:  # only itself, whose id stays the same through exec
        code += [(EQUAL, 0, 4, number), (LOAD, 0, 0, 16), (EQUAL, 0, 1, os.getpid()), (RETURN, 0, 0, ALLOW)]
        code += [(RETURN, 0, 0, EPERM)]
    code += [(EQUAL, 0, 6, prlimit), (LOAD, 0, 0, 32), (EQUAL, 0, 3, 0), (LOAD, 0, 0, 36), (EQUAL, 0, 1, 0)]
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    return bool(libc.prctl(22, 2, head, 0, 0) == 0)


def lock_files(libc: Any, folder: str, readable: list[str]) -> bool:
    """Let files be written, made and removed only within `folder` (and /dev/null), and read only there, in `readable`
    and in the system's folders, by Landlock. False: it cannot.
    """
    if sys.platform != "linux" or platform.machine() not in NUMBERS:
        return False
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 3:  # before, truncating a file elsewhere could not be refused
        return False
    handled = READ | WRITES | 1 << 13 | 1 << 14  # and linking or renaming elsewhere, and truncating
    wanted = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    rules = libc.syscall(444, wanted, ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    places = {path: READ for path in (*SYSTEM, *readable) if os.path.exists(path)}
    for path, rights in {**places, folder: handled, "/dev/null": READ | 1 << 1 | 1 << 14}.items():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
        if libc.syscall(445, rules, 1, rule, 0) != 0:
            return False
        os.close(place)
    return bool(libc.syscall(446, rules, 0) == 0)


def main() -> None:
    """Arguments: a JSON object of limits, the interpreter, its arguments."""
    given = json.loads(sys.argv[1])
    missing: list[str] = []

    def limit(name: str, value: int, what: str) -> None:
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            missing.append(what)

    libc = ctypes.CDLL(None, use_errno=True)
    guarded = sys.platform == "linux" and no_more_rights(libc)
    if not (guarded and lock_files(libc, os.getcwd(), given["readable"])):
        missing.append("files outside")
    limit("RLIMIT_CORE", 0, "core files")
    limit("RLIMIT_NOFILE", 64, "open files")
    limit("RLIMIT_FSIZE", given["file_bytes"], "file size")
    limit("RLIMIT_CPU", given["cpu_s"], "cpu")
    limit("RLIMIT_AS", given["memory_bytes"], "memory")
    if not (guarded and filter_calls(libc)):
        missing.extend(["network", "signals"])
        if os.getuid() == 0:
            missing.append("processes")  # the limit on their number does not bind root
        else:
            limit("RLIMIT_NPROC", 0, "processes")
    os.write(given["tell"], json.dumps(missing).encode())
    os.close(given["tell"])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
