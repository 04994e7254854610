"""The demo: the main job on the lab's world, where the gold reward is known, so that what happened can be said."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from boresight.data.write import write
from boresight.errors import InputError
from boresight.lab.gold import length
from boresight.lab.language import Knobs, LanguageWorld
from boresight.lab.preferences import ModelSampler
from boresight.lab.pretrain import base_model
from boresight.report import report
from boresight.training.evaluate import evaluate
from boresight.training.load import hush_transformers
from boresight.training.reporter import Reached, Reporter
from boresight.training.stats import Interval, mean, paired_difference, win_rate
from boresight.training.train import train

KNOBS = Knobs(label_noise=0.2, length_bias=0.5)
"""A fifth of the labels is wrong, and the annotators like long answers more than the gold reward does."""
PAIRS, HELD_OUT, PROMPTS = 2000, 400, 400
OPTIONS = {"lr": 3e-4, "batch": 64, "micro_batch": 64, "epochs": 3.0, "trackers": "none"}
"""The same budget for every method; the learning rate suits a model of 130,000 parameters, not one of billions."""
LOOKS = {"eval_every": 20, "samples": 6, "sample_tokens": 24}
"""What is looked at on the way, for the report; it moves no weight."""
RIVALS: tuple[tuple[str, dict[str, Any]], ...] = (("dpo", {}), ("rdpo-robust", {"eps": 0.2}), ("simpo", {}))


@dataclass(frozen=True)
class Result:
    """One model of the demo, with 95% intervals; `better`: its gold reward minus the base model's, by prompt."""

    name: str
    gold: Interval
    words: Interval
    better: Interval | None = None
    wins: Interval | None = None
    kl: Interval | None = None
    accuracy: Interval | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {k: v.to_dict() if isinstance(v, Interval) else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class Demo:
    """What the demo found: a row for each model, sentences that say what it comes to, the plot, and the report."""

    folder: Path
    results: list[Result] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def plot(self) -> Path:
        """The picture that was drawn."""
        return self.folder / "plot.png"

    @property
    def report(self) -> Path:
        """The page about the three runs."""
        return self.folder / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "folder": str(self.folder),
            "plot": str(self.plot),
            "report": str(self.report),
            "results": [r.to_dict() for r in self.results],
            "sentences": self.sentences,
            "seconds": round(self.seconds, 1),
        }


def demo(out: str | Path | None = None, *, seed: int = 0, quiet: bool = False) -> Demo:
    """Pre-train a tiny model (or take it from the cache), make biased preferences, train three methods, compare.

    out: a new folder for data, runs, the plot and the report; by default `demo`, or `demo-2` and so on where that
    is taken.
    Raises InputError if it exists and holds something.
    """
    folder = Path(out) if out is not None else _free("demo")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out={folder} exists already", mend="remove it, or give another: boresight demo --out NEW")
    started = time.monotonic()
    hush_transformers()
    reporter = Reporter(quiet=quiet)
    world = LanguageWorld(KNOBS)
    base = _base(reporter)
    sampler = ModelSampler(base)

    examples = world.preferences(sampler, PAIRS, seed)
    held_out = LanguageWorld(Knobs(temperature=0.01)).preferences(sampler, HELD_OUT, seed, split="test")
    train_file, test_file = folder / "train.jsonl", folder / "test.jsonl"
    write(examples, train_file)
    write(held_out, test_file)
    reporter.note(
        f"preferences: {len(examples)} pairs of the base model's own answers, {KNOBS.label_noise:.0%} of the labels "
        f"turned over, annotators drawn to longer answers; the longer answer is chosen in "
        f"{_longer_wins(examples):.0%}, where gold reward alone would choose it in {_longer_wins(held_out):.0%}"
    )

    before = _answers(world, base, seed)
    results = [Result("base", mean(before.gold), mean(before.words))]
    for method, own in RIVALS:
        clock = time.monotonic()
        words = {**OPTIONS, **LOOKS, **own, "method": method, "model": base, "data": train_file}
        words |= {"eval_data": test_file, "out": folder / method}
        run = train(**words, seed=seed, quiet=quiet, brief=True)
        results.append(_measure(world, run.folder, test_file, before, seed, time.monotonic() - clock))
    found = Demo(folder, results, _sentences(results), time.monotonic() - started)
    _draw(found)
    report([folder / method for method, _ in RIVALS], found.report)
    return found


