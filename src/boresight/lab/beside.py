"""Tabular worlds side by side, so that seeds with worlds of their own train in one `fit`, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boresight.lab.tabular import Pairs, TabularPolicy, TabularWorld


class Beside:
    """Worlds of one shape as a single one: the prompts of the first, then those of the second, and so on.

    For objectives whose losses do not depend on each other. The loss is a mean over all worlds, each with its own
    table; Adam does not see its scale, so each world's table is what it would be alone (up to Adam's 1e-8).
    """

    def __init__(self, worlds: Sequence[TabularWorld]) -> None:
        self.worlds = list(worlds)
        reward, reference, lengths = (
            torch.cat([getattr(w, name) for w in worlds]) for name in ("reward", "reference", "lengths")
        )
        self.world = TabularWorld(reward, reference, lengths)

    def pairs(self, drawn: Sequence[Pairs]) -> Pairs:
        """The pairs of each world (of one seed), as pairs of the whole."""
        prompts = len(self.worlds[0].reward)
        moved = torch.cat([each.prompt + k * prompts for k, each in enumerate(drawn)], 1)
        rest = (torch.cat([getattr(each, name) for each in drawn], 1) for name in ("chosen", "rejected", "weight"))
        return Pairs.of(moved, *rest)

    def tables(self, policy: TabularPolicy) -> Tensor:
        """Log-probs of the policy in each world, (worlds, prompts, responses), without gradient."""
        return policy.logits.detach()[0].log_softmax(-1).view(len(self.worlds), *self.worlds[0].reward.shape)
