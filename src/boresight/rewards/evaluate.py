"""What a reward is worth on held-out data: accuracy beside baselines, calibration, shortcuts, probes, best-of-n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import response_text
from boresight.data.example import Example, Pair
from boresight.data.read import read
from boresight.data.views import mean_scores, pairs
from boresight.errors import InputError
from boresight.judging.features import FEATURES, Seen
from boresight.rewards.base import Reward, asked, in_sum, scored
from boresight.rewards.bestofn import Point, curve
from boresight.rewards.calibration import Calibration, calibration
from boresight.rewards.load import load_reward
from boresight.rewards.probes import Probed, probed
from boresight.stats import Interval, at_equal_length, mean, paired_difference
from boresight.training.baselines import tfidf_bradley_terry
from boresight.training.compute import Measure
from boresight.training.reporter import Reporter

PROBED = 200
"""Pairs, the first of the data, that are edited."""
FEWEST = 4
"""Responses that a prompt must have for best-of-n."""
LOOKED_AT = ("length", "sentences", "paragraphs", "list", "headers", "bold", "code", "questions", "exclamations")
"""Features of form, of which it is told how far a reward follows them."""
GROUPS = 12
"""Domains and annotators that are listed, those with most pairs first."""


@dataclass(frozen=True)
class Followed:
    """How far verdicts follow a feature: rank correlation over pairs of the margin, and of the human verdict, with the
    difference of the feature. Features that never differ are left out.
    """

    feature: str
    meaning: str
    reward: Interval
    human: Interval


@dataclass(frozen=True)
class Group:
    """The accuracy on the pairs of a domain, or of an annotator."""

    kind: str
    name: str
    accuracy: Interval


@dataclass(frozen=True)
class RewardEvaluation:
    """What was measured; `words` says what it comes to. unscored: responses without a score (nan)."""

    reward: str
    data: str
    pairs: int
    unscored: int
    measures: list[Measure]
    calibration: Calibration | None
    followed: list[Followed]
    probes: list[Probed]
    groups: list[Group]
    best_of_n: list[Point]
    words: list[str]
    lint: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Interval:
        """The figure called `name`."""
        return next(m.interval for m in self.measures if m.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`; None for what is no finite number."""
        measures = {m.name: m.interval.to_dict() | {"meaning": m.meaning} for m in self.measures}
        rest = {k: v for k, v in asdict(self).items() if k != "measures"}
        found: dict[str, Any] = _finite(rest | {"model": self.reward, "reference": None, "measures": measures})
        return found


def evaluate_reward(
    reward: Reward | str | Path,
    data: str | Path | Sequence[Example],
    *,
    reference: str | Path | None = None,
    gold: Reward | str | None = None,
    train_data: str | Path | None = None,
    format: str | None = None,
    limit: int | None = None,
    probes: int = PROBED,
    quiet: bool = False,
    **options: Any,
) -> RewardEvaluation:
    """Evaluate a reward on held-out examples with preferences, scores or ranks.

    reward, reference, options: see `load_reward`. gold: a second reward, by which best-of-n is judged, where prompts
    have at least 4 responses; the data's own scores by default. train_data: pairs of the TF-IDF baseline. probes: how
    many pairs are edited, 0 for none.
    Raises InputError if the reward or the data cannot be used, or the data compares nothing.
    """
    reporter = Reporter(quiet=quiet)
    name = str(reward) if not isinstance(reward, Reward) else type(reward).__name__
    one = reward if isinstance(reward, Reward) else load_reward(reward, reference=reference, **options)
    other = load_reward(gold) if isinstance(gold, str) else gold
    where = str(data) if isinstance(data, str | Path) else "examples"
    examples = read(where, format=format, limit=limit) if isinstance(data, str | Path) else list(data)
    compared = [(e, p) for e in examples for p in pairs(e)]
    if not compared:
        raise InputError(f"{where} compares nothing", mend="give held-out pairs, or responses with scores or ranks")
    with reporter.bar("scores", len(examples)) as advance:
        known = [(e, in_sum(v)) for e, v in scored(one, examples, progress=advance)]
    table = _Table.of(one, known)
    if not len(table.margin):
        raise InputError(f"{name} scores no pair of {where}", mend="look at its limits: --max-length, --truncation")
    measures, words = table.figures()
    if train_data is not None:
        try:
            figure = tfidf_bradley_terry(read(str(train_data)), examples)
            meaning = "baseline: Bradley-Terry on TF-IDF features, fitted on the training pairs"
            measures.append(Measure("TF-IDF + BT", figure, meaning))
        except InputError as error:
            reporter.note(f"no TF-IDF baseline: {error.what}", style="dim")
    agreement = _ranked(known)
    if agreement is not None:
        measures.append(agreement)
    found: list[Probed] = []
    if probes:
        sides = table.sides[:probes]
        with reporter.bar("probes", None):
            asks, chosen, rejected = (list(column) for column in zip(*sides, strict=True))
            found = probed(one, asks, chosen, rejected, table.prompt[:probes])
    calibrated = calibration(table.margin, table.weight)
    return RewardEvaluation(
        name,
        where,
        len(table.margin),
        sum(int(np.isnan(v).sum()) for _, v in known),
        measures,
        calibrated,
        table.followed(),
        found,
        table.groups(),
        _chosen_of_many(known, other),
        words + _said(found, calibrated),
        one.lint() if hasattr(one, "lint") else [],
    )


