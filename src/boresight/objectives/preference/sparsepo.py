from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import not_negative, positive

MASKS = ("common", "independent", "activations")


def _heads(width: int, *, masks: str = "common", **_: Any) -> dict[str, Module]:
    names = {"common": ("mask",), "independent": ("reward_mask", "kl_mask")}.get(masks, ())
    return {name: Linear(width, 1) for name in names}


@objective(
    "sparsepo",
    needs=("reference", "reference_kl", "reference_hidden"),
    lr=5e-7,
    lr_source="the authors' table of settings for helpfulness and harmlessness (huawei-noah/HEBO, SparsePO/README.md)",
    sources={
        "beta": "the authors' table for helpfulness and harmlessness; 0.8 for sentiment and summaries",
        "masks": "the authors' default (rw_kl_independent=False)",
        "l1": "the authors' table for helpfulness and harmlessness (l1_norm_param_u, l1_norm_param_d); 0 elsewhere",
    },
    paper="Christopoulou et al. 2024 (SparsePO); read in the authors' code, SparsePO/src/trainers/sparse_trainer.py",
    heads=_heads,
)
def sparsepo(pairs: PairLogProbs, *, beta: float = 0.1, masks: str = "common", l1: float = 0.001) -> Tensor:
    """DPO by the token, each token's reward and KL weighted by sparse masks.

    -log sigmoid(beta * (U_chosen - U_rejected - (D_rejected - D_chosen))) + l1 * (sum of all masks of both responses),
    where U is the sum over tokens of m_u * (log policy - log reference) and D that of m_d * KL(reference || policy) of
    the token's distribution, in nats; gradients flow through both and into the masks. As in TDPO the KL of the chosen
    adds to the margin. With all masks 1 and without the KL it is DPO.

    masks="common": m_u = m_d = relu(w . hidden + b), trained, on the reference's last hidden state that predicts the
    token. masks="independent": two such masks. masks="activations" (the authors' MaPO): nothing is trained; the mean of
    that hidden state, shifted and scaled to [0, 1] within each response (where all are equal: 1), and no l1 term.

    The authors read all layers' hidden states and mix them (their mask_model="simple_last" is the form here), and drop
    out 1% of masks. They divide both l1 weights by 2 where the mask is common, which is this sum.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, l1 < 0, or masks is another word.
    """
    positive(beta=beta)
    not_negative(l1=l1)
    if masks not in MASKS:
        raise ValueError(f"masks must be one of {', '.join(MASKS)}, not {masks!r}")
    won, lost = (
        _Side(pairs, policy, reference, masks)
        for policy, reference in zip(
            (pairs.policy.chosen, pairs.policy.rejected),
            (pairs.reference.chosen, pairs.reference.rejected),
            strict=True,
        )
    )
    losses = -logsigmoid(beta * (won.reward - lost.reward - (lost.divergence - won.divergence)))
    return losses if masks == "activations" else losses + l1 * (won.size + lost.size)


class _Side:
    """The masked sums of one side, (pairs,) each, and how large its masks are in sum."""

    def __init__(self, pairs: PairLogProbs, policy: LogProbs, reference: LogProbs, masks: str) -> None:
        hidden = policy.token("reference_hidden").detach().to(policy.values.dtype)
        if masks == "activations":
            on_reward = on_kl = _rescaled(hidden.mean(-1), policy)
        elif masks == "common":
            on_reward = on_kl = _learned(pairs, "mask", hidden)
        else:
            on_reward, on_kl = _learned(pairs, "reward_mask", hidden), _learned(pairs, "kl_mask", hidden)
        ratio, kl = policy.values - reference.values, policy.token("reference_kl")
        self.reward, self.divergence = _sum(policy, on_reward * ratio), _sum(policy, on_kl * kl)
        self.size = _sum(policy, on_reward if masks == "common" else on_reward + on_kl)


def _learned(pairs: PairLogProbs, name: str, hidden: Tensor) -> Tensor:
    return pairs.head(name)(hidden).squeeze(-1).relu()


def _rescaled(values: Tensor, of: LogProbs) -> Tensor:
    """To [0, 1] within each response; 1 where all of a response's tokens are alike."""
    ends = values.new_full((of.count,), torch.inf)
    low = ends.scatter_reduce(0, of.owner, values, "amin")[of.owner]
    high = (-ends).scatter_reduce(0, of.owner, values, "amax")[of.owner]
    spread = high - low
    flat = spread == 0
    return torch.where(flat, 1.0, (values - low) / torch.where(flat, 1.0, spread))


def _sum(of: LogProbs, values: Tensor) -> Tensor:
    return values.new_zeros(of.count).index_add(0, of.owner, values)
