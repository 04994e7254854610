"""Look at the data before training: how it was read, what feedback it holds, what tokens it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from boresight.data.render import Renderer
from boresight.data.rowreport import RowsReport, quantiles
from boresight.data.rows import ExampleTable, Kind, make_rows, wanted
from boresight.errors import BoresightError, InputError

if TYPE_CHECKING:
    from rich.console import Group

BOOKKEEPING = ("no-feedback", "tie")
"""Reasons for leaving out a row that are no fault of the data."""


@dataclass
class Shown:
    """One sequence of a row: its tokens as (text, trained) pieces, in the order of the text, and painted."""

    title: str
    pieces: list[tuple[str, bool]]
    painted: Any


@dataclass
class CheckResult:
    """What `check` found. `findings` are the things to look at, in words; without any the data is fit to train on.

    read: how the data was read (None for examples that were handed over). feedback: counts of what it holds.
    rows: what became of it under the model's tokenizer and template (None without a model).
    """

    source: str
    read: dict[str, Any] | None
    feedback: dict[str, Any]
    kind: Kind
    rows: RowsReport | None = None
    shown: list[Shown] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    read_lines: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "source": self.source,
            "read": self.read,
            "feedback": self.feedback,
            "kind": self.kind,
            "rows": self.rows.to_dict() if self.rows else None,
            "shown": [{"title": s.title, "pieces": [list(p) for p in s.pieces]} for s in self.shown],
            "findings": self.findings,
        }

    def lines(self) -> list[str]:
        """The result in words, without the rows that are shown in colour."""
        lines = list(self.read_lines)
        counts = self.feedback
        held = [f"{counts[name]:,} {name}" for name in ("pairs", "ties", "labels", "scores", "ranked") if counts[name]]
        lines.append(
            f"{counts['examples']:,} examples, {counts['responses']:,} responses; {', '.join(held) or 'no feedback'}"
        )
        if counts["response_characters"]:
            of = counts["response_characters"]
            lines.append(
                f"characters a response: median {of['median']:.0f}, 99% up to {of['p99']:.0f}, most {of['max']:.0f}"
            )
        if self.rows:
            lines += [*_told(self.rows.renderer), *self.rows.facts()]
            lines += [f"left out: {self.rows.reason(name)}" for name in BOOKKEEPING if name in self.rows.dropped]
        lines += [f"finding: {f}" for f in self.findings] or ["nothing found that needs mending"]
        return lines

    def __rich__(self) -> Group:
        return self.painted()

    def painted(self) -> Group:
        """Everything for a terminal: the lines, then the rows in colour with their legend."""
        from rich.console import Group
        from rich.text import Text

        from boresight.data.show import LEGEND, escape

        parts: list[Any] = [Text(escape(line, keep="\n")) for line in self.lines()]
        if self.shown:
            parts += [Text(""), Text(LEGEND, style="italic")]
            parts += [p for s in self.shown for p in (Text(""), s.painted)]
        return Group(*parts)


def check(
    data: str | PathLike[str] | ExampleTable,
    model: str | None = None,
    *,
    show: int = 0,
    template: str = "auto",
    spans: str | Iterable[int] = "last",
    max_length: int | None = None,
    truncation: str = "drop",
    format: str | None = None,
    strict: bool = False,
    limit: int | None = None,
) -> CheckResult:
    """Find what will go wrong with this data, and show what would be trained on.

    data: a path or hub name (see `read`), or examples. model: a folder or hub name whose tokenizer and template make
    the tokens; without one only the data itself is looked at. show: so many rows are given in pieces and painted.
    The other options are those of `Renderer` and `read`.

    Rows are made of pairs where the data has any, else of labels, else of its demonstrations; they are kept in the
    cache, where training with the same options finds them. Raises InputError for data or a model that cannot be used.
    """
    examples, read_report = _read(data, format=format, strict=strict, limit=limit)
    feedback, kind, labelled, findings = _feedback(examples)
    result = CheckResult(
        source=data if isinstance(data, str) else fspath(data) if isinstance(data, PathLike) else "examples",
        read=read_report.to_dict() if read_report is not None else None,
        feedback=feedback,
        kind=kind,
        findings=findings,
        read_lines=list(read_report.lines()) if read_report is not None else [],
    )
    if read_report is not None and (read_report.skipped or read_report.partial):
        findings.insert(0, f"rows that could not be read: {read_report.skipped}; only in part: {read_report.partial}")
    if model is None:
        return result
    tokenizer = _tokenizer(model)
    options: dict[str, Any] = {"template": template, "spans": spans, "truncation": truncation}
    renderer = Renderer(tokenizer, max_length=max_length, **options)  # which says what is wrong with a word
    rows = make_rows(examples, renderer, kind=kind, labelled=labelled)
    result.rows = rows.report
    findings += [f"left out: {rows.report.reason(name)}" for name in rows.report.dropped if name not in BOOKKEEPING]
    findings += [*rows.report.warnings(), *_lacking(renderer)]
    for number, row in enumerate(rows[: max(0, show)]):
        names = ("chosen", "rejected") if kind == "pairs" else ("response",)
        for name, tokens in zip(names, row.sequences, strict=False):
            result.shown.append(
                _show(tokens, tokenizer, f"row {number} ({row.source or f'example {row.index}'}), {name}")
            )
    return result


def _read(data: Any, *, format: str | None, strict: bool, limit: int | None) -> tuple[ExampleTable, Any]:
    if not isinstance(data, (str, PathLike)):
        return data, None
    from boresight.data.read import read

    examples = read(fspath(data), format=format, strict=strict, limit=limit)
    return examples, examples.report


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except BoresightError:
        raise
    except Exception as error:  # whatever the many tokenizer classes raise, the user can only mend the name
        raise InputError(
            f"no tokenizer can be loaded from {model}: {str(error).splitlines()[0] if str(error) else error!r}",
            mend="give a folder that holds tokenizer.json or a hub name that exists, spelled in full",
        ) from error


def _feedback(examples: ExampleTable) -> tuple[dict[str, Any], Kind, bool, list[str]]:
    """Counts, the kind of rows that the data is fit for, whether by labels, and findings in the text itself."""
    counts: Counter[str] = Counter()
    prompts, answers = [], []
    same: list[str] = []
    both: list[str] = []
    empty: list[str] = []
    for index, example in enumerate(examples):
        source = example.source or f"example {index}"
        made = wanted(example, kind="pairs", labelled=False, ranked="all")
        counts["examples"] += 1
        counts["responses"] += len(example.responses)
        counts["pairs"] += len(made)
        counts["ties"] += sum(p.tie for p in example.pairs)
        counts["labels"] += len(example.labels)
        counts["desirable"] += sum(x.desirable for x in example.labels)
        counts["scores"] += len(example.scores)
        counts["ranked"] += bool(example.ranks)
        empty += [source for r in example.responses if not r.text.strip()]
        same += [source for p in made if example.responses[p.chosen].content == example.responses[p.rejected].content]
        votes = {(p.chosen, p.rejected) for p in made}
        both += [source] * any((b, a) in votes for a, b in votes)
        prompts.append(len(example.prompt_text))
        answers += [len(r.text) for r in example.responses]
    names = ("examples", "responses", "pairs", "ties", "labels", "desirable", "scores", "ranked")
    feedback: dict[str, Any] = {name: counts[name] for name in names}
    feedback |= {"empty_responses": len(empty), "identical_pairs": len(same), "contradicted": len(both)}
    feedback |= {"prompt_characters": quantiles(prompts), "response_characters": quantiles(answers)}
    labelled = not counts["pairs"] and counts["labels"] > 0
    findings = []
    if same:
        findings.append(f"pairs with the same text on both sides: {len(same)} (first: {'; '.join(same[:3])})")
    if both:
        findings.append(f"examples whose votes contradict each other: {len(both)} (first: {'; '.join(both[:3])})")
    if empty:
        findings.append(f"empty responses: {len(empty)} (first: {'; '.join(empty[:3])})")
    return feedback, "pairs" if counts["pairs"] else "responses", labelled, findings


def _told(renderer: dict[str, Any]) -> list[str]:
    """How the tokens were made, in words."""

    def named(token: dict[str, Any] | None) -> str:
        return f"{token['token']} ({token['id']})" if token else "none"

    origin = {"the template": "written by the template", "appended": "appended", "nowhere": ""}
    end = named(renderer.get("end_of_turn"))
    how = origin.get(renderer.get("end_of_turn_from", "nowhere"), "")
    return [
        f"template: {renderer['template']}; answers found by {renderer['spans_found_by']}; "
        f"trained on: {renderer['spans']}; an answer ends with {end}{', ' + how if how else ''}",
        f"BOS {named(renderer['bos'])}, {renderer.get('bos_count', 0)} at the beginning of a sequence; "
        f"EOS {named(renderer['eos'])}; pad {named(renderer['pad'])}",
    ]


def _lacking(renderer: Renderer) -> list[str]:
    """What is wrong with the tokenizer whatever the data."""
    eos = renderer.tokenizer.eos_token_id
    return ["the tokenizer has no EOS: nothing teaches the model to stop"] if eos is None else []


def _show(tokens: Any, tokenizer: Any, title: str) -> Shown:
    from boresight.data.show import explain, paint

    return Shown(title, explain(tokens, tokenizer), paint(tokens, tokenizer, title=title))
