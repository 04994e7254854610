"""Fuzz the readers: whatever a file holds, reading it gives examples or a clean InputError, and nothing else.

    pip install atheris && python fuzz/read_fuzz.py --minutes 10

With atheris (libFuzzer) the inputs are guided by the coverage of `boresight.data`; without it, or with --plain, the
same seeds are mutated blindly. What fails is kept in `fuzz/found/` and named; `python fuzz/read_fuzz.py FILE...` tries
it again. An input is one byte for the kind of file, and the file.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

FOUND = Path(__file__).parent / "found"
KINDS = ("a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz")
LONGEST = 1 << 14
"""Bytes of an input: enough for several rows of each form."""
SLOW = 10.0
"""Seconds after which an input of that size counts as a hang."""


def seeds() -> list[bytes]:
    """A few whole files of each kind and form, as inputs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    forms = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "weight": 2, "annotator": "x"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": turns[:1], "chosen": turns[1:], "rejected": turns[1:]},
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": "q", "responses": ["a", "b"], "scores": [1.5, {"helpfulness": 2}], "systems": ["m", "n"]},
        {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]},
        {"prompt": "q", "response_a": "a", "response_b": "b", "model_a": "m", "model_b": "n", "winner": "tie"},
        {"messages": turns},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt_text": "q", "responses": [{"text": "a"}, {"text": "b"}], "pairs": [{"chosen": 0, "rejected": 1}]},
        {"input": "q", "output_1": "a", "output_2": "b", "label": 1},
        {"instruction": "q", "response1": "a", "response2": "b", "human": [1, 2, 0]},
        {"text_a": "a", "text_b": "b", "preferred_text": "text_a"},
    ]
    made: list[bytes] = []

    def add(kind: str, content: bytes) -> None:
        made.append(bytes([KINDS.index(kind)]) + content)

    for row in forms:
        line = json.dumps(row, ensure_ascii=False).encode()
        add("a.jsonl", line + b"\n" + line)
        add("a.json", b"[" + line + b", " + line + b"]")
        add("a.json", json.dumps({"data": [row, row]}).encode())
        add("a.json", json.dumps({key: [value] for key, value in row.items()}).encode())
        cells = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
        add("a.csv", (",".join(row) + "\n" + ",".join('"' + c.replace('"', '""') + '"' for c in cells)).encode())
        add("a.jsonl.gz", gzip.compress(line, mtime=0))
        try:
            table = pa.Table.from_pylist([row, row])
        except pa.ArrowException:  # a list of several types has no place in a table
            continue
        for compression in ("none", "snappy"):
            sink = io.BytesIO()
            pq.write_table(table, sink, compression=compression)
            add("a.parquet", sink.getvalue())
    return made


class Target:
    """Reads one input after the other in a folder of its own, and raises what must not be raised."""

    def __init__(self) -> None:
        room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="boresight-fuzz-", dir=room))
        self.read = self.refused = 0

    def __call__(self, data: bytes) -> None:
        """Read the file that `data` stands for. Raises AssertionError, or whatever the readers should not."""
        from boresight.data.read import read
        from boresight.data.table import ReadReport
        from boresight.data.write import write
        from boresight.errors import InputError

        if not data:
            return
        name, content = KINDS[data[0] % len(KINDS)], data[1 : 1 + LONGEST]
        if name.endswith(".gz") and not content.startswith(b"\x1f\x8b"):
            content = gzip.compress(content, 1, mtime=0)  # so that mutations reach what lies inside, too
        path, cache = self.folder / name, self.folder / "cache"
        path.write_bytes(content)
        started = time.monotonic()
        try:
            examples = read(path, cache=cache)
            report = examples.report
            assert len(examples) == report.read > 0
            assert ReadReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
            assert all(line.isprintable() for line in report.lines()), report.lines()
            held = list(examples)
            back = self.folder / "back.jsonl"
            assert write(held, back) == len(held)
            assert list(read(back, cache=cache, strict=True)) == held
            self.read += 1
        except InputError as error:
            self.refused += 1
            told = error
        else:
            told = None
        finally:
            shutil.rmtree(cache, ignore_errors=True)
        if told is not None:
            assert told.mend, told
            assert len(str(told)) < 4000, told
            assert all(line.isprintable() for line in str(told).splitlines()), ascii(str(told))
        assert time.monotonic() - started < SLOW, f"{time.monotonic() - started:.0f} s"

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def mutated(source: list[bytes], draw: random.Random) -> bytes:
    """One of the seeds, with a few bytes changed, cut, doubled, or taken from another."""
    data = bytearray(draw.choice(source))
    for _ in range(draw.randint(1, 8)):
        at, size = draw.randrange(len(data) + 1), draw.randint(0, 16)
        other = draw.choice(source)
        start = draw.randrange(len(other))
        data[at : at + draw.choice((0, size))] = draw.choice(
            (b"", draw.randbytes(size), other[start : start + size], bytes(data[at : at + size]) * 2, draw.choice(ODD))
        )
    return bytes(data[: 1 + LONGEST]) or b"\0"


ODD = [
    b'"', b"\\", b"\\ud800", b"\xff", b"\0", b"\n", b"\r", b"\xef\xbb\xbf", b"NaN", b"1e999", b"9" * 400, b"null",
    b"[" * 99, b'{"a":' * 99,
    b"\x1b[2J", "\u202e".encode(), "\u2028".encode(), b",", b"}", b"]", b"-0", b"true", b'""', b'"\n"',
]  # fmt: skip


def keep(data: bytes, error: BaseException) -> Path:
    """Write a failing input down."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{type(error).__name__}-{abs(hash(data)):x}"
    path.write_bytes(data)
    return path


def plain(seconds: float, seed: int) -> int:
    """Mutate the seeds blindly for so long; the number of inputs that fail, each kept."""
    target, source, draw = Target(), seeds(), random.Random(seed)
    end, failed, tried = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        data = source[tried] if tried < len(source) else mutated(source, draw)
        tried += 1
        try:
            target(data)
        except Exception as error:
            failed += 1
            print(f"{type(error).__name__}: {error}\n  kept as {keep(data, error)}", file=sys.stderr)
    print(f"{tried} inputs: {target.read} read, {target.refused} refused, {failed} failed")
    target.close()
    return failed


def guided(seconds: float, seed: int) -> None:
    """Let libFuzzer search for so long; leaves the process, with a code other than 0 at the first failure."""
    import atheris

    with atheris.instrument_imports(include=["boresight.data"]):
        import boresight.data.read
        import boresight.data.write  # noqa: F401
    target, corpus = Target(), Path(tempfile.mkdtemp(prefix="boresight-corpus-"))
    for number, data in enumerate(seeds()):
        (corpus / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:
            print(f"kept as {keep(data, error)}", file=sys.stderr)
            raise

    words = ["", str(corpus), f"-max_total_time={int(seconds)}", f"-max_len={1 + LONGEST}", f"-seed={seed}"]
    words += ["-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={FOUND}/"]
    FOUND.mkdir(exist_ok=True)
    atheris.Setup(words, one)
    atheris.Fuzz()


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", help="inputs that were kept, to be tried again")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="without coverage, though atheris is installed")
    given = parser.parse_args()
    if given.files:
        target = Target()
        for file in given.files:
            print(file)
            target(Path(file).read_bytes())
        return 0
    if not given.plain:
        try:
            import atheris  # noqa: F401
        except ImportError:
            print("atheris is not installed: mutating blindly", file=sys.stderr)
        else:
            guided(60 * given.minutes, given.seed)
            return 0
    return int(plain(60 * given.minutes, given.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
