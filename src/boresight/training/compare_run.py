"""One run of a comparison: trained by the production loop or gone on with, then measured once on held-out data."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boresight.data.example import Message
from boresight.data.spans import Content
from boresight.data.table import Examples
from boresight.data.views import pairs
from boresight.dotted import told as said
from boresight.errors import InputError
from boresight.training.compute import Scorer
from boresight.training.evaluate import Evaluation, on_pairs
from boresight.training.folder import FREE, UNTRAINED, write_whole
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter
from boresight.training.train import train

MEASURED = "measured.json"
"""In a run's folder: its figures for each held-out pair and each sample."""
Gold = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
"""gold(prompts, responses) -> rewards. A prompt is text, or a list of {"role", "content"}."""


class GoldError(InputError):
    """The gold reward cannot be had: no run is to blame, and none can be measured."""


@dataclass
class Measurer:
    """Measures policies on the same held-out data, with one reference that is loaded once.

    name: of the held-out data. key: names what is measured, so that figures of something else are not taken for
    these. samples, tokens: prompts that are sampled, and the longest sample.
    """

    examples: Examples
    name: str
    reference: str
    options: dict[str, Any]
    samples: int
    tokens: int
    batch: int
    gold: tuple[str, Gold] | None
    key: str
    reporter: Reporter
    _scorer: Scorer | None = None

    def of(self, path: Path, model: str, seed: int, *, margins: bool = True) -> dict[str, Any]:
        """The figures of a model, from the file at `path` where they are there already; else measured and written.

        margins: also those of the held-out pairs; without, of samples alone.
        """
        known = _read(path)
        if known.get("key") != self.key:
            known = {"key": self.key, **self._measured(model, seed, path.parent if margins else None)}
            write_whole(path, json.dumps(known, ensure_ascii=False))
        if self.gold is not None and known.get("samples") and known.get("gold", {}).get("name") != self.gold[0]:
            known["gold"] = {"name": self.gold[0], "reward": self._gold(known["samples"])}
            write_whole(path, json.dumps(known, ensure_ascii=False))
        return known

    def _measured(self, model: str, seed: int, run: Path | None) -> dict[str, Any]:
        started = time.monotonic()
        if self._scorer is None:
            self._scorer = Scorer(
                model, self.reference, self.options, batch=self.batch, seed=seed, reporter=Reporter(quiet=True)
            )
        else:
            self._scorer.turn_to(model, seed)
        found: dict[str, Any] = {}
        told = Evaluation(model, self.name, self.reference)
        if run is not None and any(pairs(e) for e in self.examples):
            table = self._scorer.pairs(self.examples)
            measures, words = on_pairs(table)
            told.measures.extend(measures)
            told.words.extend(words)
            figures = {name: values for name, values, _ in (*table.margins, *table.values)}
            found["pairs"] = {
                "prompt": [named(p) for p in table.prompts],
                "growth": [c - r for c, r in zip(table.chosen_chars, table.rejected_chars, strict=True)],
                "margin": _rounded(figures["margin"]),
                "own_margin": _rounded(figures["accuracy (mean log-prob)"]),
                "chosen_gain": _rounded(figures["chosen gain"]),
                "rejected_gain": _rounded(figures["rejected gain"]),
            }
        drawn = self._scorer.draw(self.examples, self.samples, self.tokens) if self.samples else None
        if drawn is not None:
            assert drawn.kl is not None
            found["samples"] = {
                "prompt": [named(p) for p in drawn.names],
                "asked": [spoken(p) for p in drawn.prompts],
                "text": [s.text for s in drawn.samples],
                "length": [s.length for s in drawn.samples],
                "ends": [s.ends for s in drawn.samples],
                "kl": _rounded(drawn.kl),
            }
            told.measures.extend(drawn.measures(self.tokens))
        if run is not None:  # for the report on the run
            write_whole(run / "evaluation.json", json.dumps(told.to_dict(), indent=1))
        return found | {"seconds": round(time.monotonic() - started, 3)}

    def _gold(self, samples: Mapping[str, Any]) -> list[float]:
        assert self.gold is not None
        name, function = self.gold
        try:
            rewards = [float(r) for r in function(samples["asked"], samples["text"])]
        except InputError as error:
            raise GoldError(f"gold {name}: {error.what}", mend=error.mend) from None
        except Exception as error:  # it is somebody's own
            raise GoldError(f"gold {name} fails: {said(error)}", mend="mend it; what was trained is kept") from None
        if len(rewards) != len(samples["text"]) or not np.isfinite(rewards).all():
            raise GoldError(
                f"gold {name} gave {len(rewards)} rewards for {len(samples['text'])} responses, or one is not finite",
                mend="return one finite number for each response",
            )
        return _rounded(np.array(rewards))


def named(prompt: str) -> str:
    """A short name of a prompt, the same everywhere."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def spoken(prompt: Content) -> Any:
    """A prompt as functions of one's own are given it: text, or messages as plain dictionaries."""
    return prompt if isinstance(prompt, str) else [_message(m) for m in prompt]


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 6) for v in values]


def _read(path: Path) -> dict[str, Any]:
    """What was measured, or nothing where it was not, or cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def trained(recipe: Recipe, data: str) -> dict[str, Any]:
    """Train a run, go on with one that was broken off, or leave one alone that is finished; its run.json.

    data: fingerprint of the training data, which a run that is kept must have been trained on. The most memory above
    what the process held before is written to `memory.json` beside a run that was trained here from its beginning.
    Raises InputError if the folder holds a run of other options, RunError if the run found something wrong.
    """
    folder = Path(recipe.out)
    facts = _read(folder / "run.json")
    if facts.get("state") == "finished" and (folder / "model").is_dir():
        _same(recipe, facts, data)
        return facts
    begun = (folder / "recipe.yaml").exists() and facts.get("state") not in UNTRAINED.values()
    measure = Peak()
    train(recipe, resume=begun, quiet=True)
    if not begun:
        with suppress(OSError):
            write_whole(folder / "memory.json", json.dumps({"peak_bytes": measure.bytes()}))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the model is beside them, and nothing goes on from here
    return _read(folder / "run.json")


def _same(recipe: Recipe, facts: Mapping[str, Any], data: str) -> None:
    before = facts.get("recipe", {})
    for key, value in recipe.values().items():
        if key in before and key not in FREE and before[key] != value:
            raise InputError(
                f"{recipe.out} was trained with {key}={before[key]!r}, not {value!r}",
                mend="compare with the options that it was begun with, or into a new folder",
            )
    if (facts.get("data") or {}).get("fingerprint", data) != data:
        raise InputError(
            f"{recipe.out} was trained on other data, or the code that reads them has changed",
            mend="compare into a new folder",
        )


def peak_of(folder: Path) -> int | None:
    """The bytes that `trained` wrote down."""
    found = _read(folder / "memory.json").get("peak_bytes")
    return found if isinstance(found, int) else None


class Peak:
    """The most memory since it was made, above what was held then: of the GPU where there is one, else resident."""

    def __init__(self) -> None:
        import torch

        gc.collect()
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before: int | None = torch.cuda.memory_allocated()
            return
        _trim()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.before = None
        else:
            self.before = _status("VmRSS")

    def bytes(self) -> int | None:
        """None where the system does not tell."""
        import torch

        now = torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM")
        return None if now is None or self.before is None else max(0, now - self.before)


def _trim() -> None:
    """Give memory that was freed back to the system, so that a run does not get what another left."""
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
