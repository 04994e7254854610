"""The logic of direct preference alignment (Richardson et al. 2025): truth tables compile to known losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from boresight.lab.claims import identity
from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpa_logic, ln_dpo, orpo, simpo

EXACT = 1e-10
CPO = {"formula": "w or not l", "condition": "w or l", "both": "w and l"}
LN_DPO = {
    "formula": "not (rw and l) or (w and rl)",
    "condition": "(rw and l) or (w and rl)",
    "both": "w and l and rw and rl",
}


def pairs(seed: int) -> tuple[list[Tensor], PairLogProbs]:
    """64 pairs of 1 to 12 tokens: the policy's log-probs as leaves, and the batch; fp64."""
    rng = torch.Generator().manual_seed(seed)
    leaves, sides = [], []
    for of_policy in (True, False):
        each = []
        for _ in range(2):
            owner = torch.arange(64).repeat_interleave(torch.randint(1, 13, (64,), generator=rng))
            values = -3 * torch.rand(len(owner), generator=rng, dtype=torch.float64) - 1e-3
            if of_policy:
                leaves.append(values.requires_grad_())
            each.append(LogProbs(values, owner, 64))
        sides.append(PairSide(*each))
    return leaves, PairLogProbs(*sides)


def residuals(seeds: Sequence[int], known: Callable[..., Tensor], logic: dict[str, str]) -> list[float]:
    """The largest difference in value, and in the gradient of the sum, of the known loss and the compiled one."""
    found = []
    for seed in seeds:
        leaves, batch = pairs(seed)
        ours, theirs = dpa_logic(batch, **logic), known(batch)
        slopes = [torch.cat(torch.autograd.grad(loss.sum(), leaves)) for loss in (ours, theirs)]
        apart = [(ours - theirs).detach(), slopes[0] - slopes[1]]
        found.append(max(float(one.abs().max()) for one in apart))
    return found


@identity(
    "dpa-logic",
    part="orpo",
    says="'The rejected is valid only if the chosen is', where exactly one is, compiles to ORPO's odds-ratio term",
    tolerance=EXACT,
    altered="all assignments kept",
    smoke=True,
)
def of_orpo(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """Value and gradient on 64 random pairs of 1 to 12 tokens in fp64, against the difference of ORPO with and without
    its odds-ratio term.
    """

    def term(batch: PairLogProbs) -> Tensor:
        return orpo(batch, lam=1.0) - orpo(batch, lam=0.0)

    logic = {"formula": "w or not l"} | ({"condition": "true"} if altered else {})
    return residuals(seeds, term, logic)


@identity(
    "dpa-logic",
    part="cpo",
    says="With both-valid counted on both sides it compiles to CPO's odds, length-normalised: SimPO without a margin",
    tolerance=EXACT,
    altered="both-valid counted on one side",
    smoke=True,
)
def of_cpo(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """The pairs of `dpa-logic/orpo`, against SimPO with beta 1 and gamma 0, which is CPO's preference term on
    log-probs per token.
    """

    def simple(batch: PairLogProbs) -> Tensor:
        return simpo(batch, beta=1.0, gamma_beta_ratio=0.0)

    return residuals(seeds, simple, CPO | ({"both": "false"} if altered else {}))


@identity(
    "dpa-logic",
    part="dpo",
    says="With the reference's predictions as events it compiles to length-normalised DPO",
    tolerance=EXACT,
    altered="all four valid counted on one side",
    smoke=True,
)
def of_dpo(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """The pairs of `dpa-logic/orpo`, against LN-DPO with beta 1."""

    def normalised(batch: PairLogProbs) -> Tensor:
        return ln_dpo(batch, beta=1.0)

    return residuals(seeds, normalised, LN_DPO | ({"both": "false"} if altered else {}))


@identity(
    "dpa-logic",
    part="conjunction",
    says="'The chosen is valid and the rejected is not' compiles to odds p_w (1 - p_l) / (1 - p_w (1 - p_l))",
    tolerance=EXACT,
    altered="the odds p_w (1 - p_l) / p_l",
    smoke=True,
)
def of_conjunction(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """The pairs of `dpa-logic/orpo`, against the closed form written with probabilities."""

    def closed(batch: PairLogProbs) -> Tensor:
        chosen, rejected = batch.policy.chosen.mean().exp(), batch.policy.rejected.mean().exp()
        holds = chosen * (1 - rejected)
        return -torch.sigmoid((holds / (rejected if altered else 1 - holds)).log()).log()

    return residuals(seeds, closed, {"formula": "w and not l", "condition": "true"})
