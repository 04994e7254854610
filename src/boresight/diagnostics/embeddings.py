"""How far apart the chosen and the rejected of each behaviour lie: what decides how fast DPO learns it."""

from __future__ import annotations

import torch
from torch import Tensor


def distinguishability(chosen: Tensor, rejected: Tensor, chosen_of: Tensor, rejected_of: Tensor) -> Tensor:
    """Distance between the mean embeddings of chosen and rejected statements, by behaviour, (behaviours,).

    chosen, rejected: (n, width) and (m, width), embeddings of statements under a frozen model, such as the last hidden
    state of their last token. chosen_of, rejected_of: (n,) and (m,) int64, the behaviour that each belongs to, counted
    from 0. A behaviour without statements on one side has NaN. Euclidean, in the embeddings' own units, in fp64.

    Raises ValueError if the shapes disagree. Source: Im and Li 2024, preference distinguishability.
    """
    if chosen.ndim != 2 or rejected.ndim != 2 or chosen.shape[1] != rejected.shape[1]:
        raise ValueError(
            f"chosen and rejected must have shapes (n, width) and (m, width), not {tuple(chosen.shape)} and "
            f"{tuple(rejected.shape)}"
        )
    sides = ((chosen, chosen_of), (rejected, rejected_of))
    if any(behaviour.shape != known.shape[:1] for known, behaviour in sides):
        raise ValueError("chosen_of and rejected_of must name one behaviour for each statement")
    count = max((int(behaviour.max()) + 1 for _, behaviour in sides if len(behaviour)), default=0)
    return (_means(chosen, chosen_of, count) - _means(rejected, rejected_of, count)).norm(dim=-1)


def _means(known: Tensor, behaviour: Tensor, count: int) -> Tensor:
    known = known.double()
    total = known.new_zeros(count, known.shape[1]).index_add(0, behaviour, known)
    size = known.new_zeros(count).index_add(0, behaviour, torch.ones_like(known[:, 0]))
    return total / size[:, None]
