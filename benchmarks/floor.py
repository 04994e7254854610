"""The floor of a step: floating-point operations that no exact method avoids, and the machine's matrix-multiply peak.

Counted (a multiplication and an addition are two): each prompt goes through the layers once, nothing is padded, the
last token of a response stays out (it predicts nothing), the head runs at predicting positions only, attention is the
causal half, the reference is cached, and the backward pass is twice the forward one where weights are trained. A
frozen weight costs only the gradient of its input, and not even that where nothing trained lies before it. Elementwise
work, norms, the softmax and the optimizer are left out. A prompt's positions count in full in the last layer too,
although only keys and values are needed there: an engine that leaves them out is credited with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A Llama-type model: attention with grouped keys, a gated MLP, a head. rank: of LoRA on all its linear layers."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    rank: int = 0

    @classmethod
    def of(cls, config: Any, rank: int = 0) -> Shape:
        """From the configuration of a transformers model."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=config.num_key_value_heads or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            mlp=config.intermediate_size,
            vocab=config.vocab_size,
            rank=rank,
        )

    def projections(self) -> list[tuple[int, int, bool]]:
        """A layer's matrices as (inputs, outputs, whether it reads the layer's own input)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, queries, True),
            (self.hidden, keys, True),
            (self.hidden, keys, True),
            (queries, self.hidden, False),
            (self.hidden, self.mlp, False),
            (self.hidden, self.mlp, False),
            (self.mlp, self.hidden, False),
        ]


@dataclass(frozen=True)
class Work:
    """What goes through a model: positions in its layers, (query, key) pairs of attention, positions in its head."""

    positions: int
    pairs: int
    predicting: int

    def __add__(self, other: Work) -> Work:
        return Work(self.positions + other.positions, self.pairs + other.pairs, self.predicting + other.predicting)


def least(prompt: int, responses: Sequence[int]) -> Work:
    """The least work for the log-probs of responses (lengths, tokens) behind one prompt of `prompt` >= 1 tokens.

    The prompt's last position predicts the first token of every response, and is in the head once.
    """
    branches = [r - 1 for r in responses if r]
    if not branches:
        return Work(0, 0, 0)
    pairs = prompt * (prompt + 1) // 2 + sum(b * prompt + b * (b + 1) // 2 for b in branches)
    return Work(prompt + sum(branches), pairs, 1 + sum(branches))


def linear_flops(shape: Shape, work: Work) -> int:
    """Forward and backward of all matrices but attention's own."""
    total = 0
    for layer in range(shape.layers):
        for inputs, outputs, reads_input in shape.projections():
            first = layer == 0 and reads_input and shape.rank > 0  # behind frozen embeddings: no gradient is wanted
            once = 2 * inputs * outputs
            if not shape.rank:
                total += 3 * once
                continue
            down, up = 2 * inputs * shape.rank, 2 * shape.rank * outputs
            total += (1 if first else 2) * once + (2 if first else 3) * down + 3 * up
    head = 2 * shape.hidden * shape.vocab * (2 if shape.rank else 3)
    return total * work.positions + head * work.predicting


def attention_flops(shape: Shape, work: Work) -> int:
    """Scores and weighted values: two products forward, four backward, over the pairs that the mask lets through."""
    return 6 * 2 * work.pairs * shape.heads * shape.head_dim * shape.layers


def step_flops(shape: Shape, batch: Iterable[tuple[int, Sequence[int]]]) -> int:
    """Of one step on a batch of (prompt length, response lengths)."""
    work = sum((least(prompt, responses) for prompt, responses in batch), Work(0, 0, 0))
    return linear_flops(shape, work) + attention_flops(shape, work)


def matmul_peak(dtype: str, device: str, seconds: float = 3.0) -> float:
    """The most FLOP/s that square matrix products reach on this machine now, of several sizes; fp32 or bf16."""
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    sizes = (4096, 8192, 16384) if device == "cuda" else (1024, 2048, 3072)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        out, until = torch.empty_like(a), time.perf_counter() + seconds / len(sizes)
        for turn in range(1000):
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            wait()
            now = time.perf_counter()
            best = max(best, 2 * size**3 / (now - started))
            if turn and now > until:
                break
    return best
