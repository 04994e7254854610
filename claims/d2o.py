"""D2O (Duan et al. 2024): learning from undesirable responses alone, with samples of one's own as a counterweight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.lab.claims import Arm, claim, less, more
from boresight.lab.drawn import Responses
from boresight.lab.tokens import TokenPolicy, TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, NEGATIVES, HARM = 6, 5, 4, 40, 1
SWEEP = {"k": (1, 3, 11, 30), "steps": (30, 100, 300, 800), "alpha": (0.03, 0.1, 0.3), "lr": (0.02, 0.05, 0.2)}


def harmful(prompt: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """1 where the response has the harmful token twice or more."""
    return ((tokens == HARM).sum(-1) >= 2).double()


def trained(
    method: str | None, seed: int, *, k: int, steps: int, alpha: float, lr: float
) -> tuple[TokenWorld, TokenPolicy]:
    """The world of a seed, and the policy trained on harmful responses of its reference; no method is the reference."""
    plain = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed)
    help = plain.reward()
    assert isinstance(help, Tensor)
    world = TokenWorld(plain.reference, harmful, rewards={"help": help})
    if method is None:
        return world, world.policy(1)
    drawn = world.sample_lists(20 * NEGATIVES, 2, [seed])  # wide enough to find the harmful among them
    bad = drawn.grades[0, :, 0] == 1
    prompt, response = drawn.prompt[:, bad][:, :NEGATIVES], drawn.response[:, bad, 0][:, :NEGATIVES]
    no = torch.zeros(prompt.shape, dtype=torch.bool)
    data = Responses(prompt, response, no, torch.ones(prompt.shape, dtype=torch.float64), seeds=(seed,))
    own: dict[str, float] = {"alpha": alpha} if method == "d2o" else {"alpha": 0.0, "beta": 0.0}
    return world, fit_tokens(world, method, pairs=data, hyperparameters=own, steps=steps, lr=lr, samples=k, seed=seed)


def outcomes(method: str | None, seeds: Sequence[int], **own: Any) -> Mapping[str, Tensor]:
    """The chance of a harmful response, and of the others their helpfulness and entropy, exact, means over prompts."""
    found = []
    for seed in seeds:
        world, policy = trained(method, seed, **own)
        with torch.no_grad():
            log_probs = world.log_prob_of_all(policy.logits)[0]
        codes, each = world.all_codes(), torch.arange(PROMPTS)[:, None]
        harm, help = (world.score(n, each, codes.expand(PROMPTS, -1)) for n in ("score", "help"))
        rest = log_probs.masked_fill(harm == 1, -torch.inf).log_softmax(-1)
        chance = rest.exp()
        entropy = -(chance * rest.masked_fill(harm == 1, 0.0)).sum(-1).mean()
        found.append([(log_probs.exp() * harm).sum(-1).mean(), (chance * help).sum(-1).mean(), entropy])
    harm, help, entropy = torch.tensor(found, dtype=torch.float64).T
    return {"harmful": harm, "help of the rest": help, "entropy of the rest": entropy}


@claim(
    "d2o",
    part="negatives",
    says="From harmful responses alone, D2O lowers the chance of a harmful response",
    expects=less("harmful"),
    treatment="d2o",
    baseline="the reference",
    sweep=SWEEP,
    smoke=True,
)
def d2o_negatives(
    arm: Arm, seeds: Sequence[int], *, k: int = 11, steps: int = 100, alpha: float = 0.1, lr: float = 0.05
) -> Mapping[str, Any]:
    """Six prompts, responses of 4 tokens over a vocabulary of 5, another random reference for each seed. A response
    with one token twice or more is harmful, and helpfulness is a reward of tokens that has nothing to do with that. 40
    harmful responses of the reference are all there is to learn from; k samples of the reference for each; Adam at lr.
    """
    method = "d2o" if arm == "treatment" else None
    return {"harmful": outcomes(method, seeds, k=k, steps=steps, alpha=alpha, lr=lr)["harmful"]}


@claim(
    "d2o",
    part="entropy",
    says="Of the responses that are not harmful, D2O keeps more entropy than lowering the likelihood alone",
    expects=more("entropy of the rest"),
    treatment="d2o",
    baseline="likelihood of harmful responses lowered (pmpo alpha=0 beta=0)",
    sweep=SWEEP,
)
def d2o_entropy(
    arm: Arm, seeds: Sequence[int], *, k: int = 11, steps: int = 800, alpha: float = 0.1, lr: float = 0.05
) -> Mapping[str, Any]:
    """The world of `d2o/negatives`, trained for longer. Harmful and harmless responses share tokens, so that lowering
    the one by likelihood alone lowers some of the other as well. Entropy is in nats, of a response given that it is not
    harmful, mean over prompts.

    Not shown: after 800 steps the two are alike over 8 seeds. In three seeds likelihood alone had kept more entropy
    after 100 steps (4.3 nats against 4.0; the reference has 5.0), as much after 400, and less after 1200 (1.7 against
    3.3), so it takes long training. D2O raises the few samples that it has of each prompt, so it too loses entropy.
    The first version, with 100 steps and helpfulness in the same claim, did not hold.
    """
    method = "d2o" if arm == "treatment" else "pmpo"
    return {"entropy of the rest": outcomes(method, seeds, k=k, steps=steps, alpha=alpha, lr=lr)["entropy of the rest"]}


@claim(
    "d2o",
    part="helpfulness",
    says="Of the responses that are not harmful, D2O keeps more helpfulness than lowering the likelihood alone",
    expects=more("help of the rest"),
    treatment="d2o",
    baseline="likelihood of harmful responses lowered (pmpo alpha=0 beta=0)",
    sweep=SWEEP,
)
def d2o_helpfulness(
    arm: Arm, seeds: Sequence[int], *, k: int = 11, steps: int = 800, alpha: float = 0.1, lr: float = 0.05
) -> Mapping[str, Any]:
    """The world of `d2o/entropy`; helpfulness is the other reward's mean over responses that are not harmful.

    Not shown: neither arm was the more helpful. In three seeds helpfulness of the rest was -0.15 in the reference, and
    -0.10, -0.04 and -0.08 with D2O after 100, 400 and 1200 steps, -0.07, -0.12 and +0.01 without samples.
    Helpfulness has nothing to do with harm here, and the few responses that likelihood alone comes to rest on are as
    often helpful as not.
    """
    method = "d2o" if arm == "treatment" else "pmpo"
    return {"help of the rest": outcomes(method, seeds, k=k, steps=steps, alpha=alpha, lr=lr)["help of the rest"]}
