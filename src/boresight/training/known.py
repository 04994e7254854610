"""What is known of each response token without the model: how a pair differs, steps and their scores, noise."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.data.tokens import Row, Tokens
from boresight.objectives import Objective
from boresight.training.batches import own, sampled, sequences


def per_token(objective: Objective, rows: Sequence[Row]) -> dict[str, Tensor]:
    """By name, (tokens,) of all response tokens of `sequences(objective, rows)`; noise is not among them.

    Of samples nothing is known: they differ nowhere, and their step is -1 with score 0.
    """
    found: dict[str, dict[int, Any]] = {}
    for row in rows:
        mine = own(objective, row)
        if "difference" in objective.needs:
            for tokens, differs in zip(mine, differences(mine[0], mine[1]), strict=True):
                found.setdefault("difference", {})[id(tokens)] = differs
        if "steps" in objective.needs:
            for tokens, (steps, worth) in zip(mine, row.steps, strict=True):
                found.setdefault("step", {})[id(tokens)] = np.asarray(steps, np.int64)
                found.setdefault("step_score", {})[id(tokens)] = np.asarray(worth, np.float32)
        for tokens in sampled(row):
            count = tokens.response_length
            for name, none in (("difference", False), ("step", -1), ("step_score", 0.0)):
                if name in found:
                    found[name][id(tokens)] = np.full(count, none)
    order = sequences(objective, rows)
    return {name: torch.from_numpy(np.concatenate([by[id(t)] for t in order])) for name, by in found.items()}


def differences(a: Tokens, b: Tokens) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each response token of `a`, and of `b`, whether it lies outside the blocks that both responses share."""
    return differing(a.ids[a.mask].tolist(), b.ids[b.mask].tolist())


def differing(left: Sequence[int], right: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each place of `left`, and of `right`, whether it lies outside the blocks that both share.

    The blocks are those of difflib's matcher (Ratcliff and Obershelp), longest first, in order.
    """
    differs = np.ones(len(left), np.bool_), np.ones(len(right), np.bool_)
    for first, second, size in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
        differs[0][first : first + size] = False
        differs[1][second : second + size] = False
    return differs


def noise(tokens: Sequence[Tokens], seed: int, step: int) -> Tensor:
    """A number in [0, 1) for each response token, (tokens,) fp32: drawn from seed, step and the sequence's content.

    So it is the same whatever the micro-batches, processes and order.
    """
    drawn = [np.zeros(0, np.float32)]
    for t in tokens:
        stream = np.random.SeedSequence([seed, step, int.from_bytes(t.key(), "little")])
        drawn.append(np.random.Generator(np.random.Philox(stream)).random(t.response_length, np.float32))
    return torch.from_numpy(np.concatenate(drawn))
