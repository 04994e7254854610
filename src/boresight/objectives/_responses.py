"""Batches of single responses: demonstrations, or responses labelled desirable or not."""

from __future__ import annotations

import torch
from torch import Tensor

from boresight.objectives._given import Carrying, Given
from boresight.objectives._logprobs import LogProbs


class ResponseLogProbs(Carrying[LogProbs]):
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
        given: Given | None = None,
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
        self.given = given or Given()

    def __len__(self) -> int:
        return self.policy.count

    @property
    def has_labels(self) -> bool:
        """Whether the responses are labelled desirable or not."""
        return self._desirable is not None

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
