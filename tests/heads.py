"""What the tests of the chunked head and of the fused head share: inputs, the plain computation, and a watch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TOKENS, WIDTH, VOCABULARY = 13, 6, 29
FORMS = [(1.0, None), (0.25, None), (1.0, 2.0), (-1.5, 3.0)]
"""Scale and soft-cap."""


def inputs(
    dtype: torch.dtype = torch.float64,
    tokens: int = TOKENS,
    width: int = WIDTH,
    vocabulary: int = VOCABULARY,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight and bias, all with gradients, and targets; the same numbers in every dtype."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(vocabulary, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,), generator=g)
    return hidden, weight, bias, targets


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float = 1.0, cap: float | None = None
) -> Tensor:
    """Log-probs of the targets through a full log-softmax."""
    logits = scale * (hidden @ weight.T + (0 if bias is None else bias))
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]


class Made(TorchDispatchMode):
    """The elements of the largest tensor that any operation returns, and how often matrices were multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.multiplied = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        self.multiplied += func._schema.name in ("aten::mm", "aten::addmm", "aten::addmm_")
        return result
