from __future__ import annotations

from collections.abc import Mapping
from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import ResponseLogProbs, objective
from boresight.objectives._check import not_negative, positive

FORMS = ("paper", "trl")


def density_ratio_weights(
    embedding: Tensor, desirable: Tensor, *, lowest: float = 0.5, highest: float = 10.0, l2: float = 1.0
) -> Tensor:
    """Weights that make the prompts of the undesirable responses look like those of the desirable ones.

    embedding: (responses, width), of each response's prompt. desirable: (responses,) bool. A logistic regression with
    balanced classes (Newton's method, fp64, l2 / 2 * |coefficients|^2 on the summed loss, the intercept left free)
    tells desirable from undesirable by the prompt alone; an undesirable response gets p / (1 - p), cut to
    [lowest, highest], a desirable one 1. `BCO`'s underlying distribution matching; the bounds are TRL's.

    Fit it once, ahead of training, on the whole data, and let each label carry its weight (`weight` in its row of a
    file), which the trainer multiplies its loss by; or in a loop of one's own
    `(weights * bco(responses)).sum() / len(responses)`.

    Returns (responses,) fp64. Raises ValueError if a class is missing, or the bounds or l2 are unusable.
    """
    positive(lowest=lowest, highest=highest, l2=l2)
    if lowest > 1 or highest < 1:
        raise ValueError(f"lowest and highest must have 1 between them, not {lowest} and {highest}")
    ups = int(desirable.sum())
    if not 0 < ups < len(desirable):
        raise ValueError("both desirable and undesirable responses are needed to tell their prompts apart")
    features = torch.cat([embedding.double(), torch.ones_like(embedding[:, :1], dtype=torch.float64)], 1)
    label = desirable.double()
    share = torch.where(desirable, len(label) / (2 * ups), len(label) / (2 * (len(label) - ups)))
    ridge = torch.full_like(features[0], l2)
    ridge[-1] = 0

    def cost(at: Tensor) -> Tensor:
        signed = torch.where(desirable, 1.0, -1.0) * (features @ at)
        return -(share * logsigmoid(signed)).sum() + 0.5 * (ridge * at**2).sum()

    at = torch.zeros_like(features[0])
    for _ in range(100):
        chance = torch.sigmoid(features @ at)
        slope = features.T @ (share * (chance - label)) + ridge * at
        bend = features.T @ ((share * chance * (1 - chance)).unsqueeze(1) * features) + torch.diag(ridge + 1e-12)
        step = torch.linalg.solve(bend, slope)
        size = 1.0
        while size > 1e-6 and cost(at - size * step) > cost(at):
            size /= 2
        at = at - size * step
        if float(step.abs().max()) < 1e-10:
            break
    odds = torch.exp((features @ at).clamp(-50, 50)).clamp(lowest, highest)
    return torch.where(desirable, torch.ones_like(odds), odds)


def _sums(responses: ResponseLogProbs, beta: float, decay: float) -> dict[str, Tensor]:
    """Sum and number of the rewards of each label, earlier batches included, each 0-d fp64."""
    reward = beta * (responses.policy.sum() - responses.reference.sum()).detach().double()
    found = {}
    for name, mine in (("desirable", responses.desirable), ("undesirable", ~responses.desirable)):
        found[f"{name}_sum"] = decay * responses.state(f"{name}_sum") + (reward * mine).sum()
        found[f"{name}_count"] = decay * responses.state(f"{name}_count") + mine.sum()
    return found


def _update(
    responses: ResponseLogProbs, *, beta: float = 0.01, decay: float = 1.0, shift: bool = True, form: str = "paper"
) -> Mapping[str, Tensor]:
    return _sums(responses, beta, decay)


@objective(
    "bco",
    needs=("reference", "labels"),
    lr=5e-7,
    lr_source="Jung et al. 2024, app. C, as TRL's index of papers gives it",
    sources={
        "beta": "Jung et al. 2024, app. C, as TRL's index of papers gives it",
        "decay": "1 averages over all that was seen, as TRL's BCOTrainer does",
        "shift": "the paper's method; without it it is plain binary cross-entropy",
        "form": "the shift that the paper derives",
    },
    paper="Jung et al. 2024 (2404.04656), sec. 3 and 4; TRL's BCOTrainer",
    over="batch",
    state={"desirable_sum": 0.0, "desirable_count": 0.0, "undesirable_sum": 0.0, "undesirable_count": 0.0},
    update=_update,
    at_zero=lambda: log(2),
)
def bco(
    responses: ResponseLogProbs, *, beta: float = 0.01, decay: float = 1.0, shift: bool = True, form: str = "paper"
) -> Tensor:
    """Binary classifier optimisation: single responses, each labelled desirable or not.

    -log sigmoid(r - delta) for desirable responses and -log sigmoid(delta - r) for the others, where
    r = beta * (log policy - log reference) in nats, summed over response tokens, and delta, the shift, is a running
    mean without gradient. form="paper": delta is midway between the mean reward of the desirable and that of the
    undesirable responses; form="trl": the mean reward of both together, as TRL's code has it (the same where both
    labels are equally frequent). The means count this batch and all earlier ones; decay < 1 weighs those before it by
    decay, those before that by decay^2, and so on, and decay = 0 takes this batch alone. A label not seen yet has
    mean 0. shift=False leaves delta out.

    Where the prompts of the two labels differ, the paper weighs each undesirable response by a ratio of densities:
    `boresight.curation.density_ratio` gives each label its own, ahead of training. A classifier is data of the whole
    set, so it is not fitted here. The means of the shift are of rewards, without weights.

    Returns the loss of each response, shape (responses,). Raises ValueError if beta <= 0, decay is outside [0, 1], or
    form is unknown.
    """
    positive(beta=beta)
    not_negative(decay=decay)
    if decay > 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    reward = beta * (responses.policy.sum() - responses.reference.sum())
    if shift:
        seen = _sums(responses, beta, decay)
        names = ("desirable", "undesirable")
        if form == "paper":
            # A label never seen has sum 0, so any divisor will do.
            delta = sum(seen[f"{n}_sum"] / _or_one(seen[f"{n}_count"]) for n in names) / 2
        else:
            delta = sum(seen[f"{n}_sum"] for n in names) / _or_one(sum(seen[f"{n}_count"] for n in names))
        reward = reward - torch.as_tensor(delta).to(reward.dtype)
    return -logsigmoid(torch.where(responses.desirable, reward, -reward))


def _or_one(count: Tensor | int) -> Tensor:
    """The count, or 1 where it is 0."""
    known = torch.as_tensor(count)
    return torch.where(known > 0, known, torch.ones_like(known))
