"""`compare`: methods on the same data, with the same budget and seeds, and what can be said of their differences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boresight.dotted import resolve
from boresight.errors import BoresightError, InputError, RunError
from boresight.training.compare_data import read_as, sides
from boresight.training.compare_figures import One
from boresight.training.compare_plan import SAVE_EVERY, Arm, arms, budget, check_rows, held, named, refuse, swept
from boresight.training.compare_run import MEASURED, Gold, GoldError, Measurer, peak_of, trained
from boresight.training.evaluate import reference_of
from boresight.training.folder import write_whole
from boresight.training.reporter import Reporter
from boresight.versions import versions

NAME = "compare.json"
DEFAULTS: dict[str, Any] = dict.fromkeys(("methods", "model", "data", "eval_data", "baseline", "gold")) | {
    "seeds": 5,
    "sweep": [],
    "samples": 64,
    "sample_tokens": 64,
    "batch_size": 16,
    "options": {},
}
"""What is asked where nothing is given."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to: `told` is what compare.json holds."""

    folder: Path
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """The page about it, once it was written."""
        return self.folder / "compare.html"

    @property
    def sentences(self) -> list[str]:
        """What can be said, method by method."""
        return [s["words"] for s in self.told["statements"]]

    @property
    def failed(self) -> list[Mapping[str, Any]]:
        """Runs that did not come to their end, each with arm, seed and why."""
        return [r | {"arm": a["label"]} for a in self.told["arms"] for r in a["runs"] if r["state"] == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {"folder": str(self.folder), **self.told}


def compare(
    methods: str | Sequence[str] | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path = "",
    *,
    eval_data: str | Path | None = None,
    seeds: int | None = None,
    sweep: Sequence[str] = (),
    baseline: str | None = None,
    gold: str | None = None,
    samples: int | None = None,
    sample_tokens: int | None = None,
    batch_size: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> Comparison:
    """Train each method at each setting for each seed into a folder below `out`, measure all, and compare.

    methods: ids or dotted paths, by comma; `all-pairs` for all that need no more than pairs, `all` for all that the
    data serve; -ID leaves one out. eval_data: held-out pairs; without, a fifth of the prompts is held out. sweep:
    "beta=0.01,0.1", for the methods that have it; several make a grid. baseline: the method that others are compared
    with, the first by default. gold: dotted path of a function of prompts and responses that returns rewards.
    seeds: how many; 5. samples, sample_tokens, batch_size: prompts sampled (64), longest sample (64), prompts sampled
    at once (16). options: of the
    recipe, of the methods that have them, or of one method alone as {"simpo.beta": 2}.

    All runs take the same number of steps: max_steps, or what the epochs come to for the baseline. Finished runs are
    kept, broken-off ones resumed. Without methods, model and data, the comparison in `out` goes on as it was begun, but
    for what is given. compare.json is written after each run.

    Raises InputError before anything is trained if a method lacks something in the data, or an option is unusable;
    RunError if every run failed.
    """
    reporter = Reporter(quiet=quiet)
    folder = Path(out)
    if not str(out):
        raise InputError("a comparison needs out=...", mend="name a new folder, or that of one to go on with")
    given = {
        "methods": methods if methods is None or isinstance(methods, str) else ",".join(methods),
        "model": None if model is None else str(model),
        "data": None if data is None else str(data),
        "eval_data": None if eval_data is None else str(eval_data),
        "seeds": seeds,
        "sweep": list(sweep) or None,
        "baseline": baseline,
        "gold": gold,
        "samples": samples,
        "sample_tokens": sample_tokens,
        "batch_size": batch_size,
    }
    before = _asked(folder) if methods is None and model is None and data is None else DEFAULTS
    asked: dict[str, Any] = {k: before[k] if v is None else v for k, v in given.items()}
    asked["options"] = before["options"] | {k.replace("-", "_"): v for k, v in options.items()}
    for key in ("methods", "model", "data"):
        if not asked[key]:
            raise InputError(f"a comparison needs {key}=...", mend="or --out alone, to go on with one")
    if asked["seeds"] < 1 or asked["samples"] < 0 or asked["sample_tokens"] < 1:
        raise InputError("seeds and sample_tokens must be at least 1, samples at least 0", mend="leave them out")
    return _Comparing(folder, asked, reporter).run()


def _asked(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = DEFAULTS | json.loads((folder / NAME).read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        mend = "name --methods, --model and --data"
        raise InputError(f"no comparison in {folder} to go on with", mend=mend) from None
    return found


class _Comparing:
    """A comparison on its way: what was asked, what it runs, and what is known so far."""

    def __init__(self, folder: Path, asked: dict[str, Any], reporter: Reporter) -> None:
        self.folder, self.asked, self.reporter = folder, asked, reporter
        self.gold = _gold(asked["gold"])
        options = asked["options"]
        self.first = int(options.get("seed", 0))
        self.seeds = range(self.first, self.first + asked["seeds"])
        ours = {"seed", "eval_limit"} | ({"format", "strict"} if asked["eval_data"] is None else set())
        own = {k: v for k, v in options.items() if k not in ours}
        examples = read_as(asked["data"], options, "limit")
        self.has = held(examples)
        methods = named(asked["methods"], self.has, own)
        base = asked["baseline"]
        if base is not None and base not in methods:
            raise InputError(f"--baseline {base} is not compared", mend=f"one of {', '.join(methods)}")
        self.baseline = base or methods[0]
        methods = [self.baseline, *(m for m in methods if m != self.baseline)]
        self.arms = arms(methods, own, swept(asked["sweep"]))
        refuse(methods, self.has, own)
        self.train_path, self.examples, self.held_out = sides(asked, examples, folder)
        self.base = {"model": asked["model"], "data": str(self.train_path)}
        recipes = [arm.recipe(self._base(None), folder, self.first) for arm in self.arms]
        self.rows = check_rows(self.arms, recipes, self.examples)
        self.steps = budget(recipes[0], self.rows[self.baseline])
        self.recipe = recipes[0]
        self.runs: dict[str, list[dict[str, Any]]] = {arm.label: [] for arm in self.arms}
        self.ones: dict[str, list[One]] = {arm.label: [] for arm in self.arms}
        self.start: list[One] = []
        self.figures: dict[tuple[str, int], dict[str, Any]] = {}

    def _base(self, steps: int | None) -> dict[str, Any]:
        quiet = {"samples": 0, "trackers": "none", "save_every": SAVE_EVERY, "keep": 1}
        return quiet | self.base | ({} if steps is None else {"max_steps": steps})

    def run(self) -> Comparison:
        """Train and measure what is missing, write after each run, and say what came of it."""
        # What a run brings in once for the whole process is not to count as the first run's own.
        from boresight.training import loop, prepare, proof  # noqa: F401

        measurer = self._measurer()
        self.reporter.note(
            f"{len(self.arms)} arms x {len(self.seeds)} seeds, {self.steps} steps each; held out: "
            f"{len(self.held_out)} examples; reference: {measurer.reference}",
            style="dim",
        )
        self._write("running")
        total = len(self.arms) * len(self.seeds)
        with self.reporter.bar("runs", total) as advance:
            for seed in self.seeds:
                self._start(measurer, seed)
                for arm in self.arms:
                    advance(0, f"{arm.label}, seed {seed}")
                    self._one(measurer, arm, seed)
                    self._write("running")
                    advance()
        told = self._write("finished")
        done = Comparison(self.folder, told)
        if len(done.failed) == total:
            raise RunError(f"every run failed; the first: {done.failed[0]['why']}", mend="see its folder")
        return done

    def _measurer(self) -> Measurer:
        values = self.recipe.values()
        rendering = {k: values[k] for k in ("template", "max_length", "truncation")}
        about = [self.held_out.fingerprint, rendering, *(self.asked[k] for k in ("samples", "sample_tokens"))]
        reference = reference_of(values)
        key = hashlib.blake2b(json.dumps([*about, reference], default=str).encode(), digest_size=8).hexdigest()
        return Measurer(
            self.held_out,
            self.asked["eval_data"] or "a fifth of the prompts",
            reference,
            rendering,
            self.asked["samples"],
            self.asked["sample_tokens"],
            self.asked["batch_size"],
            self.gold,
            key,
            self.reporter,
        )

    def _start(self, measurer: Measurer, seed: int) -> None:
        """What the model says before any training, for each seed."""
        if self.asked["samples"]:
            path = self.folder / "start" / f"seed={seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.start.append(One(seed, measurer.of(path, self.asked["model"], seed, margins=False)))

    def _one(self, measurer: Measurer, arm: Arm, seed: int) -> None:
        folder = self.folder / "runs" / arm.folder(seed)
        known: dict[str, Any] = {"seed": seed, "folder": str(folder.relative_to(self.folder)), "alarms": []}
        try:
            recipe = arm.recipe(self._base(self.steps), folder, seed)
            facts = trained(recipe, self.examples.fingerprint)
            measured = measurer.of(folder / MEASURED, str(folder / "model"), seed)
        except GoldError:
            raise
        except BoresightError as error:
            self.reporter.note(f"{arm.label}, seed {seed}: {error.what}", style="yellow")
            self.runs[arm.label].append(known | {"state": "failed", "why": " ".join(error.what.split())})
            return
        known |= {"state": "finished", "seconds": facts.get("seconds"), "peak_bytes": peak_of(folder)}
        known |= {"seconds_measuring": measured.get("seconds"), "alarms": facts.get("alarms", [])}
        self.runs[arm.label].append(known)
        self.ones[arm.label].append(One(seed, measured))

    def _write(self, state: str) -> dict[str, Any]:
        from boresight.training.compare_told import tell

        told = tell(
            {
                "state": state,
                "asked": self.asked,
                "versions": versions(),
                "data": {
                    "train": str(self.train_path),
                    "fingerprint": self.examples.fingerprint,
                    "examples": len(self.examples),
                    "held_out": self.asked["eval_data"] or "a fifth of the prompts",
                    "held_out_fingerprint": self.held_out.fingerprint,
                    "held_out_examples": len(self.held_out),
                    "rows": self.rows,
                },
                "steps": self.steps,
                "batch": self.recipe.batch,
                "seeds": list(self.seeds),
                "baseline": self.baseline,
                "gold": self.asked["gold"],
                "reference": reference_of(self.recipe.values()),
            },
            self.arms,
            self.runs,
            self.ones,
            self.start,
            self.figures,
            last=state == "finished",
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / NAME, json.dumps(told, indent=1, ensure_ascii=False))
        return told


def _gold(name: str | None) -> tuple[str, Gold] | None:
    if name is None:
        return None
    function = resolve(name, "gold")
    if not callable(function):
        raise InputError(f"gold {name!r} cannot be called", mend="name a function of prompts and responses")
    return name, function
