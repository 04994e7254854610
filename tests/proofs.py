"""Runs made ready on small models, for the tests of the step-zero proof: everything but the first step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import tiny
from boresight.data.tokens import Row, Tokens
from boresight.engine.proof import Line
from boresight.training.distributed import start
from boresight.training.job import Job
from boresight.training.material import precision
from boresight.training.prepare import prepare
from boresight.training.proof import prove
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter
from words import WORDS, sentence


def write_prefs(path: Path, count: int = 24, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)

    rows = [
        {"prompt": sentence(rng), "chosen": sentence(rng) + " now", "rejected": sentence(rng)} for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_family(family: str, folder: Path, *, vocab: int = 300, **settings: Any) -> Path:
    """A tiny model of the family beside the lab's tokenizer, its ids in the configuration."""
    from boresight.lab.tiny import byte_tokenizer

    tokenizer = byte_tokenizer([" ".join(WORDS)] * 8, vocab)
    ids = {f"{s}_token_id": getattr(tokenizer, f"{s}_token_id") for s in ("bos", "eos", "pad")}
    model = tiny.tiny(family, vocab_size=len(tokenizer), **ids, **settings)
    model.generation_config.eos_token_id = ids["eos_token_id"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def job_of(model: Any, data: Any, out: Any = "never", **words: Any) -> Job:
    """A run as `train` prepares it."""
    recipe = Recipe.read(None, **{"method": "dpo", "model": model, "data": data, "out": out, **words})
    reporter = Reporter(console=Console(quiet=True), quiet=True)
    return prepare(recipe, reporter, start(recipe, bf16=precision(recipe)))


def lines_of(job: Job, **options: Any) -> dict[str, Line]:
    return {line.name: line for line in prove(job, **options)}


def failing(lines: dict[str, Line]) -> list[str]:
    """The names of the lines that fail, the first one first."""
    return [name for name, line in lines.items() if line.verdict == "fails"]


class Altered:
    """Rows with something done to each of them when it is read."""

    def __init__(self, rows: Any, change: Callable[[Tokens], Tokens]) -> None:
        self.rows, self.change = rows, change

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        sequences = tuple(self.change(t) for t in row.sequences)
        return Row(sequences, row.weight, row.desirable, row.index, row.source)
