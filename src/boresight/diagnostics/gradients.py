"""Gradient entanglement: whether a margin loss moves the log-probs of chosen and rejected the same way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entanglement:
    """With g the gradient of a mean log-prob in all parameters: <g_chosen, g_rejected>, |g_chosen|^2, |g_rejected|^2.

    A small step of size e along g_chosen - g_rejected, which is that of every loss on the margin alone where policy =
    reference, moves the chosen log-prob by e * `chosen_change` and the rejected by e * `rejected_change`.
    """

    inner: float
    chosen: float
    rejected: float

    @property
    def chosen_change(self) -> float:
        """|g_chosen|^2 - <g_chosen, g_rejected>."""
        return self.chosen - self.inner

    @property
    def rejected_change(self) -> float:
        """<g_chosen, g_rejected> - |g_rejected|^2."""
        return self.inner - self.rejected

    @property
    def chosen_falls(self) -> bool:
        """Whether such a step lowers the chosen log-prob."""
        return self.chosen_change < 0

    @property
    def rejected_rises(self) -> bool:
        """Whether such a step raises the rejected log-prob."""
        return self.rejected_change > 0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the gradients; 0 where one of them is 0."""
        size = (self.chosen * self.rejected) ** 0.5
        return self.inner / size if size else 0.0


def entanglement(chosen: Tensor, rejected: Tensor, parameters: Iterable[Tensor]) -> Entanglement:
    """How the gradients of chosen and rejected log-probs lie to each other.

    chosen, rejected: log-probs of responses in nats, 0-d or (pairs,), of which the means are taken, with their graph,
    which is kept. parameters: those that are trained; the others (requires_grad False) are left out. Nothing is
    accumulated in `.grad`. Sums are made in fp64, so that small differences of large norms keep their digits.

    Raises ValueError if the log-probs depend on none of the parameters. Source: Yuan et al. 2024, gradient inner
    product condition for DPO.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not trained or not (chosen.requires_grad and rejected.requires_grad):
        raise ValueError("the log-probs depend on none of the parameters: give trainable ones, and keep the graph")
    sides = [
        torch.autograd.grad(side.mean(), trained, retain_graph=True, allow_unused=True) for side in (chosen, rejected)
    ]
    if all(g is None for side in sides for g in side):
        raise ValueError("the log-probs depend on none of the parameters: give trainable ones, and keep the graph")
    inner, won, lost = 0.0, 0.0, 0.0
    for a, b in zip(*sides, strict=True):
        won += _dot(a, a)
        lost += _dot(b, b)
        inner += _dot(a, b)
    return Entanglement(inner, won, lost)


def _dot(a: Tensor | None, b: Tensor | None) -> float:
    return 0.0 if a is None or b is None else float((a.double() * b.double()).sum())
