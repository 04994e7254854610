"""PMPO: the rewrite, values by hand, and its two ends: likelihood of the accepted, and the rejected alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import boresight.objectives as o
from boresight.objectives import LogProbs, ResponseLogProbs
from oracles import Single, total


def pmpo(example: Single, alpha: float, beta: float) -> float:
    share = -alpha if example.desirable else 1 - alpha
    return 2 * share * total(example.policy) + beta * total(example.known.per_token["reference_kl"])


def batch(
    sums: list[list[float]], kl: list[list[float]], desirable: list[bool]
) -> tuple[ResponseLogProbs, list[Tensor]]:
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in sums]
    known = [torch.tensor(x, dtype=torch.float64) for x in kl]
    policy = LogProbs.from_sequences(leaves, reference_kl=known)
    return ResponseLogProbs(policy, desirable=torch.tensor(desirable)), leaves


def test_by_hand():
    made, _ = batch([[-1, -2], [-4]], [[0.5, 0.25], [2]], [True, False])
    found = o.pmpo(made, alpha=0.75, beta=0.4)
    torch.testing.assert_close(found, torch.tensor([4.5 + 0.3, -2 + 0.8], dtype=torch.float64))


def test_labels_in_balance_give_the_paper_s_objective():
    made, _ = batch([[-1], [-4], [-2], [-3]], [[0.1], [0.2], [0.3], [0.4]], [True, False, True, False])
    accepted, rejected, kl = -1.5, -3.5, 0.25
    expected = -0.3 * accepted + 0.7 * rejected + 0.6 * kl
    assert o.pmpo(made, alpha=0.3, beta=0.6).mean().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "idle"), [(1.0, 1), (0.0, 0)])
def test_at_the_ends_one_label_teaches(alpha: float, idle: int):
    made, leaves = batch([[-1, -2], [-4]], [[0, 0], [0]], [True, False])
    found = torch.autograd.grad(o.pmpo(made, alpha=alpha).sum(), leaves)
    assert found[idle].abs().max() == 0
    assert (found[1 - idle] == (-2 if alpha == 1 else 2)).all()


def test_kl_is_exact_and_its_gradient_flows():
    """From logits: KL(reference || policy) of the token, whose gradient is policy - reference."""
    logits = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    kl = (reference.exp() * (reference - policy)).sum()[None]
    made = ResponseLogProbs(
        LogProbs(policy[:1].detach(), torch.tensor([0]), 1, {"reference_kl": kl}), desirable=torch.tensor([True])
    )
    (found,) = torch.autograd.grad(o.pmpo(made, beta=0.5).sum(), logits)
    torch.testing.assert_close(found, 0.5 * (policy.exp() - reference.exp()).detach())


def test_alpha_is_a_share():
    made, _ = batch([[-1]], [[0]], [True])
    with pytest.raises(ValueError, match="alpha"):
        o.pmpo(made, alpha=1.1)
