"""What a check is, what it finds, and the register that finds the checks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from boresight.data.example import Example, Pair, Response
from boresight.data.spans import Content, as_messages
from boresight.data.views import pairs
from boresight.stats import Interval

if TYPE_CHECKING:
    from boresight.data.checks._columns import Columns
    from boresight.data.rowreport import RowsReport
    from boresight.data.rows import ExampleTable
    from boresight.data.table import ReadReport

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Most severe first. An error is wrong whatever is trained; a warning probably harms; a note is worth knowing."""

SHOWN = 3
"""How many rows a finding shows."""


@dataclass(frozen=True)
class Kind:
    """What a check can find: `title` names the things counted, `unit` what they are a share of."""

    id: str
    severity: Severity
    title: str
    effect: str
    mend: str
    unit: str = "pairs"


@dataclass
class Finding:
    """One thing that was found.

    count: how many, exactly, of `of` units. share: where the finding is an estimate, with its interval. rows: numbers
    of all the examples concerned, from 0, in order. examples: the first few of them, as (source, detail). effect: what
    it does to training. mend: what to do. more: numbers that belong to it, ready for JSON.
    """

    id: str
    severity: Severity
    title: str
    count: int
    of: int
    unit: str
    effect: str
    mend: str
    share: Interval | None = None
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    examples: list[tuple[str, str]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The finding in one line."""
        if self.share is not None:
            return f"{self.title}: {self.share.value:.3f} [{self.share.low:.3f}, {self.share.high:.3f}]" + (
                f" of {self.share.n:,} {self.unit}" if self.share.n else ""
            )
        return f"{self.title}: {self.count:,}" + (f" of {self.of:,} {self.unit}" if self.of else "")

    def __str__(self) -> str:
        first = "; ".join(source for source, _ in self.examples)
        return f"{self.severity}: {self.headline}" + (f" (first: {first})" if first else "")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the list of every row."""
        return {
            "id": self.id,
            "severity": self.severity,
            "what": self.headline,
            "count": self.count,
            "of": self.of,
            "unit": self.unit,
            "share": self.share.to_dict() if self.share else None,
            "examples": [{"source": source, "detail": detail} for source, detail in self.examples],
            "effect": self.effect,
            "mend": self.mend,
            "more": self.more,
        }


@dataclass
class Setting:
    """What checks may ask about beside the rows themselves.

    columns: votes and labels of all rows as arrays of hashes, complete once every row was looked at. read: how the
    data was read. tokens: what became of it under a model. other: another split, with its name. seed: of samples.
    """

    examples: ExampleTable
    columns: Columns
    read: ReadReport | None = None
    tokens: RowsReport | None = None
    other: ExampleTable | None = None
    other_name: str = ""
    seed: int = 0

    def source(self, row: int) -> str:
        """Where an example was read, or its number."""
        return self.examples[row].source or f"example {row}"


class Looked:
    """An example with what several checks want of it, computed when first asked for."""

    __slots__ = ("_pairs", "_texts", "example", "index", "keys", "prompt")

    def __init__(self, example: Example, index: int) -> None:
        self.example, self.index = example, index
        self.prompt = prompt_key(example.prompt)
        self.keys = [hash((self.prompt, answer_key(r))) for r in example.responses]
        self._pairs: list[Pair] | None = None
        self._texts: list[str] | None = None

    @property
    def pairs(self) -> list[Pair]:
        """Its preferences, without ties; made from ranks or scores where it holds none."""
        if self._pairs is None:
            self._pairs = pairs(self.example)
        return self._pairs

    @property
    def texts(self) -> list[str]:
        """All the text of each response."""
        if self._texts is None:
            self._texts = [response_text(r) for r in self.example.responses]
        return self._texts


def response_text(response: Response) -> str:
    """All of a response: where it is several messages, they are joined by blank lines."""
    return response.content if isinstance(response.content, str) else "\n\n".join(m.content for m in response.content)


def prompt_key(prompt: Content) -> int:
    """64 bits that are the same for a text and for the one user message that it becomes. They differ between runs."""
    if isinstance(prompt, str):
        return hash((("user", prompt),))
    return hash(tuple((m.role, m.content) for m in prompt))


def answer_key(response: Response) -> int:
    """As `prompt_key`, for a response."""
    if isinstance(response.content, str):
        return hash((("assistant", response.content),))
    return hash(tuple((m.role, m.content) for m in as_messages(response.content, "assistant")))


class Tally:
    """A count, the rows it comes from, and a detail for the first few of them."""

    def __init__(self) -> None:
        self.count = 0
        self.rows = array("q")
        self.details: dict[int, str] = {}

    def add(self, row: int, detail: str = "", count: int = 1) -> None:
        """Count something in a row; rows come in order."""
        self.count += count
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
            if detail and len(self.rows) <= SHOWN:
                self.details[row] = detail


class Check:
    """Looks at every example once, then says what it found.

    Make a subclass in a file of this folder; it is found by being there. `kinds` are all it can find. Memory may grow
    with the number of rows by numbers, never by texts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ()

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def look(self, row: Looked) -> None:
        """One more example, in order."""

    def findings(self) -> Iterable[Finding]:
        """What was found, after the last example."""
        return ()

    def facts(self) -> dict[str, Any]:
        """Numbers worth telling whether or not anything is wrong, by name; ready for JSON. Called after `findings`."""
        return {}

    @cached_property
    def _kind(self) -> dict[str, Kind]:
        return {kind.id: kind for kind in self.kinds}

    def found(
        self,
        id: str,
        count: int,
        of: int,
        rows: Iterable[int] | NDArray[np.int64] = (),
        *,
        details: dict[int, str] | None = None,
        examples: list[tuple[str, str]] | None = None,
        share: Interval | None = None,
        title: str = "",
        severity: Severity | None = None,
        more: dict[str, Any] | None = None,
        show: Iterable[int] | None = None,
    ) -> Finding:
        """A finding of this check. show: the rows to show, if they are not the first of `rows`."""
        kind = self._kind[id]
        numbers = np.unique(np.fromiter(rows, np.int64))
        if examples is None:
            shown = list(numbers[:SHOWN]) if show is None else list(dict.fromkeys(show))[:SHOWN]
            examples = [(self.setting.source(int(r)), (details or {}).get(int(r), "")) for r in shown]
        return Finding(
            id, severity or kind.severity, title or kind.title, int(count), int(of), kind.unit, kind.effect, kind.mend,
            share, numbers, examples, more or {},
        )  # fmt: skip

    def tallied(self, id: str, tally: Tally, of: int, **options: Any) -> Iterator[Finding]:
        """The finding of a tally, if it counted anything."""
        if tally.count:
            yield self.found(id, tally.count, of, tally.rows, details=tally.details, **options)


def checks() -> list[type[Check]]:
    """Every check, in the order of files and of classes in them."""
    package = __name__.rpartition(".")[0]
    folder = list(import_module(package).__path__)
    found: list[type[Check]] = []
    for name in sorted(m.name for m in iter_modules(folder) if not m.name.startswith("_")):
        module = import_module(f"{package}.{name}")
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Check) and value.__module__ == module.__name__
        ]
    return found
