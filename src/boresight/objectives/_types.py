"""What an objective is given: log-probs of a batch of responses, and the views that losses are made of.

Shapes: `tokens` is the number of response tokens in the batch (ragged, no padding), `responses` the number of
responses, `pairs` the number of pairs. All values are in nats and fp32 (or fp64 in tests).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogProbs:
    """Log-probs of the tokens of a batch of responses, ragged: token t belongs to response `owner[t]`.

    values: (tokens,) floating point. owner: (tokens,) int64, each in [0, count). count: number of responses.
    A response may have no tokens; its sum and mean are 0 then, with zero gradient.
    Raises ValueError if the shapes disagree, or the values are in half precision: near -512 a sum in bf16 moves in
    steps of 2, more than most margins.
    """

    values: Tensor
    owner: Tensor
    count: int

    def __post_init__(self) -> None:
        if self.values.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"values must be float32 or float64, not {self.values.dtype}: upcast before summing")
        if self.values.ndim != 1 or self.owner.shape != self.values.shape:
            raise ValueError(
                f"values and owner must both have shape (tokens,), not {tuple(self.values.shape)} and "
                f"{tuple(self.owner.shape)}"
            )

    @classmethod
    def from_sequences(cls, sequences: Sequence[Tensor]) -> LogProbs:
        """From one (length,) tensor of per-token log-probs for each response."""
        lengths = torch.tensor([s.numel() for s in sequences], dtype=torch.int64)
        values = torch.cat(list(sequences)) if len(sequences) else torch.zeros(0)
        owner = torch.repeat_interleave(torch.arange(len(sequences)), lengths).to(values.device)
        return cls(values, owner, len(sequences))

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
        return LogProbs(self.values.to(device), self.owner.to(device), self.count)

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
        return LogProbs(self.values[keep][order], owner[keep][order], responses.shape[0])


@dataclass(frozen=True)
class PairSide:
    """One model's log-probs of the chosen and the rejected responses of a batch of pairs."""

    chosen: LogProbs
    rejected: LogProbs

    def __post_init__(self) -> None:
        if self.chosen.count != self.rejected.count:
            raise ValueError(f"{self.chosen.count} chosen responses but {self.rejected.count} rejected")

    def margin(self) -> Tensor:
        """log p(chosen) - log p(rejected), summed over tokens, shape (pairs,)."""
        return self.chosen.sum() - self.rejected.sum()

    def mean_margin(self) -> Tensor:
        """The same with each side averaged over its tokens, shape (pairs,)."""
        return self.chosen.mean() - self.rejected.mean()


class PairLogProbs:
    """A batch of preference pairs as seen by the policy and, if the objective needs one, by the reference."""

    def __init__(self, policy: PairSide, reference: PairSide | None = None) -> None:
        if reference is not None and reference.chosen.count != policy.chosen.count:
            raise ValueError(f"{policy.chosen.count} pairs of the policy, {reference.chosen.count} of the reference")
        self.policy = policy
        self._reference = reference

    @classmethod
    def from_sums(
        cls,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        reference_chosen: Tensor | None = None,
        reference_rejected: Tensor | None = None,
        *,
        chosen_lengths: Tensor | None = None,
        rejected_lengths: Tensor | None = None,
    ) -> PairLogProbs:
        """From summed log-probs, each of shape (pairs,), for a loop of one's own.

        Objectives that average over tokens need the lengths as well.
        """
        policy = PairSide(
            LogProbs.from_sums(policy_chosen, chosen_lengths), LogProbs.from_sums(policy_rejected, rejected_lengths)
        )
        if reference_chosen is None or reference_rejected is None:
            return cls(policy)
        return cls(
            policy,
            PairSide(
                LogProbs.from_sums(reference_chosen, chosen_lengths),
                LogProbs.from_sums(reference_rejected, rejected_lengths),
            ),
        )

    def __len__(self) -> int:
        return self.policy.chosen.count

    @property
    def has_reference(self) -> bool:
        """Whether the batch was made with a reference."""
        return self._reference is not None

    @property
    def reference(self) -> PairSide:
        """The reference's log-probs. Raises ValueError if the batch was made without a reference."""
        if self._reference is None:
            raise ValueError("this objective needs reference log-probs, and the batch has none")
        return self._reference

    def margin(self) -> Tensor:
        """Policy margin minus reference margin, in nats, summed over tokens, shape (pairs,)."""
        return self.policy.margin() - self.reference.margin()


class ResponseLogProbs:
    """A batch of single responses: demonstrations, or responses labelled desirable or not.

    desirable: (responses,) bool. mismatched_kl: 0-d, the mean over the *global* batch of
    log policy - log reference, summed over tokens, on responses paired with another row's prompt; detached.
    """

    def __init__(
        self,
        policy: LogProbs,
        reference: LogProbs | None = None,
        *,
        desirable: Tensor | None = None,
        mismatched_kl: Tensor | None = None,
    ) -> None:
        if reference is not None and reference.count != policy.count:
            raise ValueError(f"{policy.count} responses of the policy, {reference.count} of the reference")
        if desirable is not None and (desirable.shape != (policy.count,) or desirable.dtype != torch.bool):
            raise ValueError(f"desirable must be boolean of shape ({policy.count},)")
        if mismatched_kl is not None and mismatched_kl.ndim != 0:
            raise ValueError(f"mismatched_kl must be a single number, not of shape {tuple(mismatched_kl.shape)}")
        self.policy = policy
        self._reference = reference
        self._desirable = desirable
        self._mismatched_kl = mismatched_kl

    def __len__(self) -> int:
        return self.policy.count

    @property
    def has_reference(self) -> bool:
        """Whether the batch was made with a reference."""
        return self._reference is not None

    @property
    def has_labels(self) -> bool:
        """Whether the responses are labelled desirable or not."""
        return self._desirable is not None

    @property
    def reference(self) -> LogProbs:
        """The reference's log-probs. Raises ValueError if the batch was made without a reference."""
        if self._reference is None:
            raise ValueError("this objective needs reference log-probs, and the batch has none")
        return self._reference

    @property
    def desirable(self) -> Tensor:
        """(responses,) bool. Raises ValueError if the batch carries no labels."""
        if self._desirable is None:
            raise ValueError("this objective needs labels (desirable or not), and the batch has none")
        return self._desirable

    @property
    def mismatched_kl(self) -> Tensor:
        """0-d. Raises ValueError if the batch carries no estimate."""
        if self._mismatched_kl is None:
            raise ValueError("this objective needs the mismatched-pair KL estimate, and the batch has none")
        return self._mismatched_kl


@dataclass(frozen=True)
class PairScores:
    """A batch of pairs as scored by a reward model: chosen and rejected, each (pairs,)."""

    chosen: Tensor
    rejected: Tensor

    def __post_init__(self) -> None:
        if self.chosen.ndim != 1 or self.chosen.shape != self.rejected.shape:
            raise ValueError(
                f"chosen and rejected must both have shape (pairs,), not {tuple(self.chosen.shape)} and "
                f"{tuple(self.rejected.shape)}"
            )

    def __len__(self) -> int:
        return self.chosen.shape[0]

    def margin(self) -> Tensor:
        """Score of the chosen minus score of the rejected, shape (pairs,)."""
        return self.chosen - self.rejected