def _free(name: str) -> Path:
    taken = (Path(name if k == 1 else f"{name}-{k}") for k in count(1))
    return next(p for p in taken if not p.exists())


@dataclass(frozen=True)
class _Answers:
    gold: list[float]
    words: list[float]


def _base(reporter: Reporter) -> Path:
    with reporter.bar("pre-training the base model", None) as advance:
        steps = Reached(advance)
        path = base_model(progress=steps)
    how = f"pre-trained in {steps.done} steps" if steps.done else "from the cache"
    reporter.note(f"base model: {path} ({how})")
    return path


def _answers(world: LanguageWorld, model: Path, seed: int) -> _Answers:
    """One sampled answer to each held-out prompt: gold reward and length in words."""
    prompts = world.prompts(PROMPTS, seed, "test")
    texts = [answers[0] for answers in ModelSampler(model)(prompts, seed, 1)]
    return _Answers([world.reward(p, t) for p, t in zip(prompts, texts, strict=True)], [length(t) for t in texts])


def _measure(world: LanguageWorld, run: Path, test: Path, before: _Answers, seed: int, seconds: float) -> Result:
    after = _answers(world, run / "model", seed)
    held_out = evaluate(run, test, samples=200, sample_tokens=24, batch=64, seed=seed, quiet=True)
    pairs = list(zip(after.gold, before.gold, strict=True))
    return Result(
        run.name,
        mean(after.gold),
        mean(after.words),
        paired_difference(after.gold, before.gold),
        win_rate(sum(a > b for a, b in pairs), sum(a == b for a, b in pairs), sum(a < b for a, b in pairs)),
        held_out["KL"],
        held_out["implicit-reward accuracy"],
        seconds,
    )


def _longer_wins(examples: Sequence[Any]) -> float:
    margins = [
        length(e.responses[p.chosen].text) - length(e.responses[p.rejected].text) for e in examples for p in e.pairs
    ]
    return sum(m > 0 for m in margins) / max(1, sum(m != 0 for m in margins))


def _sentences(results: Sequence[Result]) -> list[str]:
    """What the table says, in words; "better" only where the interval of the difference is above 0."""
    base, *trained = results
    lines = []
    for r in trained:
        assert r.better is not None
        assert r.wins is not None
        assert r.kl is not None
        change = "better than" if r.better.low > 0 else "worse than" if r.better.high < 0 else "not told apart from"
        longer = r.words.value / base.words.value - 1
        lines.append(
            f"{r.name} is {change} the base model: gold reward {r.gold.value:.2f} against {base.gold.value:.2f}, "
            f"it wins {r.wins.value:.0%} of the prompts (ties half), at {r.kl.value:.1f} nats from where it started; "
            f"its answers are {abs(longer):.0%} {'longer' if longer > 0 else 'shorter'}."
        )
    best = max(trained, key=lambda r: r.gold.value)
    level = [r.name for r in trained if r is not best and r.gold.high >= best.gold.low]
    behind = [r.name for r in trained if r.gold.high < best.gold.low]
    said = [f"not told apart from {' and '.join(level)}"] * bool(level)
    said += [f"clear of {' and '.join(behind)}"] * bool(behind)
    lines.append(f"{best.name} has the highest gold reward, {', '.join(said)}.")
    lines.append("One seed, one tiny world: this shows that the machinery works, not which method is best.")
    return lines


def _draw(found: Demo) -> None:
    """Gold reward against KL, and lengths, with intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for k, r in enumerate(found.results):
        kl = r.kl.value if r.kl else 0.0
        low, high = (r.kl.value - r.kl.low, r.kl.high - r.kl.value) if r.kl else (0.0, 0.0)
        gold = [[r.gold.value - r.gold.low], [r.gold.high - r.gold.value]]
        left.errorbar(
            kl, r.gold.value, yerr=gold, xerr=[[low], [high]], fmt="o", capsize=3, color=f"C{k}", label=r.name
        )
        words = [[r.words.value - r.words.low], [r.words.high - r.words.value]]
        right.errorbar(k, r.words.value, yerr=words, fmt="o", capsize=3, color=f"C{k}")
    left.set(
        xlabel="KL to the base model (nats per answer)", ylabel="gold reward", title="What was gained, and how far"
    )
    left.legend(frameon=False)
    right.set(ylabel="words per answer", title="Length", xticks=range(len(found.results)))
    right.set_xticklabels([r.name for r in found.results])
    right.margins(x=0.2)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(found.plot, dpi=130)
    plt.close(figure)
