"""Shortcuts: what a model can learn about the verdicts without reading the answers."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.data.checks._base import Check, Finding, Kind, Looked
from boresight.data.checks._columns import Ints, numbered, share_of
from boresight.data.checks.responses import refuses
from boresight.stats import Interval

LIST = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
WORD = re.compile(r"[\w'’]+")
MARKS = ("list", "bold", "code", "heading", "link", "question", "exclamation", "refusal")
"""Yes-or-no features of a response."""
EFFECT = 0.05
"""How far from one half a share must lie, with all of its interval, to be a finding."""
STRICT = 0.999
"""Confidence for the many small features, so that chance among them is not told as a finding."""
LEAST = 30
"""Pairs that a feature must tell apart to be judged."""
PHRASES = 40
"""How many beginnings of responses the shortcut model knows: the most frequent ones."""
SAMPLE = 20_000
"""Pairs that the shortcut model is fitted and tried on."""
FOLDS = 5
PLACED = ("votes", "llmbar", "llmbar-judge-votes", "pandalm", "llmfao", "icai")
"""Formats that list the responses as they were shown; others may list the chosen one first."""


class Shortcuts(Check):
    """P(longer wins), position, formatting, first words, and the accuracy of a model that knows nothing else."""

    kinds = (
        Kind(
            "length-shortcut",
            "warning",
            "the longer response is the chosen one",
            "length is learned before content: answers grow (or shrink) with training",
            "balance the pairs by length, use a length-normalised method (simpo), or compare at equal length",
        ),
        Kind(
            "position-shortcut",
            "warning",
            "the response listed first is the chosen one",
            "annotators or judges preferred a place; as labels these votes are noise",
            "show each pair in both orders, or weigh by place; check that no column is swapped",
        ),
        Kind(
            "format-shortcut",
            "warning",
            "formatting goes with the verdict",
            "the model learns the formatting, whatever the answer says",
            "balance the pairs by that feature, or strip the formatting on both sides",
        ),
        Kind(
            "phrase-shortcut",
            "warning",
            "a response's first words go with the verdict",
            "the model learns the opening words, whatever follows them",
            "balance the pairs by their opening, or leave the phrase out on both sides",
        ),
        Kind(
            "shortcut-model",
            "warning",
            "held-out accuracy of a model that sees length, formatting, place and first words alone",
            "a preference accuracy up to this figure shows nothing about content",
            "report this figure beside every accuracy; balance the pairs by the findings above",
        ),
    )

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.row, self.prompt, self.first = array("q"), array("q"), array("b")
        self.length, self.growth = array("b"), array("f")
        self.marks = {name: array("b") for name in MARKS}
        self.opening = array("i"), array("i")
        self.phrases: dict[str, int] = {}
        self.told: dict[str, Any] = {}

    def look(self, row: Looked) -> None:
        """Features of both sides of each pair, as small numbers."""
        pairs = row.pairs
        if not pairs:
            return
        used = {i for pair in pairs for i in (pair.chosen, pair.rejected)}
        seen = {i: _features(row.texts[i]) for i in used}
        for pair in pairs:
            (length, marks, opening), (other, against, second) = seen[pair.chosen], seen[pair.rejected]
            self.row.append(row.index)
            self.prompt.append(row.prompt)
            self.first.append(1 if pair.chosen < pair.rejected else -1)
            self.length.append((length > other) - (length < other))
            self.growth.append(log((1 + length) / (1 + other)))
            if marks != against:
                for name in MARKS:
                    self.marks[name].append((name in marks) - (name in against))
            else:
                for name in MARKS:
                    self.marks[name].append(0)
            for column, phrase in zip(self.opening, (opening, second), strict=True):
                column.append(self._number(phrase))

    def _number(self, phrase: str) -> int:
        """A number for an opening; -1 beyond the first 100,000 different ones, which bounds the memory."""
        if phrase not in self.phrases and len(self.phrases) >= 100_000:
            return -1
        return self.phrases.setdefault(phrase, len(self.phrases))

    def findings(self) -> Iterator[Finding]:
        """Shares over all pairs, intervals clustered by prompt; the model on a sample."""
        count = len(self.row)
        if not count:
            return
        prompts = numbered(np.frombuffer(self.prompt, np.int64))[0]
        rows, length, first = (np.asarray(x) for x in (self.row, self.length, self.first))
        places = self._places(first)
        longer = share_of(length, prompts)
        self.told["longer_wins"] = longer.to_dict()
        growth = np.asarray(self.growth) * np.sign(longer.value - 0.5)
        yield from self._one("length-shortcut", length, prompts, rows[length != 0], rows[np.argsort(-growth)])
        if places is not None:
            placed = share_of(places, prompts)
            self.told["first_wins"] = placed.to_dict()
            taken = places == np.sign(placed.value - 0.5)
            yield from self._one("position-shortcut", places, prompts, rows, rows[taken])
        for name in MARKS:
            mark = np.asarray(self.marks[name])
            yield from self._mark("format-shortcut", name, f"the side with {MARKED[name]}", mark, rows, prompts)
        frequent = self._frequent()
        for phrase, sign in frequent.items():
            yield from self._mark("phrase-shortcut", phrase, f"the side beginning {phrase!r}", sign, rows, prompts)
        features = np.column_stack(
            [length, np.asarray(self.growth), *(np.asarray(m) for m in self.marks.values()), *frequent.values()]
            + ([places] if places is not None else [])
        )
        accuracy = _held_out(features, prompts, self.setting.seed)
        if accuracy is not None:
            self.told["shortcut_model"] = accuracy.to_dict()
            if accuracy.low > 0.5 + EFFECT:
                yield self.found("shortcut-model", round(accuracy.value * accuracy.n), accuracy.n, (), share=accuracy)

    def _places(self, first: NDArray[Any]) -> NDArray[Any] | None:
        """The place of the chosen side, where the order in which the responses are listed says something."""
        form = self.setting.read.format if self.setting.read is not None else ""
        known = any(name in PLACED for name in form.split(", "))
        return first if known or np.mean(first < 0) > 0.02 else None

    def _frequent(self) -> dict[str, NDArray[Any]]:
        """+1 where only the chosen side begins with the phrase, -1 where only the rejected one does."""
        chosen, rejected = (np.asarray(column) for column in self.opening)
        apart = chosen != rejected
        both = np.concatenate([chosen[apart], rejected[apart]])
        counts = np.bincount(both[both >= 0], minlength=len(self.phrases))
        names = list(self.phrases)
        best = [i for i in np.argsort(-counts, kind="stable")[:PHRASES] if counts[i] >= LEAST and names[i]]
        return {names[i]: (chosen == i).astype(np.int8) - (rejected == i) for i in best}

    def _mark(
        self, id: str, name: str, title: str, sign: NDArray[Any], rows: NDArray[Any], prompts: Ints
    ) -> Iterator[Finding]:
        """A feature that one side has and the other has not."""
        apart = sign != 0
        if apart.sum() < LEAST:
            return
        strict = share_of(sign[apart], prompts[apart], STRICT)
        share = share_of(sign[apart], prompts[apart])
        self.told.setdefault(id.replace("-", "_"), {})[name] = share.to_dict()
        if strict.low > 0.5 + EFFECT or strict.high < 0.5 - EFFECT:
            count = int((sign > 0).sum())
            yield self.found(
                id, count, int(apart.sum()), rows[apart], share=share, title=f"{title} is the chosen one",
                more={"feature": name},
            )  # fmt: skip

    def _one(
        self, id: str, sign: NDArray[Any], prompts: Ints, rows: NDArray[Any], show: NDArray[Any]
    ) -> Iterator[Finding]:
        """A finding where the share is far from one half; a note where it is surely a little beside it."""
        if np.count_nonzero(sign) < LEAST:
            return
        share = share_of(sign, prompts)
        far = share.low > 0.5 + EFFECT or share.high < 0.5 - EFFECT
        if far or share_of(sign, prompts, STRICT).excludes(0.5):
            count, severity = round(share.value * share.n), None if far else "note"
            yield self.found(id, count, share.n, rows, share=share, show=show, severity=severity)  # type: ignore[arg-type]

    def facts(self) -> dict[str, Any]:
        """All shares, whether or not they are findings."""
        return self.told


MARKED = {
    "list": "a list",
    "bold": "bold text",
    "code": "a block of code",
    "heading": "a heading",
    "link": "a link",
    "question": "a question at its end",
    "exclamation": "an exclamation mark",
    "refusal": "a refusal",
}


def _features(text: str) -> tuple[int, frozenset[str] | tuple[str, ...], str]:
    """Length in characters, the marks it has, and its first two words."""
    marks = []
    if (("\n" in text) or text[:1] in "-*•0123456789 ") and LIST.search(text):
        marks.append("list")
    if "**" in text and text.count("**") > 1:
        marks.append("bold")
    if "```" in text:
        marks.append("code")
    if text.startswith("#") or "\n#" in text:
        marks.append("heading")
    if "http" in text and "://" in text:
        marks.append("link")
    if text[-8:].rstrip().endswith("?"):
        marks.append("question")
    if "!" in text:
        marks.append("exclamation")
    if refuses(text):
        marks.append("refusal")
    return len(text), tuple(marks), " ".join(WORD.findall(text[:48])[:2]).lower()


def _held_out(features: NDArray[Any], prompts: Ints, seed: int) -> Interval | None:
    """Accuracy of a Bradley-Terry model on the features, each pair judged by a model fitted on other prompts."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    random = np.random.default_rng(seed)
    if len(features) > SAMPLE:
        taken = np.sort(random.choice(len(features), SAMPLE, replace=False))
        features, prompts = features[taken], prompts[taken]
    prompts, count = numbered(prompts)
    if count < 20:
        return None
    fold = random.permutation(count)[prompts] % FOLDS
    features = features.astype(np.float64)
    features /= np.maximum(np.sqrt((features**2).mean(0)), 1e-9)
    sign = np.zeros(len(features))
    for k in range(FOLDS):
        x = features[fold != k]
        # Each pair in both orders, since the solver needs two classes; half the C makes up for it.
        model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=500)
        with threadpool_limits(1):  # so small a problem only waits for more threads
            model.fit(np.concatenate([x, -x]), np.repeat([1, 0], len(x)))
        sign[fold == k] = np.sign(features[fold == k] @ model.coef_[0])
    return share_of(sign, prompts)
