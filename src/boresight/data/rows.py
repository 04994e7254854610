"""From examples to training rows: pairs or single responses, tokenised, counted, kept on disk."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from boresight.data.example import Example
from boresight.data.render import Dropped, Encoded, Renderer, Truncation
from boresight.data.rowfile import Rows, cache_folder, write_rows
from boresight.data.rowreport import RowsReport
from boresight.data.spans import Content, as_messages
from boresight.data.tokens import Row, Tokens
from boresight.errors import InputError

Kind = Literal["pairs", "responses"]
Ranked = Literal["all", "best-worst"]


class ExampleTable(Protocol):
    """A list of examples, or `Examples` on disk."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Example]: ...

    def __getitem__(self, index: int, /) -> Example: ...


FORMAT = 3
"""Part of every fingerprint: raise it when the same data would be made into other rows."""


def make_rows(
    examples: ExampleTable,
    renderer: Renderer,
    *,
    kind: Kind,
    labelled: bool = False,
    mismatched: bool = False,
    ranked: Ranked = "all",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Rows:
    """Tokenise examples into training rows, or find them in the cache where they were made before.

    kind: "pairs" gives (chosen, rejected) for each pair of `views.pairs(example, ranked=ranked)`; "responses" gives
    one sequence for each demonstration or, where `labelled`, for each labelled response.
    mismatched (responses only): a second sequence, the same response behind another row's prompt. Which one is fixed
    by `seed` over the whole data, whatever the batches and processes; it is never an equal prompt. Too long a prompt
    is cut from the left here, whatever the renderer does elsewhere.
    progress: called with (examples done, all examples).

    Raises InputError if no row is left, or if `mismatched` and all prompts are equal.
    """
    if mismatched and kind != "responses":
        raise InputError("mismatched sequences exist for single responses only", mend='use kind="responses"')
    options = [FORMAT, kind, labelled, mismatched, ranked, seed if mismatched else 0]
    key = _hash([fingerprint(examples), renderer.identity, *options])
    path = cache_folder() / f"{key}.arrow"
    if path.exists() and path.with_suffix(".json").exists():
        return Rows(path)
    maker = _Maker(examples, renderer, kind, labelled, ranked, progress)
    if mismatched:
        maker.partners = _partners(examples, maker, seed)
    if write_rows(maker.rows(), path, fingerprint=key, report=maker.report) == 0:
        raise InputError(
            f"no training row is left of {len(examples)} examples\n  " + "\n  ".join(maker.report.reasons()),
            mend=_mend(maker.report, kind, labelled),
        )
    return Rows(path)


def fingerprint(examples: ExampleTable) -> str:
    """The data's own fingerprint where it has one, else a hash of what it holds."""
    known = getattr(examples, "fingerprint", None)
    if isinstance(known, str):
        return known
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        digest.update(json.dumps(example.to_row(), sort_keys=True, default=str).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def wanted(example: Example, *, kind: Kind, labelled: bool, ranked: Ranked) -> list[Any]:
    """The pairs, or (response, desirable or None), that an example's rows are made of. Ties are left out."""
    from boresight.data import views

    if kind == "pairs":
        return [p for p in views.pairs(example, ranked=ranked) if not p.tie]
    if labelled:
        return [(label.response, label.desirable) for label in views.labelled(example)]
    return [(i, None) for i in views.demonstrations(example)]


class _Maker:
    """One pass over the data; fills its report while the rows are taken."""

    def __init__(
        self,
        examples: ExampleTable,
        renderer: Renderer,
        kind: Kind,
        labelled: bool,
        ranked: Ranked,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.examples, self.renderer, self.progress = examples, renderer, progress
        self.options: dict[str, Any] = {"kind": kind, "labelled": labelled, "ranked": ranked}
        self.partners: NDArray[np.int64] | None = None
        self.report = RowsReport(kind=kind, renderer=renderer.describe())
        self.prompts, self.responses = array("l"), array("l")
        self.candidate = 0

    def rows(self) -> Iterator[Row]:
        make = self._pairs if self.options["kind"] == "pairs" else self._singles
        total = len(self.examples)
        for index, example in enumerate(self.examples):
            source = example.source or f"example {index}"
            found = wanted(example, **self.options)
            ties = sum(p.tie for p in example.pairs) if self.options["kind"] == "pairs" else 0
            if ties:
                self.report.drop("tie", source, count=ties)
            elif not found:
                self.report.drop("no-feedback", source)
            self.report.examples += 1
            if found:
                yield from make(index, example, source, found)
            if self.progress is not None and (index % 64 == 63 or index == total - 1):
                self.progress(index + 1, total)
        self.report.measure(list(self.prompts), list(self.responses))

    def _pairs(self, index: int, example: Example, source: str, pairs: list[Any]) -> Iterator[Row]:
        used = sorted({i for p in pairs for i in (p.chosen, p.rejected)})
        group = self.renderer.group(example.prompt, [example.responses[i] for i in used])
        encoded = dict(zip(used, group, strict=True))
        for pair in pairs:
            sides = [encoded[pair.chosen], encoded[pair.rejected]]
            lost = next((s for s in sides if isinstance(s, Dropped)), None)
            if lost is not None:
                self.report.drop(lost.reason, source, lost.detail)
                continue
            chosen, rejected = (s for s in sides if isinstance(s, Encoded))
            if _same(chosen.tokens, rejected.tokens):
                cut = chosen.cut_answer or rejected.cut_answer
                self.report.drop("identical-after-truncation" if cut else "identical", source)
                continue
            self._count(source, chosen, rejected)
            yield Row((chosen.tokens, rejected.tokens), pair.weight, None, index, example.source)

    def _singles(self, index: int, example: Example, source: str, found: list[Any]) -> Iterator[Row]:
        group = self.renderer.group(example.prompt, [example.responses[i] for i, _ in found])
        for (response, desirable), whole in zip(found, group, strict=True):
            number = self.candidate
            self.candidate += 1
            if isinstance(whole, Dropped):
                self.report.drop(whole.reason, source, whole.detail)
                continue
            sequences: tuple[Tokens, ...] = (whole.tokens,)
            if self.partners is not None:
                other = self.examples[int(self.partners[number])].prompt
                policy: Truncation = "cut-both" if self.renderer.truncation == "cut-both" else "cut-prompt"
                behind = self.renderer.group(other, [example.responses[response]], truncation=policy)[0]
                if isinstance(behind, Dropped):
                    self.report.drop("no-mismatch", source, behind.detail)
                    continue
                self.report.cut_mismatched += behind.cut_prompt > 0
                sequences += (behind.tokens,)
            self._count(source, whole)
            yield Row(sequences, 1.0, desirable, index, example.source)

    def _count(self, source: str, *sequences: Encoded) -> None:
        report = self.report
        report.made += 1
        for s in sequences:
            marks = {
                "cut_prompts": s.cut_prompt > 0,
                "cut_answers": s.cut_answer > 0,
                "endless": not s.tokens.ends,
                "seams": s.seam,
                "out_of_context": not s.in_context,
                "other_start": not s.same_start,
                "special_text": s.special_text,
            }
            for name, there in marks.items():
                if there:
                    setattr(report, name, getattr(report, name) + 1)
                    report.mark(name, source)
            if s.bos > 1:
                report.mark("bos", source)
            report.bos[str(s.bos)] = report.bos.get(str(s.bos), 0) + 1
            self.prompts.append(s.prompt_length)
            self.responses.append(len(s.tokens) - s.prompt_length)


def _partners(examples: ExampleTable, maker: _Maker, seed: int) -> NDArray[np.int64]:
    """For each candidate row, in order, the example whose prompt its mismatched sequence takes."""
    owner, prompt = array("q"), array("Q")
    for index, example in enumerate(examples):
        count = len(wanted(example, **maker.options))
        if count:
            value = int.from_bytes(hashlib.blake2b(_prompt_bytes(example.prompt), digest_size=8).digest(), "little")
            owner.extend([index] * count)
            prompt.extend([value] * count)
    if not owner:
        return np.zeros(0, np.int64)
    return np.asarray(owner, np.int64)[derangement(np.asarray(prompt, np.uint64), seed)]


def derangement(prompts: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """For each row another row with another prompt, (rows,) int64; `prompts` tells equal prompts by equal numbers.

    Rows are laid in a circle, in an order drawn with `seed` that keeps equal prompts together, and each takes the
    row that lies as far ahead as the largest group is big: never one of its own group, and each row is taken once.
    Where one prompt has more than half of the rows this cannot be; its rows that are left over draw among the others.
    Raises InputError if all prompts are equal.
    """
    classes, group, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"all {len(prompts)} rows have the same prompt, so no response can be laid behind another row's prompt",
            mend="give data with at least two different prompts, or a method that needs no mismatched pairs",
        )
    random = np.random.default_rng(seed)
    place = random.permutation(len(classes))
    order = np.lexsort((random.random(len(prompts)), place[group]))
    partner = np.empty(len(prompts), np.int64)
    partner[order] = np.roll(order, -int(sizes.max()))
    left = np.flatnonzero(prompts[partner] == prompts)  # all of the largest group, where it has more than half
    partner[left] = random.choice(np.flatnonzero(group != int(sizes.argmax())), len(left))
    return partner


def _prompt_bytes(prompt: Content) -> bytes:
    """The same bytes for a text and for the one user message that it becomes."""
    parts = [(m.role, m.content) for m in as_messages(prompt, "user")]
    return json.dumps(parts).encode("utf-8", "surrogatepass")


def _same(a: Tokens, b: Tokens) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask)


def _hash(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _mend(report: RowsReport, kind: Kind, labelled: bool) -> str:
    worst = max(report.dropped, key=lambda reason: report.dropped[reason], default="no-feedback")
    wants = "pairs, ranks or scores" if kind == "pairs" else "labels or scores" if labelled else "responses"
    mends = {
        "no-feedback": f"these rows are made of {wants}: use a method that takes the feedback your data has",
        "tie": "ties cannot be trained on as pairs: give data with preferences",
        "too-long": "raise max_length, or use truncation=cut-prompt",
        "identical": "look at how the data was made, and with check --show 1 at what the template writes",
        "identical-after-truncation": "raise max_length, or use truncation=drop",
        "template": "mend the roles of the messages, or use template=plain",
        "no-such-turn": "use spans=last, or indices of the assistant's messages",
    }
    return mends.get(worst, "look at the data with `boresight check`")


__all__ = ["Rows", "RowsReport", "make_rows"]
