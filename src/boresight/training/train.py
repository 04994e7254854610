"""`train`: a run from its recipe to a model on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter
from boresight.training.trackers import check_names
from boresight.versions import versions


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, steps, last metrics, and alarms in words. `model` is loadable by transformers."""

    folder: Path
    method: str
    steps: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """Folder of the trained model (or adapter)."""
        return self.folder / "model"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "run": str(self.folder),
            "model": str(self.model),
            "method": self.method,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "metrics": self.metrics,
            "alarms": self.alarms,
        }


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
    brief: bool = False,
    **options: Any,
) -> Run:
    """Train a model and leave it in `out/model`, loadable by plain `transformers` or `peft`.

    recipe: a YAML file or a mapping; `options` lie on top of it. They are the words of `boresight train`: method,
    model, data, out, and any of the recipe's options or the method's hyperparameters.
    resume: go on with the run in `out` from its newest whole checkpoint. quiet: print nothing. brief: print only what
    was given, not the defaults.

    Raises InputError (unusable input, nothing was written) or RunError (the run found something wrong).

    >>> run = train(method="dpo", model="base", data="prefs.jsonl", out="run", beta=0.05)  # doctest: +SKIP
    """
    if resume and recipe is None and set(options) == {"out"}:
        recipe = Path(options["out"]) / "recipe.yaml"
    settled = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe, **options)
    check_names(_names(settled.trackers))
    reporter = Reporter(quiet=quiet or int(os.environ.get("RANK", "0")) > 0)
    folder = Path(settled.out)
    state = _open(folder, settled, resume)
    started = time.monotonic()
    known = settled.objective
    reporter.table(
        f"{known.id}: {known.summary}",
        ("setting", "value", "where from"),
        [(s.name, s.value, s.source) for s in settled.settings() if not (brief and s.source != "given")],
    )

    from boresight.training import checkpoint as checkpoints
    from boresight.training.card import model_card
    from boresight.training.job import prepare
    from boresight.training.loop import fit
    from boresight.training.trackers import trackers

    newest = checkpoints.newest(folder / "checkpoints", reporter.note) if resume else None
    progress = checkpoints.load_progress(newest) if newest else checkpoints.Progress()
    if resume:
        reporter.note(f"resumed at step {progress.step}" if newest else "no checkpoint yet: from the start")
    job = prepare(settled, reporter, checkpoint=newest, reference=state.get("reference"))
    if newest:
        checkpoints.load_optimizer(newest, getattr(job.optimizer, "optimizer", job.optimizer), job.names)
    main = job.accelerator.is_main_process
    facts: dict[str, Any] = {
        "state": "running",
        "method": known.id,
        "paper": known.paper,
        "recipe": settled.values(),
        "settings": [vars(s) for s in settled.settings()],
        "reference": job.reference,
        "data": {"fingerprint": job.examples.fingerprint, **job.examples.report.to_dict()},
        "rows": {"fingerprint": job.rows.fingerprint, **job.rows.report.to_dict()},
        "template": job.renderer.describe(),
        "versions": versions(),
        "seed": settled.seed,
        "steps": job.order.steps,
    }
    if main:
        _write_recipe(folder, settled)
        _write_json(folder / "run.json", facts)
    watching = (
        trackers(["metrics", *_names(settled.trackers)], folder, settled.values(), resume_step=progress.step)
        if main
        else []
    )
    try:
        outcome = fit(job, folder, watching, progress, model_card(facts))
    finally:
        for tracker in watching:
            tracker.close()
    run = Run(
        folder,
        known.id,
        outcome.steps,
        time.monotonic() - started,
        outcome.metrics,
        [str(a) for a in outcome.alarms],
    )
    if main:
        facts |= {"state": "finished", "metrics": run.metrics, "alarms": run.alarms, "seconds": run.seconds}
        checkpoints.save(
            run.model,
            model=job.model,
            tokenizer=job.tokenizer,
            optimizer=None,
            names={},
            progress=progress,
            card=model_card(facts),
        )
        _write_json(folder / "run.json", facts)
    job.accelerator.wait_for_everyone()
    job.accelerator.end_training()
    return run


def _open(folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any]:
    """What is known of the run in `folder`; refuses to overwrite one, or to resume another."""
    facts = folder / "run.json"
    if not facts.exists():
        if resume and not folder.exists():
            raise InputError(f"no run in {folder} to resume", mend="leave --resume away to start one")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"out={folder} exists and is not a run", mend="give a new folder")
        return {}
    if not resume:
        raise InputError(f"out={folder} holds a run", mend="give a new folder, or --resume to go on with it")
    state: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    free = {"out", "save_every", "keep", "trackers", "store"}
    before = state["recipe"]
    for key, value in recipe.values().items():
        if key not in free and before.get(key) != value:
            raise InputError(
                f"{folder} was started with {key}={before.get(key)!r}, not {value!r}",
                mend="resume with the options it was started with, or start a new run",
            )
    return state


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
    aside.replace(path)


def _names(words: str) -> list[str]:
    return [w.strip() for w in words.split(",") if w.strip() and w.strip() != "none"]
