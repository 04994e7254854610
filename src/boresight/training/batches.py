"""From rows to what an objective takes: one place that knows the batch types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.data.tokens import Row, Tokens
from boresight.objectives import LogProbs, Objective, PairLogProbs, PairScores, PairSide, ResponseLogProbs

Batch = PairLogProbs | ResponseLogProbs | PairScores


def row_options(objective: Objective) -> dict[str, Any]:
    """The arguments of `make_rows` that give the rows an objective needs."""
    paired = objective.takes in (PairLogProbs, PairScores)
    return {
        "kind": "pairs" if paired else "responses",
        "labelled": "labels" in objective.needs,
        "mismatched": "mismatched_kl" in objective.needs,
    }


def sequences(objective: Objective, rows: Sequence[Row]) -> list[Tokens]:
    """The sequences whose log-probs (or scores) the loss is made of: all chosen, then all rejected; or one a row."""
    sides = 1 if objective.takes is ResponseLogProbs else 2
    return [row.sequences[side] for side in range(sides) for row in rows]


def mismatched(rows: Sequence[Row]) -> list[Tokens]:
    """Each row's response behind another row's prompt."""
    return [row.sequences[1] for row in rows]


def assemble(
    objective: Objective,
    rows: Sequence[Row],
    policy: LogProbs | Tensor,
    reference: LogProbs | None = None,
    mismatched_kl: Tensor | None = None,
) -> Batch:
    """The batch type that the objective takes, from what the engine returned for `sequences(objective, rows)`."""
    if isinstance(policy, Tensor):
        return PairScores(policy[: len(rows)], policy[len(rows) :])
    if objective.takes is PairLogProbs:
        tokens = sum(row.sequences[0].response_length for row in rows)
        return PairLogProbs(_side(policy, tokens), _side(reference, tokens) if reference is not None else None)
    desirable = torch.tensor([bool(row.desirable) for row in rows], dtype=torch.bool)
    return ResponseLogProbs(
        policy,
        reference,
        desirable=desirable.to(policy.values.device, non_blocking=True) if "labels" in objective.needs else None,
        mismatched_kl=mismatched_kl,
    )


def _side(both: LogProbs, tokens: int) -> PairSide:
    """The chosen, whose `tokens` tokens come first, and the rejected."""
    half = both.count // 2
    chosen = LogProbs(both.values[:tokens], both.owner[:tokens], half)
    return PairSide(chosen, LogProbs(both.values[tokens:], both.owner[tokens:] - half, half))
