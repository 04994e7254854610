"""`evaluate`: what a trained model does on held-out data, with intervals, beside baselines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.training.compute import Measure, PairTable, Scorer
from boresight.training.folder import write_whole
from boresight.training.reporter import Reporter
from boresight.training.stats import Interval, mean, paired_difference, proportion


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one data set. `words` says in a sentence or two what it comes to."""

    model: str
    data: str
    reference: str | None
    measures: list[Measure] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Interval:
        """The figure called `name`."""
        return next(m.interval for m in self.measures if m.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "model": self.model,
            "data": self.data,
            "reference": self.reference,
            "measures": {m.name: m.interval.to_dict() | {"meaning": m.meaning} for m in self.measures},
            "words": self.words,
        }


def evaluate(
    model: str | Path,
    data: str | Path | None = None,
    *,
    reference: str | None = None,
    train_data: str | Path | None = None,
    samples: int = 64,
    sample_tokens: int = 64,
    batch: int = 16,
    limit: int | None = None,
    format: str | None = None,
    template: str = "auto",
    max_length: int | None = None,
    truncation: str = "drop",
    seed: int = 0,
    quiet: bool = False,
) -> Evaluation:
    """Evaluate a run, a model or a reward model on held-out pairs (or demonstrations).

    model: folder of a run (its reference, template and training data are taken from there), or a model. data: the
    held-out data; a run's `eval_data` if left out. reference: model that implicit rewards and KL are measured against.
    train_data: pairs for the TF-IDF baseline. samples: number of prompts that are sampled, 0 for none.

    A run's evaluation is also written to `evaluation.json` in its folder, for the report.

    Raises InputError if the model or the data cannot be used.
    """
    from boresight.data.read import read
    from boresight.data.views import pairs

    reporter = Reporter(quiet=quiet)
    facts = run_facts(Path(model))
    values = facts.get("recipe", {})
    policy = str(Path(model) / "model") if facts else str(model)
    data = data or values.get("eval_data")
    if data is None:
        raise InputError("nothing to evaluate on", mend="give --data FILE")
    if reference is None and facts:
        reference = reference_of(values)
    options = {
        "template": values.get("template", template),
        "max_length": max_length or values.get("max_length"),
        "truncation": truncation if truncation != "drop" else values.get("truncation", "drop"),
    }
    examples = read(str(data), format=format, limit=limit)
    scorer = Scorer(policy, reference, options, batch=batch, seed=seed, reporter=reporter)
    compared = any(pairs(e) for e in examples)
    if not compared:
        measures, words = scorer.demonstrations(examples)
    else:
        measures, words = on_pairs(scorer.pairs(examples))
        train_data = train_data or values.get("data")
        if train_data is not None:
            measures += _baselines(str(train_data), examples, values, reporter)
    if samples and not scorer.scores:
        measures += scorer.sampled(examples, samples, sample_tokens)
    found = Evaluation(policy, str(data), reference, measures, words)
    if facts:
        try:
            write_whole(Path(model) / "evaluation.json", json.dumps(found.to_dict(), indent=1))
        except OSError as error:
            reporter.note(f"evaluation.json was not written: {error}", style="yellow")
    return found


def on_pairs(table: PairTable) -> tuple[list[Measure], list[str]]:
    """Accuracies, means and the length baseline of held-out pairs, and a sentence about them."""
    prompts = table.prompts
    measures = []
    for name, margin, meaning in table.margins:
        measures.append(Measure(name, _accuracy(margin), meaning))
    for name, value, meaning in table.values:
        measures.append(Measure(name, mean(value, prompts), meaning))
    longer = [0.5 if c == r else float(c > r) for c, r in zip(table.chosen_chars, table.rejected_chars, strict=True)]
    measures.append(Measure("longer wins", proportion(sum(longer), len(longer)), "baseline: the longer reply wins"))
    right = [0.5 if m == 0 else float(m > 0) for m in table.margins[0][1]]
    gap = paired_difference(right, longer, prompts)
    verdict = "better than" if gap.low > 0 else "worse than" if gap.high < 0 else "not told apart from"
    figure = f"the {table.margins[0][0]} is {measures[0].interval.value:.3f}"
    words = [
        f"On {len(right)} held-out pairs {figure}; it is {verdict} "
        f"'the longer reply wins' ({sum(longer) / len(longer):.3f}): difference {gap.value:+.3f} "
        f"[{gap.low:+.3f}, {gap.high:+.3f}]."
    ]
    return measures, words


def _accuracy(margins: Iterable[float]) -> Interval:
    right = [0.5 if m == 0 else float(m > 0) for m in margins]
    return proportion(sum(right), len(right))


def _baselines(train_data: str, test: Any, values: dict[str, Any], reporter: Reporter) -> list[Measure]:
    from boresight.data.read import read
    from boresight.training.baselines import tfidf_bradley_terry

    try:
        train = read(train_data, format=values.get("format"), limit=values.get("limit"))
        figure = tfidf_bradley_terry(train, test)
    except InputError as error:
        reporter.note(f"no TF-IDF baseline: {error.what}", style="dim")
        return []
    return [Measure("TF-IDF + BT", figure, "baseline: Bradley-Terry on TF-IDF features, fitted on the training pairs")]


def run_facts(folder: Path) -> dict[str, Any]:
    """What `run.json` says of the run in the folder; empty for what is no run.

    Raises InputError if it is damaged, or the run is not finished.
    """
    path = folder / "run.json"
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", mend="name its model/ folder") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("recipe", {}), dict):
        raise InputError(f"{path} is not what a run writes", mend="name its model/ folder")
    if not (folder / "model").is_dir():
        raise InputError(
            f"the run in {folder} is not finished", mend="go on with it: boresight train --resume --out ..."
        )
    return facts


def reference_of(values: dict[str, Any]) -> str:
    """The model that a run's policy is compared with: its reference, or where it started."""
    from boresight.training.load import adapter_base

    choice = values.get("reference")
    if choice in (None, "start"):
        return str(values["model"])
    if choice == "base":
        return adapter_base(values["model"]) or str(values["model"])
    return str(choice).removeprefix("adapter:")
