"""Numbers that are not finite: they never reach the weights, and the run stops with the rows they came from.

On CPU each loss and each gradient is looked at before it is used. On a GPU looking means waiting for it, so there the
optimizer's own kernel leaves the weights alone (`found_inf`), and the flag is looked at when it has arrived: before the
next step moves anything, and before metrics, samples or checkpoints are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def fused(parameters: list[torch.nn.Parameter]) -> bool:
    """Whether torch's fused AdamW takes these parameters."""
    kinds = {p.device.type for p in parameters}
    return kinds <= {"cpu", "cuda"} and all(p.is_floating_point() for p in parameters)


def lazily(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether flags are looked at late: where looking means waiting, and the optimizer can skip a step by itself."""
    return device.type != "cpu" and all(group.get("fused") for group in optimizer.param_groups)


class Arriving:
    """A small tensor on its way to the CPU; `value` waits for it, and for nothing that was queued after it."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._here.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._here = tensor.detach().clone()

    def value(self) -> Tensor:
        """The tensor, on CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._here


@dataclass
class Losses:
    """What a step's micro-batches gave: row numbers and losses of each row, kept until all are known to be finite."""

    parts: list[tuple[Sequence[int], Tensor]] = field(default_factory=list)

    def add(self, numbers: Sequence[int], losses: Tensor) -> None:
        """The losses (rows,) of one micro-batch."""
        self.parts.append((numbers, losses.detach()))

    def finite(self, like: Tensor) -> Tensor:
        """Whether each micro-batch's losses are finite, (micro-batches,) bool, where `like` is."""
        flags = [torch.isfinite(losses).all() for _, losses in self.parts]
        return torch.stack(flags) if flags else torch.ones(0, dtype=torch.bool, device=like.device)


@dataclass
class Flags:
    """Of one step, on their way: whether any process met a number that is not finite, and each loss of this one.

    stop: makes the error of rows and their losses, or of None and None where only the gradient is at fault.
    elsewhere: makes the error where another process is at fault.
    """

    arriving: Arriving
    losses: Losses
    stop: Callable[[Sequence[int] | None, Tensor | None], Exception]
    elsewhere: Callable[[], Exception]

    def settle(self) -> None:
        """Raise if the step was not finite."""
        anywhere, gradient, *each = self.arriving.value().tolist()
        if not anywhere:
            return
        for fine, (numbers, losses) in zip(each, self.losses.parts, strict=True):
            if not fine:
                raise self.stop(numbers, losses)
        raise self.stop(None, None) if not gradient else self.elsewhere()


def flags_of(norm: Tensor, losses: Losses, processes: int) -> tuple[Tensor, Tensor]:
    """0-d fp32: 1 where any process met a number that is not finite; and all flags in one tensor, as `settle` wants.

    norm: the gradient's, the same on all processes.
    """
    gradient, each = torch.isfinite(norm), losses.finite(norm)
    found = (~(gradient & each.all())).float()
    if processes > 1:
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found, torch.cat([found.bool().reshape(1), gradient.reshape(1), each])
