"""What an objective may want of a token's distribution beyond one log-prob: entropy, KL, top-k, expectations, argmax.

Tokens go through the head in chunks; each chunk's logits are made, used and thrown away, and made again in the
backward pass. No (tokens, vocabulary) tensor ever exists: a few times `tile` numbers at a time, for any vocabulary.
Everything is in nats, fp32 (fp64 where the head's logits are), and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from boresight.engine.head import TILE, accumulation_dtype, product_dtype
from boresight.errors import InputError


@dataclass(frozen=True)
class Head:
    """logits = cap * tanh(scale * forward(hidden) / cap), over `vocabulary` entries.

    forward: the head module itself, whatever it is (LoRA on it, quantised, hooked, sharded), or see `of_weight`.
    """

    forward: Callable[[Tensor], Tensor]
    vocabulary: int
    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of_weight(
        cls, weight: Tensor, bias: Tensor | None = None, *, scale: float = 1.0, cap: float | None = None
    ) -> Head:
        """hidden @ weight.T + bias; weight: (vocabulary, width), bias: (vocabulary,)."""

        def forward(hidden: Tensor) -> Tensor:
            dtype = product_dtype(hidden, weight)
            return torch.nn.functional.linear(hidden.to(dtype), weight, bias)

        return cls(forward, weight.shape[0], scale, cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, vocabulary) in fp32 or fp64 from (tokens, width)."""
        logits = self.forward(hidden)
        logits = logits.to(accumulation_dtype(logits.dtype))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


def through_head(
    compute: Callable[..., Tensor | tuple[Tensor, ...]],
    heads: tuple[Head, ...],
    hidden: tuple[Tensor, ...],
    *per_token: Tensor,
    tile: int = TILE,
) -> tuple[Tensor, ...]:
    """`compute(*logits, *per_token)` for chunks of tokens, put together; a tuple of (tokens, ...) tensors.

    heads, hidden: as many of one as of the other; hidden states (tokens, width). compute gets the logits of each head,
    (chunk, vocabulary), and the chunk's part of each of `per_token`, (tokens, ...); it returns one or more
    (chunk, ...). A chunk has at most `tile` logits of one head, one token at the least. Gradients flow to hidden
    states, heads and whatever else `compute` uses. Raises InputError if the lengths differ.
    """
    from torch.utils.checkpoint import checkpoint

    inputs = (*hidden, *per_token)
    if len(heads) != len(hidden) or len({x.shape[0] for x in inputs}) != 1:
        lengths = [x.shape[0] for x in inputs]
        raise InputError(f"{len(heads)} head(s) were given {len(hidden)} hidden state(s), lengths {lengths}")

    def part(*chunk: Tensor) -> tuple[Tensor, ...]:
        logits = [head.logits(rows) for head, rows in zip(heads, chunk, strict=False)]
        made = compute(*logits, *chunk[len(heads) :])
        return made if isinstance(made, tuple) else (made,)

    size = max(1, tile // max(head.vocabulary for head in heads))
    chunks = zip(*(x.split(size) for x in inputs), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        parts = [part(*chunk) for chunk in chunks]
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def _entropy(logits: Tensor) -> Tensor:
    logs = torch.log_softmax(logits, 1)
    p = logs.exp()
    # 0 log 0 = 0, in the value and in the gradient
    return -(p * logs.masked_fill(p == 0, 0.0)).sum(1)


def entropy(head: Head, hidden: Tensor, *, tile: int = TILE) -> Tensor:
    """- sum p log p of each token's distribution, (tokens,), between 0 and log(vocabulary)."""
    return through_head(_entropy, (head,), (hidden,), tile=tile)[0]


def _kl(logits: Tensor, other: Tensor) -> Tensor:
    logs, others = torch.log_softmax(logits, 1), torch.log_softmax(other, 1)
    p = logs.exp()
    nothing = p == 0
    return (p * (logs.masked_fill(nothing, 0.0) - others.masked_fill(nothing, 0.0))).sum(1)


def kl(head: Head, hidden: Tensor, other: Head, other_hidden: Tensor, *, tile: int = TILE) -> Tensor:
    """KL(p || q) = sum p (log p - log q) of each token, (tokens,); p by `head`, q by `other`, each from its states.

    KL(policy || reference) with the policy first, the reverse with the reference first. At least 0 up to rounding;
    inf where q excludes what p does not. Where the reference needs no gradient, give detached states and parameters
    without gradient. Raises InputError if the vocabularies differ.
    """
    if head.vocabulary != other.vocabulary:
        raise InputError(
            f"the two heads have different vocabularies: {head.vocabulary} and {other.vocabulary} entries",
            mend="compare models with the same tokenizer and head",
        )
    return through_head(_kl, (head, other), (hidden, other_hidden), tile=tile)[0]


def top_k(head: Head, hidden: Tensor, k: int, *, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """The k largest log-probs of each token, (tokens, k), largest first, and their vocabulary entries, (tokens, k).

    Raises InputError unless 1 <= k <= vocabulary.
    """
    if not 1 <= k <= head.vocabulary:
        raise InputError(f"top-k wants k between 1 and {head.vocabulary}, the vocabulary, not {k}")

    def compute(logits: Tensor) -> tuple[Tensor, Tensor]:
        values, index = logits.topk(k, dim=1)
        return values - logits.logsumexp(1, keepdim=True), index

    values, index = through_head(compute, (head,), (hidden,), tile=tile)
    return values, index


def log_probs_at(head: Head, hidden: Tensor, entries: Tensor, *, tile: int = TILE) -> Tensor:
    """The log-probs of given vocabulary entries, (tokens, k) from (tokens, k) int64; a store of top-k looked up."""

    def compute(logits: Tensor, wanted: Tensor) -> Tensor:
        return logits.gather(1, wanted) - logits.logsumexp(1, keepdim=True)

    return through_head(compute, (head,), (hidden,), entries, tile=tile)[0]


def expectation(head: Head, hidden: Tensor, values: Tensor, *, tile: int = TILE) -> Tensor:
    """sum p(v) values[v] of each token: (tokens,) for values (vocabulary,), (tokens, m) for (vocabulary, m).

    Gradients flow to `values` too. Raises InputError if there is not one value for each vocabulary entry.
    """
    if values.shape[0] != head.vocabulary:
        raise InputError(f"{values.shape[0]} values were given for a vocabulary of {head.vocabulary}")

    def compute(logits: Tensor) -> Tensor:
        p = torch.softmax(logits, 1)
        with torch.autocast(logits.device.type, enabled=False):
            return p @ values.to(p.dtype)

    return through_head(compute, (head,), (hidden,), tile=tile)[0]


@torch.no_grad()
def argmax(head: Head, hidden: Tensor, *, tile: int = TILE) -> Tensor:
    """The most probable vocabulary entry of each token, (tokens,) int64; the first of equals."""
    return through_head(lambda logits: logits.argmax(1), (head,), (hidden,), tile=tile)[0]


def correct(head: Head, hidden: Tensor, targets: Tensor, *, tile: int = TILE) -> Tensor:
    """Whether the target is the most probable entry, (tokens,) bool: the top-1 accuracy's parts."""
    return argmax(head, hidden, tile=tile) == targets
