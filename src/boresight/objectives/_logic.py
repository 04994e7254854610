"""A small compiler from logic to losses: a formula over predictions becomes the log-odds that it holds.

Events are Boolean: `w` and `l`, the policy takes the chosen, the rejected response to be valid; `rw` and `rl`, the
reference does. Each is true with the response's length-normalised probability, independently of the others.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from boresight.objectives._odds import log_both

EVENTS = ("w", "l", "rw", "rl")

Row = tuple[bool, ...]


@dataclass(frozen=True)
class Counted:
    """The truth assignments that are counted for a formula and against it, each a value for each of `events`."""

    events: tuple[str, ...]
    for_it: tuple[Row, ...]
    against: tuple[Row, ...]


@lru_cache(maxsize=64)
def compile_formula(formula: str, condition: str = "true", both: str = "false") -> Counted:
    """Truth tables of a formula: for it where `condition` and (`formula` or `both`), against it where `condition` and
    (not `formula` or `both`).

    Each text is made of the events, true, false, not, and, or, parentheses. Raises ValueError that says which text is
    wrong, or that nothing is counted on one side.
    """
    texts = {"formula": formula, "condition": condition, "both": both}
    rules = {name: _parse(name, text) for name, text in texts.items()}
    events = tuple(e for e in EVENTS if any(e in names for _, names in rules.values()))
    for_it: list[Row] = []
    against: list[Row] = []
    for row in product((True, False), repeat=len(events)):
        holds = {name: rule(dict(zip(events, row, strict=True))) for name, (rule, _) in rules.items()}
        if holds["condition"] and (holds["formula"] or holds["both"]):
            for_it.append(row)
        if holds["condition"] and (not holds["formula"] or holds["both"]):
            against.append(row)
    if not for_it or not against:
        raise ValueError(
            f"formula {formula!r} is {'never' if not for_it else 'always'} true where {condition!r} holds: no odds"
        )
    return Counted(events, tuple(for_it), tuple(against))


def log_odds(counted: Counted, log_p: Mapping[str, Tensor]) -> Tensor:
    """log(weight of the assignments for it / weight of those against it), each a sum of products of p and 1 - p.

    log_p: log-probability of each event, (pairs,), at most 0. Shape (pairs,).
    """
    log_of = {e: log_both(log_p[e]) for e in counted.events}

    def weight(rows: tuple[Row, ...]) -> Tensor:
        each = [
            torch.stack([log_of[e][0 if holds else 1] for e, holds in zip(counted.events, row, strict=True)]).sum(0)
            for row in rows
        ]
        return torch.stack(each).logsumexp(0)

    return weight(counted.for_it) - weight(counted.against)


def _parse(name: str, text: str) -> tuple[Callable[[Mapping[str, bool]], bool], frozenset[str]]:
    """The text as a function of an assignment, and the events in it."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{name} {text!r} is no formula: write it with {_WORDS}") from None
    found: set[str] = set()

    def read(node: ast.expr) -> Callable[[Mapping[str, bool]], bool]:
        if isinstance(node, ast.Name) and node.id in EVENTS:
            event = node.id
            found.add(event)
            return lambda row: row[event]
        if isinstance(node, ast.Name) and node.id in ("true", "false"):
            constant = node.id == "true"
            return lambda _: constant
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = read(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.BoolOp):
            parts = [read(v) for v in node.values]
            every = isinstance(node.op, ast.And)
            return lambda row: all(p(row) for p in parts) if every else any(p(row) for p in parts)
        raise ValueError(f"{name} {text!r}: {ast.unparse(node)!r} is none of {_WORDS}")

    return read(tree), frozenset(found)


_WORDS = f"{', '.join(EVENTS)}, true, false, not, and, or, parentheses"
