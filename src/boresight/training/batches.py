"""From rows to what an objective takes: one place that knows the batch types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from boresight.data.tokens import Row, Tokens
from boresight.objectives import (
    Given,
    ListLogProbs,
    LogProbs,
    Objective,
    PairLogProbs,
    PairScores,
    PairSide,
    ResponseLogProbs,
)

Batch = PairLogProbs | ResponseLogProbs | ListLogProbs | PairScores


@dataclass(frozen=True)
class Context:
    """What holds for a whole global batch, whichever rows are looked at.

    statistics: numbers of that batch, each 0-d. state: what the objective remembers of earlier ones, each 0-d fp64.
    step: steps done; progress: their share of all. heads: small modules trained beside the policy.
    """

    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    progress: float = 0.0
    heads: Mapping[str, Any] = field(default_factory=dict)


def row_options(objective: Objective) -> dict[str, Any]:
    """The arguments of `make_rows` that give the rows an objective needs."""
    kinds = {PairLogProbs: "pairs", PairScores: "pairs", ListLogProbs: "lists"}
    return {
        "kind": kinds.get(objective.takes, "responses"),
        "labelled": "negatives" if "negatives" in objective.needs else "labels" in objective.needs,
        "mismatched": "mismatched_kl" in objective.needs,
        "scored": "scores" in objective.needs,
        "stepped": "steps" in objective.needs,
    }


def own(objective: Objective, row: Row) -> tuple[Tokens, ...]:
    """The sequences of a row that the loss is about: neither samples nor what lies behind another row's prompt."""
    return row.own[:1] if objective.takes is ResponseLogProbs else row.own


def sampled(row: Row) -> tuple[Tokens, ...]:
    """Its responses of the reference."""
    return row.sequences[len(row.sequences) - row.sampled :]


def sequences(objective: Objective, rows: Sequence[Row]) -> list[Tokens]:
    """The sequences whose log-probs (or scores) the loss is made of.

    Of pairs all chosen, then all rejected; else row by row. Behind them the samples, row by row.
    """
    found = [own(objective, row) for row in rows]
    first = _by_side(found) if _sided(objective) else [t for some in found for t in some]
    return first + [t for row in rows for t in sampled(row)]


def places(objective: Objective, rows: Sequence[Row], part: Sequence[int]) -> list[int]:
    """Where in `sequences(objective, rows)` those of some of the rows stand, in their own order."""
    counts = [len(own(objective, row)) for row in rows]
    total = sum(counts)
    starts = [sum(counts[:r]) for r in part]
    mine = [[s + k for k in range(counts[r])] for s, r in zip(starts, part, strict=True)]
    if _sided(objective):
        mine = [[r + k * len(rows) for k in range(counts[r])] for r in part]
    drawn = [row.sampled for row in rows]
    behind = [total + sum(drawn[:r]) + k for r in part for k in range(drawn[r])]
    return (_by_side(mine) if _sided(objective) else [k for some in mine for k in some]) + behind


def mismatched(rows: Sequence[Row]) -> list[Tokens]:
    """Each row's response behind another row's prompt."""
    return [row.sequences[1] for row in rows]


def assemble(
    objective: Objective,
    rows: Sequence[Row],
    policy: LogProbs | Tensor,
    reference: LogProbs | None = None,
    others: Sequence[LogProbs] = (),
    embedding: Tensor | None = None,
    context: Context | None = None,
    twin: LogProbs | None = None,
) -> Batch:
    """The batch type that the objective takes, from what the engine returned for `sequences(objective, rows)`."""
    if isinstance(policy, Tensor):
        return PairScores(policy[: len(rows)], policy[len(rows) :])
    context = context or Context()
    device, needs = policy.values.device, objective.needs
    each = [own(objective, row) for row in rows]
    sides = _by_side(each) if _sided(objective) else [t for some in each for t in some]
    drawn = [t for row in rows for t in sampled(row)]
    cut = _Cut([t.response_length for t in (*sides, *drawn)])

    def numbers(values: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

    def view(values: LogProbs | None) -> Any:
        """These log-probs as one side of the batch."""
        if values is None:
            return None
        if not _sided(objective):
            return cut(values, 0, len(sides))
        return PairSide(cut(values, 0, len(rows)), cut(values, len(rows), 2 * len(rows)))

    samples = None
    if "samples" in needs:
        end = len(sides) + len(drawn)
        samples = ListLogProbs(
            cut(policy, len(sides), end),
            cut(reference, len(sides), end) if reference is not None else None,
            list_of=numbers([i for i, row in enumerate(rows) for _ in sampled(row)], torch.int64),
            count=len(rows),
        )
    scores = {}
    if "scores" in needs or "grades" in needs:
        names = sorted({name for row in rows for name in row.scores})
        nothing = [(float("nan"),) * len(some) for some in each]
        by_row = {n: [row.scores.get(n, none) for row, none in zip(rows, nothing, strict=True)] for n in names}
        scores = {
            n: numbers(_by_side(v) if _sided(objective) else [x for some in v for x in some], policy.values.dtype)
            for n, v in by_row.items()
        }
    grades = scores.pop("grade", None)
    statistics = {n: v for n, v in context.statistics.items() if n != "mismatched_kl"}
    given = Given(
        scores=scores,
        others=tuple(view(other) for other in others),
        twin=view(twin),
        samples=samples,
        statistics=statistics,
        state=context.state,
        progress=context.progress,
        embedding=embedding,
        heads=context.heads,
    )
    if objective.takes is PairLogProbs:
        return PairLogProbs(view(policy), view(reference), given)
    if objective.takes is ListLogProbs:
        owner = numbers([i for i, some in enumerate(each) for _ in some], torch.int64)
        return ListLogProbs(view(policy), view(reference), list_of=owner, count=len(rows), grades=grades, given=given)
    labels = [bool(row.desirable) for row in rows]
    return ResponseLogProbs(
        view(policy),
        view(reference),
        desirable=numbers(labels, torch.bool) if "labels" in needs else None,
        mismatched_kl=context.statistics.get("mismatched_kl"),
        given=given,
    )


def _sided(objective: Objective) -> bool:
    return objective.takes in (PairLogProbs, PairScores)


def _by_side(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """First entries of all rows, then second entries, and so on."""
    return [some[side] for side in range(len(rows[0]) if rows else 0) for some in rows]


class _Cut:
    """Log-probs of some neighbouring sequences out of those of all, whose lengths are known without a look at them."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.ends = [0]
        for length in lengths:
            self.ends.append(self.ends[-1] + length)

    def __call__(self, values: LogProbs, first: int, last: int) -> LogProbs:
        span = slice(self.ends[first], self.ends[last])
        more = {name: known[span] for name, known in values.per_token.items()}
        return LogProbs(values.values[span], values.owner[span] - first, last - first, more)
