"""Ranking accuracy: how often a policy gives the chosen response more probability than the rejected one.

It is not the accuracy of the implicit reward, which asks for more than the reference gave. What a preference loss can
reach is bounded by the reference and by how far annotators agree; and which pairs it will turn is told by their loss.
Source: Chen et al. 2024, "Preference Learning Algorithms Do Not Learn Preference Rankings".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from torch.nn.functional import softplus

from boresight.paper import paper


@dataclass(frozen=True)
class Ranking:
    """Ranking accuracies of pairs, (...) each, and what became of pairs that the reference ranks wrongly.

    model, reference: R of the two. ideal: R of the optimum of the DPO loss for these annotators, None where their
    shares are not known. turned: the share of pairs wrong in the reference that are right in the model; lost: the share
    of those right in the reference that no longer are. nan where there is no such pair.
    """

    model: Tensor
    reference: Tensor
    turned: Tensor
    lost: Tensor
    ideal: Tensor | None = None

    @property
    def gap(self) -> Tensor | None:
        """The alignment gap, ideal - model."""
        return None if self.ideal is None else self.ideal - self.model


def ranking_accuracy(
    chosen: Tensor, rejected: Tensor, lengths: tuple[Tensor, Tensor] | None = None, weight: Tensor | None = None
) -> Tensor:
    """R, the share of pairs with log p(chosen) > log p(rejected), over the last dimension, (...); fp64.

    chosen, rejected: (..., pairs), log-probs in nats summed over tokens. lengths: tokens of both, positive, to compare
    log-probs per token. weight: (..., pairs), how often each pair counts. Equal log-probs are not ranked. No pair: nan.
    Raises ValueError if shapes disagree, a log-prob is nan or a length or weight is unusable.
    """
    margin = _margin(chosen, rejected, lengths)
    return _share(margin > 0, _weight(margin, weight))


def ideal_margin(reference_chosen: Tensor, reference_rejected: Tensor, share: Tensor, beta: float) -> Tensor:
    """log p*(chosen) - log p*(rejected) in nats under the optimum of DPO, in the shape of the log-probs; fp64.

    (ref chosen - ref rejected) + log(share / (1 - share)) / beta. share: of annotators who prefer the chosen, in
    [0, 1]; where all agree the margin is infinite. Raises ValueError for shapes that disagree, a share outside [0, 1],
    or beta not positive and finite. Source: Chen et al. 2024, idealised policy.
    """
    _positive(beta)
    margin = _margin(reference_chosen, reference_rejected, None)
    share = share.double()
    if share.shape != margin.shape or not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"share must lie in [0, 1] and have shape {tuple(margin.shape)}, not {tuple(share.shape)}")
    return margin + torch.logit(share) / beta


def difficulty(reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    """c = ref rejected - ref chosen in nats: what the policy must add to the margin before it ranks the pair right."""
    return -_margin(reference_chosen, reference_rejected, None)


def turning_loss(difficulty: Tensor, beta: float) -> Tensor:
    """The DPO loss of a pair at which the policy ranks both alike, -log sigmoid(beta * c); below it, it ranks right.

    It is log 2 for c = 0 and goes to 0 as c grows: a pair that the reference ranks wrongly by far needs a loss of
    almost nothing. Raises ValueError if beta is not positive and finite. Source: Chen et al. 2024, the theorem
    on the loss at which a pair is ranked right.
    """
    _positive(beta)
    return softplus(-beta * difficulty.double())


def ranked_by_loss(loss: Tensor, difficulty: Tensor, beta: float) -> Tensor:
    """Whether a pair's DPO loss is low enough for the policy to rank it right, loss <= -log sigmoid(beta * c).

    loss: of DPO with that beta and no label smoothing, in the shape of `difficulty`. Equality is a tie of log-probs,
    which counts as right here and not in `ranking_accuracy`. Raises ValueError if shapes disagree, or as above.
    """
    if loss.shape != difficulty.shape:
        raise ValueError(f"loss and difficulty have shapes {tuple(loss.shape)} and {tuple(difficulty.shape)}")
    return loss.double() <= turning_loss(difficulty, beta)


@paper("ranking-accuracy")
def ranking(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    lengths: tuple[Tensor, Tensor] | None = None,
    weight: Tensor | None = None,
    share: Tensor | None = None,
    beta: float = 0.1,
) -> Ranking:
    """R of model, reference and, with the annotators' `share`, of the idealised policy at `beta`; see `Ranking`.

    All log-probs in nats, summed over tokens, (..., pairs). With `lengths` model and reference are ranked per token;
    the idealised policy is known by sums only, so that lengths and share together raise ValueError.
    """
    if lengths is not None and share is not None:
        raise ValueError("the idealised policy is known by sums of log-probs: give lengths or share, not both")
    now = _margin(chosen, rejected, lengths)
    before = _margin(reference_chosen, reference_rejected, lengths)
    if now.shape != before.shape:
        raise ValueError(f"policy and reference have shapes {tuple(now.shape)} and {tuple(before.shape)}")
    each = _weight(now, weight)
    wrong, right = before <= 0, before > 0
    ideal = None
    if share is not None:
        ideal = _share(ideal_margin(reference_chosen, reference_rejected, share, beta) > 0, each)
    return Ranking(
        _share(now > 0, each),
        _share(right, each),
        _share(now > 0, each * wrong),
        _share(now <= 0, each * right),
        ideal,
    )


def _margin(chosen: Tensor, rejected: Tensor, lengths: tuple[Tensor, Tensor] | None) -> Tensor:
    if chosen.ndim < 1 or chosen.shape != rejected.shape:
        raise ValueError(
            f"chosen and rejected must have one shape (..., pairs), not {tuple(chosen.shape)}, {tuple(rejected.shape)}"
        )
    if bool(torch.isnan(chosen).any() or torch.isnan(rejected).any()):
        raise ValueError("a log-prob is nan")
    sides = [chosen.double(), rejected.double()]
    if lengths is not None:
        if any(n.shape != chosen.shape or not bool((n > 0).all()) for n in lengths):
            raise ValueError("lengths must be positive and have the shape of the log-probs")
        sides = [side / n for side, n in zip(sides, lengths, strict=True)]
    # Two responses of probability 0 are alike, though inf - inf is not a number.
    return torch.where(sides[0] == sides[1], torch.zeros_like(sides[0]), sides[0] - sides[1])


def _weight(margin: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return torch.ones_like(margin)
    if weight.shape != margin.shape or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise ValueError("weights must be finite, not negative, and of the shape of the log-probs")
    return weight.double()


def _share(true: Tensor, weight: Tensor) -> Tensor:
    return (true * weight).sum(-1) / weight.sum(-1)


def _positive(beta: float) -> None:
    if not 0 < beta < inf:
        raise ValueError(f"beta must be positive and finite, not {beta}")
