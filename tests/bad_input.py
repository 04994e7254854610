"""What the tests of bad input share: a small world to spoil, and a register of ways to spoil it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = "red blue cat dog sat ran on under the a mat hill sun"


@dataclass
class Here:
    """The folder of one case, with a model, pairs and a finished run that the cases may copy and spoil."""

    folder: Path
    model: Path
    make_run: Callable[[], Path]

    @property
    def run(self) -> Path:
        """A finished run of two steps, made when it is first asked for."""
        return self.make_run()

    def file(self, name: str, content: str | bytes = b"") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    def rows(self, *rows: Any, name: str = "data.jsonl", times: int = 1) -> Path:
        return self.file(name, "".join(json.dumps(row) + "\n" for row in rows) * times)

    def good(self, count: int = 8) -> Path:
        return self.rows(*pairs(count), name="good.jsonl")

    def copy(self, name: str = "model", of: Path | None = None) -> Path:
        return Path(shutil.copytree(of or self.model, self.folder / name))

    def edit(self, file: str, name: str = "model", **values: Any) -> Path:
        """A copy of the model, with these keys of one of its JSON files set, or with None removed."""
        folder = self.folder / name
        path = (folder if folder.exists() else self.copy(name)) / file
        held = json.loads(path.read_text("utf-8")) | values
        path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}), "utf-8")
        return folder

    def train(self, *words: str, **options: Any) -> list[str]:
        """A command line that trains for one step, unless the options say otherwise."""
        plain = {"method": "dpo", "model": self.model, "data": None, "out": self.folder / "run", "lr": "1e-3"}
        plain |= {"batch": 4, "micro_batch": 4, "max_steps": 1, "samples": 0, "trackers": "none"} | options
        if plain["data"] is None:
            plain["data"] = self.good()
        return ["train", *words, *(f"{k}={v}" for k, v in plain.items() if v != "")]


@dataclass(frozen=True)
class Case:
    """A command line, and what its error must hold: the exit code, and words (blanks do not count)."""

    line: list[str]
    says: tuple[str, ...] = ()
    code: int = 2
    env: dict[str, str] = field(default_factory=dict)
    seconds: float = 60.0


Maker = Callable[[Here], Case]
CASES: dict[str, Maker] = {}


def case(name: str) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        assert name not in CASES, name
        CASES[name] = maker
        return maker

    return register


def plain_case(name: str, line: Callable[[Here], list[str]], *says: str, code: int = 2, **more: Any) -> None:
    """A case that fits on one line."""
    case(name)(lambda here: Case(line(here), says, code, **more))


def pairs(count: int) -> list[dict[str, str]]:
    words = WORDS.split()
    made = []
    for i in range(count):
        chosen = f"{words[i % 13]} {words[(i + 5) % 13]} {words[(i * 7 + 1) % 13]}"
        made.append({"prompt": f"say {i}", "chosen": chosen, "rejected": words[(i * 3 + 2) % 13]})
    return made


def snapshot(*roots: Path) -> dict[str, str]:
    """Every file and folder below the roots, with the digest of what is in it."""

    def walk(root: Path) -> Iterator[tuple[str, str]]:
        for where, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name != "__pycache__"]  # Python's own, of a user's module
            yield from ((os.path.join(where, name) + "/", "") for name in folders)
            for name in files:
                path = Path(where, name)
                if path.is_symlink():
                    yield str(path), str(path.readlink())
                    continue
                regular = path.is_file() and os.stat(path).st_size < 1 << 26
                yield str(path), hashlib.blake2b(path.read_bytes()).hexdigest() if regular else "special"

    return dict(pair for root in roots for pair in walk(root))


def squeezed(text: str) -> str:
    """Without blanks and line breaks, since messages are folded at the width of the terminal."""
    return "".join(text.split())


def error_of(text: str) -> str:
    """From the error on: progress and settings may stand before it."""
    start = text.rfind("\nerror: ")
    return text[start + 1 :] if start >= 0 else text
