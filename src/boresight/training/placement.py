"""Which rows of a global batch go through the model together, and on which process: by their lengths.

The global batch itself is drawn by `order.py`, uniformly and without a look at lengths. Here it is only laid out: every
row counts once, and losses are divided by the counts of the whole batch. So the sum of the gradients is the same
whatever the layout, and its expectation that of uniform sampling, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from boresight.data.rows import Rows
from boresight.objectives import Objective

Cost = Callable[[int, int, int], int]
"""(rows, tokens of all of them, tokens of the longest sequence) -> tokens that go through the model."""
Part = list[tuple[int, bool]]
"""Places in the global batch of the rows of one micro-batch, and whether each counts or only fills up."""
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """Lengths of all rows of a table, as an objective reads them: each array (rows,) int32.

    shared: tokens of a row with its prompt laid once. packed: with it laid for each response. longest: of its longest
    sequence. responses: response tokens that the loss is made of. sides: sequences of a row that are in the model at
    once, at most.
    """

    shared: NDArray[np.int32]
    packed: NDArray[np.int32]
    longest: NDArray[np.int32]
    responses: NDArray[np.int32]
    sides: int

    @classmethod
    def of(cls, rows: Rows, objective: Objective) -> Sizes:
        """Read from the rows' file."""
        shapes, starts = rows.shapes()
        counts, first = np.diff(starts), starts[:-1]
        tokens, responses = shapes[:, 0], shapes[:, 1]
        if "mismatched_kl" in objective.needs:  # a mismatched sequence goes through by itself
            longest = rows.lengths().astype(np.int32)
            return cls(longest, longest, longest, responses[first], 1)
        whole = np.add.reduceat(tokens, first)
        prompt = np.minimum.reduceat(tokens - responses, first)
        return cls(
            (whole - (counts - 1) * prompt).astype(np.int32),
            whole.astype(np.int32),
            rows.lengths().astype(np.int32),
            np.add.reduceat(responses, first).astype(np.int32),
            int(counts.max(initial=1)),
        )

    def __len__(self) -> int:
        return len(self.longest)

    def normaliser(self, numbers: Sequence[int], per: str) -> float:
        """What the summed loss of a global batch is divided by: its examples, or its response tokens."""
        return float(max(1, self.responses[list(numbers)].sum())) if per == "token" else float(len(numbers))

    def tokens(self, layout: str) -> NDArray[np.int32]:
        """Tokens of each row by itself in this layout: "shared", "packed" or "padded"."""
        return {"shared": self.shared, "packed": self.packed, "padded": self.sides * self.longest}[layout]

    def cost(self, layout: str) -> Cost:
        """What micro-batches cost in this layout."""
        sides = self.sides
        if layout == "padded":
            return lambda rows, tokens, longest: rows * sides * longest
        return lambda rows, tokens, longest: tokens

    def most(self, layout: str, rows: int, budget: int) -> int:
        """Tokens at once at most, of `rows` rows and within the budget if one row is."""
        alone = self.tokens(layout)
        largest = np.sort(alone)[-rows:].astype(np.int64)
        return max(int(largest[-1]), min(budget, int(largest.sum())))


def place(
    tokens: Sequence[int],
    longest: Sequence[int],
    *,
    cost: Cost,
    budget: int,
    rows: int | None = None,
    world: int = 1,
    equal: bool = False,
) -> list[list[Part]]:
    """Deal a global batch to processes and micro-batches: for each process its micro-batches.

    tokens, longest: of each row, and of its longest sequence. budget: tokens at once; a row that is longer goes alone.
    rows: rows at once at most. world: processes. equal: all processes get equally many micro-batches, as the collective
    calls of a split model need; a process always gets one. Where rows do not suffice, the shortest row of the batch,
    which then does not count, fills the gap.

    Longest first, each row goes to the process that has the least (Graham 1969, LPT); so two processes differ by one
    row's tokens at most. A process's rows are cut in order of length, into as few micro-batches as the budget allows
    and, among those cuts, the one whose largest micro-batch is smallest. A pure function of its arguments.
    """
    alone = [cost(1, t, n) for t, n in zip(tokens, longest, strict=True)]
    order = sorted(range(len(alone)), key=lambda i: (-alone[i], i))
    mine: list[list[int]] = [[] for _ in range(world)]
    load = [0] * world
    for i in order:
        process = load.index(min(load))
        mine[process].append(i)
        load[process] += alone[i]

    def cut(part: list[int], most: int) -> list[list[int]]:
        found: list[list[int]] = []
        held = long = 0
        for i in part:
            held, long = held + tokens[i], max(long, longest[i])
            count = len(found[-1]) + 1 if found else 1
            if found and (rows is None or count <= rows) and cost(count, held, long) <= most:
                found[-1].append(i)
            else:
                found.append([i])
                held, long = tokens[i], longest[i]
        return found

    cuts = [cut(part, budget) for part in mine]
    wanted = max(map(len, cuts), default=0)
    dealt = []
    for part, widest in zip(mine, cuts, strict=True):
        count = wanted if equal else len(widest)
        low, high = max((alone[i] for i in part), default=0), budget
        while low < high:  # the least that needs no more micro-batches
            middle = (low + high) // 2
            low, high = (low, middle) if len(cut(part, middle)) <= count else (middle + 1, high)
        best = cut(part, min(low, budget)) if part else []
        filler: Part = [(order[-1], False)] if order else []
        whole = [[(i, True) for i in one] for one in best]
        dealt.append(whole + [filler] * (max(1, count) - len(whole)))
    return dealt
