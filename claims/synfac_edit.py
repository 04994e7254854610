"""SYNFAC-EDIT (Mishra et al. 2024): edit pairs that differ in a false token; DPO or SALT against fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boresight.lab.claims import Arm, claim, less
from boresight.lab.tokens import TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, PAIRS, HELD_OUT = 4, 8, 6, 100, 1000


def false_tokens(
    method: str, seeds: Sequence[int], *, steps: int, hyperparameters: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Mean log-prob of the false token of held-out edit pairs, at its place in the rejected response."""
    found = []
    for seed in seeds:
        world = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed=seed)
        train, test = (
            world.sample_pairs(n, [s], edits=1, decisive=True, certainty=torch.inf)
            for n, s in ((PAIRS, seed), (HELD_OUT, seed + 100_000))
        )
        policy = fit_tokens(world, method, pairs=train, hyperparameters=hyperparameters, steps=steps, lr=0.02)
        rows = test.rows()
        cells = world.cells(rows.prompt[:, :, 1:], rows.response[:, :, 1:])
        differs = world.differences(rows)[0, :, 1][cells.row, cells.position]
        found.append(float(cells.of(policy.log_probs().detach())[differs].mean()))
    return {"log-prob of false tokens": torch.tensor(found)}


@claim(
    "synfac-edit",
    part="salt",
    says="SALT lowers the probability of false tokens more than fine-tuning on the edited text alone, at equal steps",
    expects=less("log-prob of false tokens"),
    treatment="synfac-edit (SALT)",
    baseline="sft on the chosen",
    sweep={"dropped": (0.01, 0.1, 1.0), "steps": (50, 150, 400)},
)
def synfac_edit_salt(arm: Arm, seeds: Sequence[int], *, dropped: float = 0.01, steps: int = 400) -> Mapping[str, Any]:
    """Sequences of 6 tokens out of 8 after each of 4 prompts, another world for each seed; two places of each prompt
    decide the reward. Edit pairs: a response of the reference, and the same with one token at a decisive place
    exchanged; the better of the two is chosen, so that the other holds a token that is false there. 100 pairs, the same
    number of steps of Adam at 0.02 for both arms. Measured is the log-prob of the false tokens of 1000 other such
    pairs, in nats, in their place after the same beginning. SALT has the weights of the authors' script: its
    effect is small and grows with `dropped` and the steps; after 150 steps it is not told from 0 at that weight.
    """
    if arm == "baseline":
        return false_tokens("sft", seeds, steps=steps)
    return false_tokens("synfac-edit", seeds, steps=steps, hyperparameters={"dropped": dropped})


@claim(
    "synfac-edit",
    part="dpo",
    says="DPO on edit pairs lowers the probability of false tokens more than fine-tuning on the edited text alone, at "
    "equal steps",
    expects=less("log-prob of false tokens"),
    treatment="dpo",
    baseline="sft on the chosen",
    sweep={"beta": (0.03, 0.1, 0.3, 1.0), "steps": (50, 150, 400)},
)
def synfac_edit_dpo(arm: Arm, seeds: Sequence[int], *, beta: float = 0.1, steps: int = 400) -> Mapping[str, Any]:
    """The same worlds, pairs and measure as for SALT. With beta 0.1.

    Where it stops holding: at beta 1 DPO is content with a small margin and ends higher than fine-tuning; after 50
    steps the two are alike.
    """
    if arm == "baseline":
        return false_tokens("sft", seeds, steps=steps)
    return false_tokens("dpo", seeds, steps=steps, hyperparameters={"beta": beta})
