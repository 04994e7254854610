"""A cleaned copy of data: what is surely wrong taken out, each change written down.

The rules, in this order:
1. A response without text is taken out, and all feedback on it.
2. A pair of two equal texts is taken out.
3. Where the same annotator (or none is named) compared the same two responses both ways, or labelled a response both
   ways, the majority is kept; where it is even, none. Disagreement between named annotators is kept: it is data.
4. Of equal feedback the first is kept.
A row that loses its last pair, or its last label, is dropped. Ranks and scores cannot be taken out one by one: a row
whose ranks or scores fall under 2 to 4 is dropped whole. Nothing is corrected, moved or invented.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from boresight.data.checks import Columns, Looked
from boresight.data.checks._columns import Ints, mixed, numbered
from boresight.data.checks.duplicates import copied
from boresight.data.example import Example
from boresight.data.rows import ExampleTable
from boresight.data.table import Examples
from boresight.data.write import write
from boresight.errors import InputError


@dataclass
class Fixed:
    """What `fix` did. read and written: examples. changed: how many changes, by the finding that they mend."""

    out: Path
    changes: Path
    read: int
    written: int
    changed: dict[str, int]

    def lines(self) -> list[str]:
        """In words."""
        why = ", ".join(f"{n:,} {id}" for id, n in self.changed.items()) or "nothing"
        return [
            f"{self.out}: {self.written:,} of {self.read:,} examples written",
            f"{self.changes}: {sum(self.changed.values()):,} changes ({why})",
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.out),
            "changes": str(self.changes),
            "read": self.read,
            "written": self.written,
            "changed": self.changed,
        }


@dataclass
class _Plan:
    """What to take out: pairs and labels by (row, place), rows whole; each with the reason."""

    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    labels: dict[tuple[int, int], str] = field(default_factory=dict)
    rows: dict[int, str] = field(default_factory=dict)


def fix(examples: ExampleTable, out: str | Path) -> Fixed:
    """Write a cleaned copy of the examples to `out` (.jsonl or .jsonl.gz), and beside it NAME.changes.jsonl.

    The record has one line for each change: source, what was taken out, why (the id of the finding). Rows that could
    not be read are in it too: the first fifty one by one, with their number in the last of these lines.
    Raises InputError if either file exists already, cannot be written, or if nothing would be left.
    """
    out = Path(out)
    changes = out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".changes.jsonl")
    for path in (out, changes):
        if path.exists():
            raise InputError(f"{path}: there is a file already", mend="name another; nothing is ever overwritten")
    plan = _plan(examples)
    changed: Counter[str] = Counter()
    aside = changes.with_name(f".{changes.name}.{uuid.uuid4().hex}")
    try:
        changes.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="\n") as record:

            def note(source: str, what: str, why: str, count: int = 1) -> None:
                changed[why] += count
                line = {"source": source, "what": what, "why": why}
                record.write(json.dumps(line | ({"count": count} if count > 1 else {}), ensure_ascii=False) + "\n")

            _unreadable(examples, note)
            written = write(_kept(examples, plan, note), out)
        os.replace(aside, changes)
    except OSError as error:
        raise InputError(f"{changes}: cannot be written: {error.strerror}", mend="choose another folder") from None
    finally:
        aside.unlink(missing_ok=True)
    return Fixed(out, changes, len(examples), written, dict(changed))


def _plan(examples: ExampleTable) -> _Plan:
    """One pass over the data, then decisions on hashes alone."""
    columns = Columns()
    for index, example in enumerate(examples):
        columns.look(Looked(_filled(example)[0], index))
    plan = _Plan()
    votes = columns.decided
    identical = columns.votes.better == columns.votes.worse
    everything = columns.votes
    for row, place, own in zip(
        *(x[identical] for x in (everything.row, everything.place, everything.own)), strict=True
    ):
        _out(plan, int(row), int(place), bool(own), "identical-pairs")
    lost = _outvoted(mixed(votes.item, votes.annotator), votes.up.astype(np.int64))
    lost &= votes.better != votes.worse
    for row, place, own in zip(votes.row[lost], votes.place[lost], votes.own[lost], strict=True):
        _out(plan, int(row), int(place), bool(own), "reversed-duplicates")
    labels = columns.labels
    lost = _outvoted(mixed(labels["answer"], labels["annotator"]), labels["desirable"])
    for row, place in zip(labels["row"][lost], labels["place"][lost], strict=True):
        plan.labels.setdefault((int(row), int(place)), "conflicting-labels")
    (_, pairs), (_, judged), (others, wholes) = copied(columns)
    own_votes = everything.take(everything.own)
    for place in pairs:
        plan.pairs.setdefault((int(own_votes.row[place]), int(own_votes.place[place])), "duplicate-rows")
    for place in judged:
        plan.labels.setdefault((int(labels["row"][place]), int(labels["place"][place])), "duplicate-rows")
    for row in others[wholes]:
        plan.rows.setdefault(int(row), "duplicate-rows")
    return plan


def _out(plan: _Plan, row: int, place: int, own: bool, why: str) -> None:
    if own:
        plan.pairs.setdefault((row, place), why)
    else:
        plan.rows.setdefault(row, why)


def _outvoted(keys: Ints, up: Ints) -> Any:
    """Which entries lie in the minority of their group; all of an even group that has both sides."""
    groups, count = numbered(keys)
    ups, all_ = np.bincount(groups, up, count), np.bincount(groups, minlength=count)
    balance = np.sign(2 * ups - all_)[groups]
    split = ((ups > 0) & (ups < all_))[groups]
    return split & (np.where(up > 0, 1, -1) != balance)


def _kept(examples: ExampleTable, plan: _Plan, note: Any) -> Iterator[Example]:
    written = 0
    for index, whole in enumerate(examples):
        source = whole.source or f"example {index}"
        example, empty = _filled(whole)
        for number in empty:
            note(source, f"response {number} and the feedback on it", "empty-responses")
        why = plan.rows.get(index)
        if why is not None:
            note(source, "the row", why)
            continue
        pairs, labels = [], []
        for place, pair in enumerate(example.pairs):
            why = plan.pairs.get((index, place))
            if why is None:
                pairs.append(pair)
            else:
                note(source, f"pair {place}: response {pair.chosen} over {pair.rejected}", why)
        for place, label in enumerate(example.labels):
            why = plan.labels.get((index, place))
            if why is None:
                labels.append(label)
            else:
                note(source, f"label {place}: response {label.response} is {_word(label.desirable)}", why)
        emptied = (whole.pairs and not pairs) or (whole.labels and not labels and not pairs) or not example.responses
        if emptied or (empty and _feedback(whole) and not _feedback(example)):
            continue
        written += 1
        changed = len(pairs) < len(example.pairs) or len(labels) < len(example.labels)
        yield replace(example, pairs=tuple(pairs), labels=tuple(labels)) if changed else example
    if not written:
        raise InputError("no example would be left", mend="look at the findings: the data was not made as it was meant")


def _word(desirable: bool) -> str:
    return "desirable" if desirable else "undesirable"


def _feedback(example: Example) -> bool:
    return bool(example.pairs or example.labels or example.ranks or example.scores)


def _filled(example: Example) -> tuple[Example, list[int]]:
    """The example without responses that have no text, and which those were."""
    empty = [i for i, r in enumerate(example.responses) if not r.text.strip()]
    if not empty:
        return example, []
    left = [i for i in range(len(example.responses)) if i not in empty]
    place = {old: new for new, old in enumerate(left)}
    return replace(
        example,
        responses=tuple(example.responses[i] for i in left),
        pairs=tuple(
            replace(p, chosen=place[p.chosen], rejected=place[p.rejected])
            for p in example.pairs
            if p.chosen in place and p.rejected in place
        ),
        scores=tuple(replace(s, response=place[s.response]) for s in example.scores if s.response in place),
        labels=tuple(replace(x, response=place[x.response]) for x in example.labels if x.response in place),
        ranks=tuple(example.ranks[i] for i in left) if example.ranks else (),
        steps=tuple(replace(s, response=place[s.response]) for s in example.steps if s.response in place),
    ), empty


def _unreadable(examples: ExampleTable, note: Any) -> None:
    report = examples.report if isinstance(examples, Examples) else None
    if report is None or not report.skipped:
        return
    known = report.problems if not report.partial else ()
    for problem in known[: report.skipped]:
        note(f"{problem.file}:{problem.line}", str(problem).partition(": ")[2], "unreadable-rows")
    rest = report.skipped - min(len(known), report.skipped)
    if rest:
        note(report.source, "rows that could not be read", "unreadable-rows", rest)
