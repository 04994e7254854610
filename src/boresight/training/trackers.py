"""Trackers: where metrics and sample texts go. A file that anyone can read always; services when they are named."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import IO, Any, Protocol

from boresight.errors import InputError, nearest
from boresight.training.redact import without_secrets


class Tracker(Protocol):
    """Takes a run's metrics and texts as they come."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after `step` steps."""

    def text(self, step: int, tag: str, text: str) -> None:
        """A text worth reading, such as a sample, after `step` steps."""

    def close(self) -> None:
        """Nothing more comes."""


class FileTracker:
    """`metrics.jsonl` and `samples.jsonl`: one JSON object a line, each line flushed as it is written.

    Floats are written with all their digits, so that equal runs give equal files; nan, inf and -inf, which JSON has
    no numbers for, are written as words (`read_metrics` turns them back). Opened for a run that is resumed, the files
    first lose what was written after that step, and a last line that was cut off.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = _reopen(folder / "metrics.jsonl", resume_step)
        self._samples = _reopen(folder / "samples.jsonl", resume_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line: the step, then the metrics in the order given."""
        _line(self._metrics, {"step": step} | {k: _number(v) for k, v in metrics.items()})

    def text(self, step: int, tag: str, text: str) -> None:
        """Write one line: step, tag, text."""
        _line(self._samples, {"step": step, "tag": tag, "text": text})

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._samples.close()


class TensorBoardTracker:
    """TensorBoard event files below `tensorboard/`; later events of a run that is resumed are hidden."""

    def __init__(self, folder: Path, config: Mapping[str, Any], resume_step: int) -> None:
        summary = _package("tensorboard", "torch.utils.tensorboard", "tensorboard")
        # From 0 on, too: a run that broke off before its first checkpoint starts again in the same folder.
        purge = resume_step + 1 if resume_step else 0
        self._writer = summary.SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        if not resume_step:
            self.text(0, "config", json.dumps(config, indent=1, default=str))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar each."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def text(self, step: int, tag: str, text: str) -> None:
        """Shown as it is: four spaces make a code block, in which Markdown and HTML are inert."""
        self._writer.add_text(tag, "\n".join("    " + line for line in text.splitlines()), step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbTracker:
    """Weights & Biases. The run goes by its folder's name; a resumed run goes on under the same id."""

    def __init__(self, folder: Path, config: Mapping[str, Any], resume_step: int) -> None:
        self._wandb = _package("wandb", "wandb", "boresight[wandb]")
        known = folder / "wandb-id.txt"
        before = known.read_text(encoding="utf-8").strip() if resume_step and known.exists() else None
        folder.mkdir(parents=True, exist_ok=True)
        with _starting("wandb", "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"):
            self._run = self._wandb.init(
                project="boresight",
                name=folder.resolve().name,
                dir=str(folder),
                config=dict(config),
                id=before,
                resume="allow" if before else None,
            )
        known.write_text(self._run.id + "\n", encoding="utf-8")
        # Steps of our own: theirs must never go back, and a resumed run starts before the point where it broke off.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        self._run.log({"step": step, **metrics})

    def text(self, step: int, tag: str, text: str) -> None:
        """Escaped, line breaks kept."""
        self._run.log({"step": step, tag: self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class TrackioTracker:
    """Trackio, kept on this machine unless its own environment variables say otherwise."""

    def __init__(self, folder: Path, config: Mapping[str, Any], resume_step: int) -> None:
        self._trackio = _package("trackio", "trackio", "boresight[trackio]")
        with _starting("trackio", "see its message; without TRACKIO_ variables it writes to this machine only"):
            self._run = self._trackio.init(
                project="boresight",
                name=folder.resolve().name,
                config=dict(config),
                resume="allow" if resume_step else "never",
                embed=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        self._trackio.log(dict(metrics), step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        """As a code block: four spaces keep it inert."""
        block = "\n".join("    " + line for line in text.splitlines())
        self._trackio.log({tag: self._trackio.Markdown(block)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


Opener = Callable[[Path, Mapping[str, Any], int], Tracker]

SERVICES: dict[str, Opener] = {"tensorboard": TensorBoardTracker, "wandb": WandbTracker, "trackio": TrackioTracker}
"""What may be named beside the files; the package of each is imported when it is asked for."""


def check_names(names: Sequence[str]) -> list[str]:
    """The services that `names` asks for, each once; the files ("metrics") are always there and not among them.

    Raises InputError for a name that is unknown, before a run has done anything.
    """
    wanted = list(dict.fromkeys(n for n in names if n != "metrics"))
    for name in wanted:
        if name not in SERVICES:
            raise InputError(f"unknown tracker {name!r}", mend=nearest(name, SERVICES))
    return wanted


def trackers(
    names: Sequence[str], run_dir: str | Path, config: Mapping[str, Any], resume_step: int = 0
) -> list[Tracker]:
    """The files first, then what `names` asks for: tensorboard, wandb, trackio ("metrics" is the files themselves).

    config: what decides the run, shown by services that show it; anything that looks like a key, token or password is
    taken out. resume_step: the step from which a run goes on; what was logged after it is dropped.
    Raises InputError for an unknown name or a package that is not installed; nothing is opened then.
    """
    folder, shown = Path(run_dir), without_secrets(config)
    wanted = check_names(names)
    opened: list[Tracker] = []
    try:
        for name in wanted:
            opened.append(SERVICES[name](folder, shown, resume_step))
    except BaseException:
        for tracker in opened:
            tracker.close()
        raise
    return [FileTracker(folder, resume_step), *opened]


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, in order; `step` is an int, everything else a float.

    A last line that is still being written is left out. Raises InputError if there is no such file.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path} does not exist", mend="give the folder of a run")
    rows = [json.loads(line) for line in _whole_lines(path)]
    return [{k: v if k == "step" else float(v) for k, v in row.items()} for row in rows]


def _number(value: float) -> float | str:
    number = float(value)
    return number if isfinite(number) else str(number)


def _line(file: IO[str], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def _whole_lines(path: Path) -> list[str]:
    """The lines that end in a line break; others were cut off while they were written."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return [line for line in file if line.endswith("\n")]


def _reopen(path: Path, resume_step: int) -> IO[str]:
    """The file, open for appending; empty for a new run, else with what was written up to `resume_step`."""
    kept: list[str] = []
    if resume_step and path.exists():
        kept = [line for line in _whole_lines(path) if _step(path, line) <= resume_step]
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text("".join(kept), encoding="utf-8", newline="\n")
    aside.replace(path)
    # Half a surrogate pair is no character, but a tokenizer can make one: in JSON its code may stand for it.
    return path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")


def _step(path: Path, line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: a line is not what a run writes: {line.strip()[:80]!r}",
            mend="move the file away, or mend the line",
        ) from None


@contextmanager
def _starting(name: str, mend: str) -> Iterator[None]:
    """A service that cannot start is the user's to mend; its message is shown without what looks like a key.

    Stdout is left to the results of the command: what a service says goes to stderr.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise InputError(f"tracker {name} could not start: {without_secrets(str(error))}", mend=mend) from None


def _package(name: str, module: str, install: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            f"tracker {name} needs a package that is not installed",
            mend=f"pip install '{install}', or leave {name} out of trackers",
        ) from None