@dataclass(frozen=True)
class _Table:
    """Of each pair that has scores: margin, weight, number of its prompt, sides, example, and differences of form."""

    margin: NDArray[np.float64]
    weight: NDArray[np.float64]
    prompt: list[int]
    sides: list[tuple[Any, Any, Any]]
    of_pair: list[tuple[Example, Pair]]
    seen: list[tuple[Seen, Seen]]

    @classmethod
    def of(cls, reward: Reward, known: Sequence[tuple[Example, NDArray[np.float64]]]) -> _Table:
        numbers: dict[str, int] = {}
        rows = []
        for example, values in known:
            for pair in pairs(example):
                gap = float(values[pair.chosen] - values[pair.rejected])
                if np.isfinite(gap):
                    at = numbers.setdefault(example.prompt_text, len(numbers))
                    rows.append((gap, at, example, pair))
        sides = [
            (asked(e, e.responses[p.chosen]), e.responses[p.chosen].content, e.responses[p.rejected].content)
            for _, _, e, p in rows
        ]
        margin = np.array([gap for gap, *_ in rows], float)
        if rows and type(reward).margin is not Reward.margin:  # preferences that are no difference of scores
            margin = reward.margin(*(list(column) for column in zip(*sides, strict=True)))
        seen = [
            tuple(Seen(response_text(e.responses[i]), e.prompt_text) for i in (p.chosen, p.rejected))
            for _, _, e, p in rows
        ]
        weight = np.array([p.weight for *_, p in rows], float)
        return cls(margin, weight, [a for _, a, *_ in rows], sides, [(e, p) for *_, e, p in rows], seen)  # type: ignore[arg-type]

    @property
    def right(self) -> NDArray[np.float64]:
        """1 where the chosen response scores higher, .5 for a tie."""
        found: NDArray[np.float64] = (np.sign(self.margin) + 1) / 2
        return found

    def figures(self) -> tuple[list[Measure], list[str]]:
        """Accuracy, at equal length, the margin, and the baseline of length, with what they come to."""
        grown = np.array([len(a.text) - len(b.text) for a, b in self.seen], float)
        longer = (np.sign(grown) + 1) / 2
        accuracy = mean(self.right, self.prompt)
        level, slope = at_equal_length(self.right, grown)
        gap = paired_difference(self.right, longer, self.prompt)
        verdict = "better than" if gap.low > 0 else "worse than" if gap.high < 0 else "not told apart from"
        measures = [
            Measure("accuracy", accuracy, "the chosen reply scores higher; ties half"),
            Measure("accuracy at equal length", mean(level, self.prompt), "by a logistic regression on length, at 0"),
            Measure("margin", mean(self.margin, self.prompt), "score of the chosen minus score of the rejected"),
            Measure("longer wins", mean(longer, self.prompt), "baseline: the longer reply wins"),
        ]
        words = [
            f"On {len(self.margin)} held-out pairs the accuracy is {accuracy.value:.3f}; it is {verdict} 'the longer "
            f"reply wins' ({longer.mean():.3f}): difference {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]."
        ]
        if abs(slope) > 1:
            words.append(f"Verdicts {'follow' if slope > 0 else 'run against'} length.")
        return measures, words

    def followed(self) -> list[Followed]:
        """Each feature of form beside the reward and beside the human verdicts."""
        found = []
        for name in LOOKED_AT:
            if name not in FEATURES:
                continue
            one = FEATURES[name]
            apart = np.array([one.function(a) - one.function(b) for a, b in self.seen], float)
            human = np.ones_like(apart)
            if apart.any() and self.margin.any():
                told = [symmetric_spearman(v, apart, self.prompt) for v in (self.margin, human)]
                found.append(Followed(name, one.meaning, *told))
        return found

    def groups(self) -> list[Group]:
        """Accuracy by domain and by annotator, where more than one is named."""
        found = []
        for kind, named in (
            ("domain", [e.domain for e, _ in self.of_pair]),
            ("annotator", [p.annotator for _, p in self.of_pair]),
        ):
            names = sorted({n for n in named if n}, key=lambda n: (-named.count(n), n))
            for name in names[:GROUPS] if len(names) > 1 else []:
                here = [i for i, n in enumerate(named) if n == name]
                found.append(Group(kind, name, mean(self.right[here], [self.prompt[i] for i in here])))
        return found


