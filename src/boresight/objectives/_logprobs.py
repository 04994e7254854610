"""Log-probs of a batch of responses, ragged, and the views that losses are made of.

Shapes: `tokens` is the number of response tokens in the batch (ragged, no padding), `responses` the number of
responses. All values are in nats and fp32 (or fp64 in tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogProbs:
    """Log-probs of the tokens of a batch of responses, ragged: token t belongs to response `owner[t]`.

    values: (tokens,) floating point. owner: (tokens,) int64, each in [0, count). count: number of responses.
    per_token: what else is known of each token, by the name under which an objective needs it, each (tokens, ...).
    A response may have no tokens; its sum and mean are 0 then, with zero gradient.
    Raises ValueError if the shapes disagree, or the values are in half precision: near -512 a sum in bf16 moves in
    steps of 2, more than most margins.
    """

    values: Tensor
    owner: Tensor
    count: int
    per_token: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"values must be float32 or float64, not {self.values.dtype}: upcast before summing")
        if self.values.ndim != 1 or self.owner.shape != self.values.shape:
            raise ValueError(
                f"values and owner must both have shape (tokens,), not {tuple(self.values.shape)} and "
                f"{tuple(self.owner.shape)}"
            )
        for name, known in self.per_token.items():
            if known.shape[:1] != self.values.shape:
                raise ValueError(f"{name} must have one entry for each of {len(self.values)} tokens, not {len(known)}")

    @classmethod
    def from_sequences(cls, sequences: Sequence[Tensor], **per_token: Sequence[Tensor]) -> LogProbs:
        """From one (length,) tensor of per-token log-probs for each response; per_token: likewise, (length, ...)."""
        lengths = torch.tensor([s.numel() for s in sequences], dtype=torch.int64)
        values = torch.cat(list(sequences)) if len(sequences) else torch.zeros(0)
        owner = torch.repeat_interleave(torch.arange(len(sequences)), lengths).to(values.device)
        more = {name: torch.cat(list(known)) if len(known) else torch.zeros(0) for name, known in per_token.items()}
        return cls(values, owner, len(sequences), more)

    @classmethod
    def from_padded(cls, values: Tensor, mask: Tensor) -> LogProbs:
        """From padded per-token log-probs, shape (responses, length), and a boolean mask of the same shape."""
        if values.ndim != 2 or mask.shape != values.shape:
            raise ValueError(
                f"values and mask must both have shape (responses, length), not {tuple(values.shape)} and "
                f"{tuple(mask.shape)}"
            )
        mask = mask.bool()
        return cls(values[mask], mask.nonzero()[:, 0], values.shape[0])

    @classmethod
    def from_sums(cls, sums: Tensor, lengths: Tensor | None = None) -> LogProbs:
        """From summed log-probs, shape (responses,), and optionally the number of tokens of each.

        Each sum is spread evenly over its tokens (one token without `lengths`): sums and means are right,
        per-token values are not known.
        """
        if sums.ndim != 1:
            raise ValueError(f"sums must have shape (responses,), not {tuple(sums.shape)}")
        if lengths is None:
            return cls(sums, torch.arange(sums.shape[0], device=sums.device), sums.shape[0])
        if lengths.shape != sums.shape or bool((lengths < 1).any()):
            raise ValueError("lengths must have the shape of sums, and every response at least one token")
        owner = torch.repeat_interleave(torch.arange(sums.shape[0], device=sums.device), lengths.to(sums.device))
        return cls((sums / lengths)[owner], owner, sums.shape[0])

    def to(self, device: torch.device | str) -> LogProbs:
        """The same on another device."""
        more = {name: known.to(device) for name, known in self.per_token.items()}
        return LogProbs(self.values.to(device), self.owner.to(device), self.count, more)

    def token(self, name: str) -> Tensor:
        """What is known of each token under this name, (tokens, ...). Raises ValueError if nothing is."""
        if name not in self.per_token:
            raise ValueError(f"this objective needs {name} of each token, and the batch has none")
        return self.per_token[name]

    def positions(self) -> Tensor:
        """Place of each token in its response, from 0, shape (tokens,), int64."""
        order = torch.argsort(self.owner, stable=True)
        lengths = self.lengths()
        starts = (lengths.cumsum(0) - lengths)[self.owner[order]]
        places = torch.empty_like(self.owner)
        places[order] = torch.arange(len(order), device=self.owner.device) - starts
        return places

    def lengths(self) -> Tensor:
        """Number of tokens of each response, shape (responses,), int64."""
        # Not bincount, which waits for a GPU.
        return self.owner.new_zeros(self.count).index_add(0, self.owner, torch.ones_like(self.owner))

    def sum(self) -> Tensor:
        """Log-prob of each response: its tokens' log-probs summed, shape (responses,)."""
        return self.values.new_zeros(self.count).index_add(0, self.owner, self.values)

    def mean(self) -> Tensor:
        """Average log-prob per token of each response, shape (responses,); 0 for a response without tokens."""
        return self.sum() / self.lengths().clamp(min=1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Sum of weights * values over each response's tokens; weights: (tokens,). Shape (responses,)."""
        if weights.shape != self.values.shape:
            raise ValueError(f"weights must have shape {tuple(self.values.shape)}, not {tuple(weights.shape)}")
        return self.values.new_zeros(self.count).index_add(0, self.owner, self.values * weights.to(self.values.dtype))

    def select(self, responses: Tensor) -> LogProbs:
        """The same for some responses only, in the order given; responses: (n,) int64 without repeats."""
        place = torch.full((self.count,), -1, dtype=torch.int64, device=self.owner.device)
        place[responses] = torch.arange(responses.shape[0], device=self.owner.device)
        owner = place[self.owner]
        keep = owner >= 0
        order = torch.argsort(owner[keep], stable=True)
        more = {name: known[keep][order] for name, known in self.per_token.items()}
        return LogProbs(self.values[keep][order], owner[keep][order], responses.shape[0], more)
