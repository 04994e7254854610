"""Which methods suit a data set: a table of rules on what was measured, each with its reason and its source.

A rule fires where every one of its conditions holds. A condition on an estimate holds only where the whole interval
lies on its side, so that chance picks no method. Methods are ordered by how many rules speak for them, then by the
verdict on their claim, then by name: there is nothing else to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from boresight.catalogue.lacking import Held, lacking
from boresight.catalogue.rows import rows
from boresight.catalogue.verdicts import verdict
from boresight.objectives import objectives
from boresight.stats import Interval

FIGURES = {
    "pairs": "share of examples that hold a preference",
    "labels": "share of examples with responses that are labelled by themselves",
    "desirable": "share of those labels that are desirable",
    "lists": "share of examples with three graded responses or more",
    "scored": "share of examples with a preference between two scored responses",
    "attributes": "number of names that scores go by",
    "stepped": "share of examples with a preference between responses whose steps are scored",
    "flips": "share of votes that are turned over, from items that several judged",
    "suspect": "share of labels that a model of words contradicts, where it is surest and good enough to tell",
    "longer_wins": "share of pairs in which the longer response is the chosen one",
    "ties": "share of comparisons that are ties",
    "alpha": "Krippendorff's alpha between the annotators",
    "annotators": "number of annotators that are named",
    "alike": "share of pairs whose responses have four fifths of their words in common",
    "judged_once": "share of compared items with one verdict",
    "off_policy": "nats a token by which the responses are less likely than the model's own samples",
}
"""What rules may ask for. All but off_policy are measured on the data alone; that one needs the model."""


@dataclass(frozen=True)
class Condition:
    """A figure that lies above or below a value, with its whole interval where it is an estimate."""

    figure: str
    side: Literal["above", "below"]
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {self.side} {self.value:g}"

    def holds(self, figures: Mapping[str, Interval]) -> bool:
        """Whether it does; not where the figure was not measured."""
        found = figures.get(self.figure)
        if found is None:
            return False
        return found.low > self.value if self.side == "above" else found.high < self.value


@dataclass(frozen=True)
class Rule:
    """Where the conditions hold, these methods suit, for this reason.

    reason: in words; {figure} stands for its value. methods: each with who says so, and what it does about it.
    threshold: where the values of the conditions are from. options: what to set, by method. counts: 0 for a method
    that is named for comparison only.
    """

    id: str
    when: tuple[Condition, ...]
    reason: str
    methods: Mapping[str, str]
    threshold: str
    options: Mapping[str, str] | None = None
    counts: int = 1


def _when(text: str) -> tuple[Condition, ...]:
    """`pairs above 0, ties below 0.1`."""
    made = []
    for words in text.split(","):
        figure, side, value = words.split()
        assert figure in FIGURES
        assert side in ("above", "below")
        made.append(Condition(figure, side, float(value)))  # type: ignore[arg-type]
    return tuple(made)


RULES: tuple[Rule, ...] = (
    Rule(
        "baseline", _when("pairs above 0"),
        "the method that others are compared with",
        {"dpo": "Rafailov et al. 2023"},
        "any pair will do", counts=0,
    ),
    Rule(
        "noisy-votes", _when("flips above 0.1"),
        "{flips} of the votes are turned over: with a known rate the loss can be made unbiased",
        {"rdpo-robust": "Ray Chowdhury et al. 2024, sec. 3.1"},
        "check's own threshold for disagreeing votes", {"rdpo-robust": "eps={flips:.2f}"},
    ),
    Rule(
        "suspect-labels", _when("suspect above 0.1"),
        "{suspect} of the surest labels are contradicted by a model of words: at most so many are wrong there",
        {
            "rdpo-robust": "Ray Chowdhury et al. 2024, sec. 3.1",
            "beta-dpo": "Wu et al. 2024 (beta-DPO): pairs whose reward gap is an outlier are left out",
        },
        "check's own threshold for suspect labels", {"rdpo-robust": "eps={suspect:.2f} (an upper estimate)"},
    ),
    Rule(
        "longer-is-chosen", _when("longer_wins above 0.55"),
        "the longer response is chosen in {longer_wins} of the pairs: DPO's reward grows with length",
        {
            "simpo": "Meng et al. 2024: the reward is the mean log-prob",
            "ln-dpo": "Ahrabian et al. 2024 (The Hitchhiker's Guide): the log-ratio is divided by the length",
            "ld-dpo": "Liu et al. 2024 (Length Desensitization): tokens beyond the shorter response count for less",
            "r-dpo": "Park et al. 2024, eq. 9: a price on each token",
        },
        "check's own threshold for a length shortcut",
    ),
    Rule(
        "lists", _when("lists above 0.1"),
        "{lists} of the examples grade three responses or more: pairs made of them lose the order",
        {
            "lipo": "Liu et al. 2025 (LiPO), eq. 8",
            "plackett-luce": "Rafailov et al. 2023, app. A.3",
            "rankdpo": "Karthik et al. 2024 (RankDPO)",
            "tpo-tree": "Liao et al. 2024 (tree preference optimisation)",
            "irpo-ranking": "Wu et al. 2025 (in-context ranking)",
        },
        "ours: below a tenth, lists are not what the data is about",
    ),
    Rule(
        "graded-by-rewards", _when("lists above 0.1, scored above 0.1"),
        "several responses to a prompt are scored ({lists} of the examples): their rewards are a target",
        {"exo-rw": "Ji et al. 2024 (EXO-rw)"},
        "ours, as for lists",
    ),
    Rule(
        "unpaired", _when("labels above 0.5, pairs below 0.1"),
        "single responses are labelled ({labels} of the examples), and there is next to nothing to pair",
        {
            "kto": "Ethayarajh et al. 2024, sec. 4.1",
            "bco": "Jung et al. 2024, sec. 3",
            "pmpo": "Abdolmaleki et al. 2024",
            "rpo-relative-unpaired": "Yin et al. 2024 (relative preference optimisation)",
        },
        "ours: more than half of the examples are labelled, fewer than a tenth hold a preference",
    ),
    Rule(
        "unbalanced-labels", _when("labels above 0.5, desirable below 0.3"),
        "only {desirable} of the labels are desirable",
        {
            "kto": "Ethayarajh et al. 2024: weights make both kinds count alike",
            "bco": "Jung et al. 2024, sec. 4: a shift and weights for kinds that differ",
        },
        "ours: fewer than three in ten",
    ),
    Rule(
        "only-undesirable", _when("labels above 0.5, desirable below 0.02"),
        "nearly all labels are undesirable: there is no contrast in the data",
        {
            "d2o": "Duan et al. 2024, eq. 3: contrast with samples of the model's own",
            "pmpo": "Abdolmaleki et al. 2024: from rejected responses alone, with KL",
        },
        "ours: fewer than two in a hundred",
    ),
    Rule(
        "scored-pairs", _when("scored above 0.5"),
        "both responses are scored in {scored} of the examples: pairs need not count alike",
        {
            "odpo": "Amini et al. 2024: the margin grows with the gap in score",
            "dpo-soft": "Furuta et al. 2024: soft labels from scores",
            "rpo-reward-aware": "Sun et al. 2025: implicit gaps are matched to the scores'",
            "rdpo-refined": "Gallego 2024: scores make up for noisy pairs",
        },
        "ours: more than half",
    ),
    Rule(
        "several-attributes", _when("scored above 0.5, attributes above 1.5"),
        "scores go by {attributes:.0f} names: objectives can be weighed against each other",
        {"modpo": "Zhou et al. 2023 (MODPO)"},
        "two names or more", {"modpo": "others=NAME"},
    ),
    Rule(
        "ties", _when("ties above 0.1"),
        "{ties} of the comparisons are ties: responses are often about as good",
        {
            "dpo-soft": "Furuta et al. 2024: responses that are nearly as good move little",
            "ipo": "Azar et al. 2023, eq. 17: the margin is fitted to a finite value, whatever the pair",
        },
        "ours: more than a tenth",
    ),
    Rule(
        "annotators-disagree", _when("annotators above 1.5, alpha below 0.667"),
        "{annotators:.0f} annotators agree to alpha = {alpha}: many verdicts are theirs alone",
        {
            "rdpo-robust": "Ray Chowdhury et al. 2024, sec. 3.1: verdicts turned over at random",
            "dpo": "Mitchell 2023, eq. 3: label_smoothing keeps the margin finite",
        },
        "Krippendorff 2004, sec. 11.4: no conclusions below .667", {"dpo": "label_smoothing=0.1"},
    ),
    Rule(
        "certain-verdicts", _when("judged_once below 0.5, flips below 0.02"),
        "items were judged again and hardly a vote was turned over ({flips}): verdicts are as good as certain",
        {"ipo": "Azar et al. 2023: with deterministic preferences DPO's pull to the reference fades, IPO's does not"},
        "ours: fewer than two votes in a hundred, most items judged twice or more",
    ),
    Rule(
        "edits", _when("alike above 0.3"),
        "in {alike} of the pairs the two responses are nearly the same: DPO then lowers both",
        {
            "dpop": "Pal et al. 2024, eq. 3: a penalty where the chosen falls below the reference",
            "dpo-bmc": "Jiang et al. 2024: tokens that differ weigh more",
            "gradient-entanglement": "Yuan et al. 2024: normalised gradients",
            "dpo-shift": "DPO-Shift, 2025: the rejected reward counts for less",
        },
        "ours: three pairs in ten, four fifths of the words",
    ),
    Rule(
        "scored-steps", _when("stepped above 0.1"),
        "steps are scored in {stepped} of the examples",
        {"robust-2d-dpo": "Shashidhar et al. 2025"},
        "ours, as for lists",
    ),
    Rule(
        "off-policy", _when("off_policy above 1"),
        "the responses are {off_policy} nats a token less likely than the model's own: it would not write them",
        {
            "wpo": "Zhou et al. 2024, eq. 1: pairs that the policy might have written count more",
            "rpo-sft-regularizer": "Liu et al. 2024: the supervised term against overoptimisation",
            "sft": "Rafailov et al. 2023, sec. 4: first on the chosen responses, where the reference is not theirs",
        },
        "check's own threshold: a token is e times less likely",
    ),
    Rule(
        "demonstrations", _when("pairs below 0.01, labels below 0.01, lists below 0.01"),
        "there is no feedback to learn from, only responses",
        {"sft": "Ouyang et al. 2022, sec. 3.5"},
        "fewer than one in a hundred",
    ),
)  # fmt: skip
"""All rules. `boresight methods --for DATA --rules` prints them."""

ORDER = ("holds", "not tested yet", "no claim to test", "undecided", "does not hold", "broken")
"""Verdicts, the most encouraging first, for methods that as many rules speak for."""


@dataclass(frozen=True)
class Reason:
    """A rule that fired for a method, in words, with what to set."""

    rule: str
    words: str
    source: str
    options: str = ""


@dataclass(frozen=True)
class Suggestion:
    """A method that suits, why, and what is known of its claim."""

    method: str
    reasons: tuple[Reason, ...]
    verdict: str
    claim: str


@dataclass(frozen=True)
class Choice:
    """Methods for a data set, the best first; what was measured; what cannot run on it, by reason."""

    figures: Mapping[str, Interval]
    suggestions: tuple[Suggestion, ...]
    cannot: Mapping[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "figures": {k: v.to_dict() | {"meaning": FIGURES[k]} for k, v in self.figures.items()},
            "suggestions": [
                {"method": s.method, "verdict": s.verdict, "claim": s.claim, "reasons": [vars(r) for r in s.reasons]}
                for s in self.suggestions
            ],
            "cannot": {why: list(ids) for why, ids in self.cannot.items()},
        }


def choose(figures: Mapping[str, Interval], has: Held) -> Choice:
    """Apply the rules to what was measured; methods that lack something in the data are left out, and named."""
    cannot: dict[str, list[str]] = {}
    for method in objectives().values():
        lack = lacking(method, has)
        if lack is not None:
            cannot.setdefault(lack.what, []).append(method.id)
    out = {id for ids in cannot.values() for id in ids}
    reasons: dict[str, list[Reason]] = {}
    counts: dict[str, int] = {}
    for rule in fired(figures):
        for id in (m for m in rule.methods if m not in out):
            reasons.setdefault(id, []).append(_reason(rule, id, figures))
            counts[id] = counts.get(id, 0) + rule.counts
    verdicts = {id: _verdict(id) for id in reasons}
    ordered = sorted(reasons, key=lambda id: (-counts[id], ORDER.index(verdicts[id]), id))
    made = [Suggestion(id, tuple(reasons[id]), verdicts[id], str(rows()[id]["claim"])) for id in ordered]
    return Choice(dict(figures), tuple(made), {why: tuple(ids) for why, ids in cannot.items()})


def fired(figures: Mapping[str, Interval], rules: Sequence[Rule] = RULES) -> list[Rule]:
    """The rules of which every condition holds."""
    return [rule for rule in rules if all(c.holds(figures) for c in rule.when)]


class _Values(dict[str, Any]):
    """Values of figures, as sentences name them."""

    def __init__(self, figures: Mapping[str, Interval]) -> None:
        super().__init__({name: _Value(figure.value) for name, figure in figures.items()})


class _Value(float):
    """A number with two places unless a form is asked for."""

    def __format__(self, form: str) -> str:
        return float(self).__format__(form or ".2f")


def _reason(rule: Rule, id: str, figures: Mapping[str, Interval]) -> Reason:
    values = _Values(figures)
    options = (rule.options or {}).get(id, "")
    return Reason(rule.id, rule.reason.format_map(values), rule.methods[id], options.format_map(values))


def _verdict(id: str) -> str:
    return verdict(id) or ("not tested yet" if rows()[id]["claim"] else "no claim to test")
