"""Checkpoints: written aside, renamed when whole, with a fingerprint of every file; loadable by plain transformers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from boresight.errors import RunError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, what the alarms remember, and the metrics summed since the last line."""

    step: int = 0
    alarms: Mapping[str, Any] | None = None
    meter: Mapping[str, list[float]] | None = None


def save(
    folder: Path, *, model: Any, tokenizer: Any, optimizer: Any, names: dict[int, str], progress: Progress, card: str
) -> None:
    """Write a checkpoint: the model as `save_pretrained` does, optimizer state and progress under `training/`.

    names: parameter name by id(parameter), so that the optimizer's state is stored by name.
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "training").mkdir(parents=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    (aside / "README.md").write_text(card, encoding="utf-8")
    if optimizer is not None:
        tensors = {
            f"{names[id(p)]}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
            for p, state in optimizer.state.items()
            for key, value in state.items()
        }
        save_file(tensors, aside / "training" / "optimizer.safetensors")
        (aside / "training" / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    else:
        (aside / "training").rmdir()
    files = sorted(p for p in aside.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(aside)): _digest(p) for p in files}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*files, aside / MANIFEST):
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    _sync(folder.parent)


def verify(folder: Path) -> None:
    """Raise RunError if a file of the checkpoint is missing or not the one that was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: no readable {MANIFEST}: {error}", mend="use an earlier checkpoint") from None
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise RunError(f"{path} is missing or altered", mend="use an earlier checkpoint")


def newest(checkpoints: Path, note: Any = None) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are passed over with a note."""
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        try:
            verify(folder)
        except RunError as error:
            if note:
                note(f"{error.what}: the checkpoint before it is used")
            continue
        return folder
    return None


def load_progress(folder: Path) -> Progress:
    """What `save` wrote of the run's progress."""
    return Progress(**json.loads((folder / "training" / "progress.json").read_text(encoding="utf-8")))


def load_optimizer(folder: Path, optimizer: Any, names: dict[int, str]) -> None:
    """Put a checkpoint's optimizer state back, by parameter name."""
    stored: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "training" / "optimizer.safetensors").items():
        name, _, what = key.rpartition("|")
        stored.setdefault(name, {})[what] = value
    for group in optimizer.param_groups:
        for p in group["params"]:
            if names[id(p)] in stored:
                state = stored[names[id(p)]]
                optimizer.state[p] = {k: v if k == "step" else v.to(p.device, p.dtype) for k, v in state.items()}


def prune(checkpoints: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for folder in sorted(checkpoints.glob("step-*"))[:-keep]:
        shutil.rmtree(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