def symmetric_spearman(
    a: NDArray[np.float64], b: NDArray[np.float64], clusters: Sequence[int] | None = None
) -> Interval:
    """Rank correlation of two differences, which know no first and second: turning a pair over changes nothing.

    a, b: (pairs,). Ranks are those of |a| and |b| with the signs put back (0 stays 0); the correlation is uncentred,
    which is Spearman's over all pairs in both orders. The interval is by linearisation, clustered; nan where one of
    the two is 0 everywhere.
    """
    from scipy.stats import rankdata

    # Twice each pair, once turned over: middle ranks of (x, -x) less their mean are odd in x.
    first, second = (rankdata(np.concatenate([x, -x]))[: len(x)] - (2 * len(x) + 1) / 2 for x in (a, b))
    size = [float((r**2).mean()) for r in (first, second)]
    if min(size, default=0) == 0:
        return Interval(float("nan"), -1.0, 1.0, len(a))
    one, two = first / np.sqrt(size[0]), second / np.sqrt(size[1])
    level = float((one * two).mean())
    linear = one * two - level / 2 * (one**2 + two**2) + level
    found = mean(linear, clusters)
    return Interval(level, max(-1.0, found.low), min(1.0, found.high), len(a))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _ranked(known: Sequence[tuple[Example, NDArray[np.float64]]]) -> Measure | None:
    """Kendall's tau-b of the scores with the data's own, the mean over prompts with three responses or more."""
    from scipy.stats import kendalltau

    found, prompts = [], []
    for example, values in known:
        worth = {i: -float(rank) for i, rank in enumerate(example.ranks)} or mean_scores(example)
        which = [i for i in worth if np.isfinite(values[i])]
        if len(which) >= 3 and len({worth[i] for i in which}) > 1 and len({values[i] for i in which}) > 1:
            found.append(float(kendalltau([worth[i] for i in which], values[which]).statistic))
            prompts.append(example.prompt_text)
    if not found:
        return None
    return Measure("rank correlation", mean(found, prompts), "Kendall's tau-b with the data's order, by prompt")


def _chosen_of_many(known: Sequence[tuple[Example, NDArray[np.float64]]], gold: Reward | None) -> list[Point]:
    """Best-of-n over prompts with at least FEWEST scored responses, judged by `gold` or the data's own scores."""
    kept = [(e, v) for e, v in known if len(v) >= FEWEST and np.isfinite(v).all()]
    if gold is not None and kept:
        judged = [in_sum(v) for _, v in scored(gold, [e for e, _ in kept])]
        both = [(v, g) for (_, v), g in zip(kept, judged, strict=True) if np.isfinite(g).all()]
    else:
        own = [(v, mean_scores(e)) for e, v in kept]
        both = [(v, np.array([w[i] for i in range(len(v))])) for v, w in own if len(w) == len(v)]
    return curve([v for v, _ in both], [g for _, g in both]) if both else []


def _said(probes: Sequence[Probed], cal: Calibration) -> list[str]:
    worst = max(probes, key=lambda p: p.flips.low if p.edited else -1, default=None)
    said = []
    if worst is not None and worst.edited and worst.flips.low > 0.02:
        said.append(f"'{worst.name}' alone turns {worst.flips.value:.0%} of the verdicts over: {worst.meaning.lower()}")
    if cal.scale and np.isfinite(cal.scale) and not 0.67 < cal.scale < 1.5:
        what = "too sure of itself" if cal.scale < 1 else "surer than it says"
        said.append(f"It is {what}: margins times {cal.scale:.2g} would be calibrated best (ECE {cal.ece:.3f}).")
    return said
