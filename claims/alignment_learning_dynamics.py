"""Learning dynamics of DPO (Im and Li 2024): behaviours whose two sides lie farther apart are learnt sooner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.diagnostics import distinguishability
from boresight.lab.claims import Arm, claim, less, more
from boresight.objectives import PairLogProbs, dpo

WIDTH, EACH, STEPS, LR, BETA = 16, 200, 600, 0.5, 0.1
FAR, NEAR, SPREAD = 3.0, 1.0, 1.0
LEARNT = 0.65
"""The DPO loss at which a behaviour counts as learnt; log 2 = 0.693 at the start."""


def behaviours(seed: int, far: float, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of statements (2 * 2 * EACH, WIDTH), whether one agrees with each, and its behaviour.

    The statements of a behaviour lie normally around two centres, `far` and `near` apart, in random directions.
    """
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=rng, dtype=torch.float64))[0]
    found = []
    for behaviour, distance in enumerate((far, near)):
        for side in (0.5, -0.5):
            noise = SPREAD * torch.randn(EACH, WIDTH, generator=rng, dtype=torch.float64)
            found.append(noise + side * distance * axes[behaviour])
    agrees = torch.tensor([True, False]).repeat_interleave(EACH).repeat(2)
    return torch.cat(found), agrees, torch.arange(2).repeat_interleave(2 * EACH)


def curves(seed: int, far: float, near: float, hidden: int) -> tuple[Tensor, Tensor]:
    """Mean DPO loss of both behaviours after each step (STEPS, 2), and how far apart their sides lie (2,).

    The answer to a statement is yes or no, by logits on its embedding: linear in it, or by `hidden` tanh units whose
    first layer is trained as well.
    """
    known, agrees, behaviour = behaviours(seed, far, near)
    apart = distinguishability(known[agrees], known[~agrees], behaviour[agrees], behaviour[~agrees])
    rng = torch.Generator().manual_seed(seed)
    inner = [torch.randn(WIDTH, hidden, generator=rng, dtype=torch.float64) / WIDTH**0.5] if hidden else []
    out = torch.zeros(hidden or WIDTH, 2, dtype=torch.float64)
    if hidden:
        out += torch.randn(hidden, 2, generator=rng, dtype=torch.float64) / hidden**0.5
    leaves = [x.requires_grad_() for x in (*inner, out)]
    optimizer = torch.optim.SGD(leaves, lr=LR)
    start, seen = None, []
    for _ in range(STEPS):
        states = torch.tanh(known @ inner[0]) if hidden else known
        table = (states @ out).log_softmax(-1)
        right, wrong = (torch.where(agrees, table[:, a], table[:, 1 - a]) for a in (0, 1))
        if start is None:
            start = right.detach(), wrong.detach()
        losses = dpo(PairLogProbs.from_sums(right, wrong, *start), beta=BETA)
        seen.append(losses.detach().view(2, -1).mean(1))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return torch.stack(seen), apart


def steps_to(losses: Tensor) -> Tensor:
    """Steps until each behaviour's loss is below `LEARNT`; all of them where it never is."""
    return (losses > LEARNT).long().cumprod(0).sum(0).double()


@claim(
    "alignment-learning-dynamics",
    part="order",
    says="Of two behaviours mixed equally, DPO learns the one whose chosen and rejected embeddings lie farther apart "
    "in fewer steps",
    expects=(more("distinguishability"), less("steps")),
    treatment="the behaviour whose sides are far apart",
    baseline="the behaviour whose sides are near",
    sweep={"far": (1.0, 1.5, 2.0, 3.0), "hidden": (0, 32)},
    smoke=True,
)
def alignment_learning_dynamics_order(
    arm: Arm, seeds: Sequence[int], *, far: float = 3.0, hidden: int = 0
) -> Mapping[str, Any]:
    """Two behaviours of 400 statements each, half to be agreed with and half not, mixed equally. Embeddings (16 wide)
    lie normally with standard deviation 1 around two centres of each behaviour, 3 and 1 apart, in directions at right
    angles to each other. The answer, yes or no, comes from logits linear in the embedding, as in the paper's analysis
    of a frozen body; `hidden` puts a trained layer of tanh units between. DPO with beta 0.1, 600 steps of plain
    gradient descent at 0.5 on all pairs. Steps are counted until a behaviour's mean loss is below 0.65, 600 where it
    never is; distance is what the diagnostic says of the embeddings.
    """
    place = 0 if arm == "treatment" else 1
    found = [curves(seed, far, NEAR, hidden) for seed in seeds]
    return {
        "distinguishability": [float(apart[place]) for _, apart in found],
        "steps": [float(steps_to(losses)[place]) for losses, _ in found],
    }


@claim(
    "alignment-learning-dynamics",
    part="shrunk",
    says="Moving a behaviour's two sides closer together makes it take more steps",
    expects=(less("distinguishability"), more("steps")),
    treatment="the same behaviour at a distance of 1.5",
    baseline="at a distance of 3",
    sweep={"shrunk": (0.75, 1.5, 2.25, 3.0), "hidden": (0, 32)},
    smoke=True,
)
def alignment_learning_dynamics_shrunk(
    arm: Arm, seeds: Sequence[int], *, shrunk: float = 1.5, hidden: int = 0
) -> Mapping[str, Any]:
    """The same, and the first behaviour once more with its centres closer together, the noise around them unchanged;
    the second behaviour is the same in both arms.
    """
    far = shrunk if arm == "treatment" else FAR
    found = [curves(seed, far, NEAR, hidden) for seed in seeds]
    return {
        "distinguishability": [float(apart[0]) for _, apart in found],
        "steps": [float(steps_to(losses)[0]) for losses, _ in found],
    }
