"""`Example`: one prompt, its candidate responses, and any feedback on them. The only data shape there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Response:
    """A candidate response: plain text, or the messages that follow the prompt (the last one the assistant's)."""

    content: str | tuple[Message, ...]
    system: str | None = None
    """Who wrote it: a model's or annotator's name."""
    prompt: str | tuple[Message, ...] | None = None
    """What it answers, where that is not the example's prompt."""

    @property
    def text(self) -> str:
        """The text of the last turn."""
        return self.content if isinstance(self.content, str) else self.content[-1].content


@dataclass(frozen=True, slots=True)
class Pair:
    """Response `chosen` was preferred to `rejected` (indices); with `tie` neither was. Weights are positive."""

    chosen: int
    rejected: int
    weight: float = 1.0
    tie: bool = False
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A number given to one response for one named attribute (`score` where the data names none)."""

    response: int
    value: float
    name: str = "score"
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """One response marked desirable or not. Weights are positive."""

    response: int
    desirable: bool
    annotator: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """A label of one step (counted from 0) of a response."""

    response: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt, its responses, and feedback that points at them by index.

    ranks: one rank for each response, 1 is best, equal ranks are ties; empty where nothing is ranked.
    source: where the row was read, "file:line".
    Raises ValueError if an index points at no response, a number is not finite, or a weight is not positive.
    """

    prompt: str | tuple[Message, ...]
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...] = ()
    scores: tuple[Score, ...] = ()
    labels: tuple[Label, ...] = ()
    ranks: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    user: str | None = None
    group: str | None = None
    domain: str | None = None
    id: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        count = len(self.responses)
        pointed = [i for p in self.pairs for i in (p.chosen, p.rejected)]
        pointed += [f.response for given in (self.scores, self.labels, self.steps) for f in given]
        bad = next((i for i in pointed if not 0 <= i < count), None)
        if bad is not None:
            raise ValueError(f"feedback points at response {bad}, but there are {count} responses")
        if any(p.chosen == p.rejected for p in self.pairs):
            raise ValueError("a pair compares a response with itself")
        for what, given in (("pair", self.pairs), ("label", self.labels)):
            if any(not (isfinite(f.weight) and f.weight > 0) for f in given):
                raise ValueError(f"a {what}'s weight must be a positive finite number")
        if not all(isfinite(f.value) for given in (self.scores, self.steps) for f in given):
            raise ValueError("a score must be a finite number")
        if self.ranks and len(self.ranks) != count:
            raise ValueError(f"{len(self.ranks)} ranks for {count} responses")

    @property
    def prompt_text(self) -> str:
        """The prompt as one string; the contents of its messages joined by blank lines. For people, not for models."""
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(m.content for m in self.prompt)

    def to_row(self) -> dict[str, Any]:
        """The flat dictionary that is stored in Arrow; `from_row` is its inverse."""
        return {
            "prompt_text": self.prompt if isinstance(self.prompt, str) else None,
            "prompt_messages": None if isinstance(self.prompt, str) else [_pack(m) for m in self.prompt],
            "responses": [
                {
                    "text": r.content if isinstance(r.content, str) else None,
                    "messages": None if isinstance(r.content, str) else [_pack(m) for m in r.content],
                    "system": r.system,
                    "prompt_text": r.prompt if isinstance(r.prompt, str) else None,
                    "prompt_messages": [_pack(m) for m in r.prompt] if isinstance(r.prompt, tuple) else None,
                }
                for r in self.responses
            ],
            "pairs": [_pack(p) for p in self.pairs],
            "scores": [_pack(s) for s in self.scores],
            "labels": [_pack(x) for x in self.labels],
            "ranks": list(self.ranks),
            "steps": [_pack(s) for s in self.steps],
            "user": self.user,
            "group": self.group,
            "domain": self.domain,
            "id": self.id,
            "source": self.source,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """The example that `to_row` made the row of."""
        text = row["prompt_text"]
        return cls(
            prompt=text if text is not None else tuple(Message(**m) for m in row["prompt_messages"]),
            responses=tuple(
                Response(
                    r["text"] if r["text"] is not None else tuple(Message(**m) for m in r["messages"]),
                    r["system"],
                    tuple(Message(**m) for m in r["prompt_messages"]) if r["prompt_messages"] else r["prompt_text"],
                )
                for r in row["responses"]
            ),
            pairs=tuple(Pair(**p) for p in row["pairs"]),
            scores=tuple(Score(**s) for s in row["scores"]),
            labels=tuple(Label(**x) for x in row["labels"]),
            ranks=tuple(row["ranks"]),
            steps=tuple(Step(**s) for s in row["steps"]),
            **{k: row[k] for k in ("user", "group", "domain", "id", "source")},
        )


def _pack(item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__slots__}
