from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from boresight.objectives import LogProbs, PairLogProbs, objective
from boresight.objectives._check import flip_rate, not_negative, positive


@objective(
    "robust-2d-dpo",
    needs=("reference", "steps"),
    lr=5e-7,
    lr_source="the authors' script (nachiketapatil/Robust-2D-DPO, 2ddpo.py)",
    sources={
        "beta": "the authors' script (nachiketapatil/Robust-2D-DPO, 2ddpo.py)",
        "eps": "0 is no flips; set it to your own share of flipped pairs",
        "sigma": "no published value was found; an eighth of the 0-to-4 scale of HelpSteer-2D's scores. Set your own",
    },
    paper="2D-DPO as in the code of Shashidhar et al. 2025 (2ddpo.py); flips: Ray Chowdhury et al. 2024, sec. 3.1; "
    "score noise: stated from the catalogue, the paper's own equation was not found",
)
def robust_2d_dpo(pairs: PairLogProbs, *, beta: float = 0.1, eps: float = 0.0, sigma: float = 0.5) -> Tensor:
    """DPO on scored segments, robust to flipped pairs and to noise on the scores.

    2D-DPO: with K = the smaller number of segments, the K best segments of the chosen response are paired, best first,
    with the K worst of the rejected, worst first (of equal scores the earlier). Each of these couples has
    h = beta * (q_chosen * S_chosen - q_rejected * S_rejected), q its score and S the sum of log policy - log reference
    over the segment's tokens, in nats; the loss is the sum of -log sigmoid(h). With scores of 1 and one segment each
    this is DPO.

    eps, the share of pairs whose sides were turned over: -log sigmoid(h) becomes
    (-(1 - eps) * log sigmoid(h) + eps * log sigmoid(-h)) / (1 - 2 * eps), which is right on average over flips.
    sigma, the standard deviation of the noise on the scores: each couple adds v / (8 * (1 - 2 * eps)), where
    v = (beta * sigma)^2 * (S_chosen^2 + S_rejected^2) is the variance of h. As no second derivative of the logistic
    loss exceeds 1/4, that bounds the mean loss over the noise from above. At eps = sigma = 0 it is plain 2D-DPO.

    Segments are the response's steps: `step` tells them apart (whole numbers from 0), `step_score` is the score of
    each, higher is better; for several aspects it is their weighted sum. A step without tokens does not exist.

    Returns the loss of each pair, shape (pairs,). Raises ValueError if beta <= 0, eps is outside [0, 0.5) or sigma < 0.
    """
    positive(beta=beta)
    flip_rate(eps=eps)
    not_negative(sigma=sigma)
    chosen = _Segments(pairs.policy.chosen, pairs.reference.chosen, best=True)
    rejected = _Segments(pairs.policy.rejected, pairs.reference.rejected, best=False)
    couples = torch.minimum(chosen.counts, rejected.counts)
    pair = torch.repeat_interleave(torch.arange(len(couples), device=couples.device), couples)
    place = torch.arange(len(pair), device=pair.device) - (couples.cumsum(0) - couples)[pair]
    (good, won), (bad, lost) = chosen.at(pair, place), rejected.at(pair, place)
    h = beta * (good * won - bad * lost)
    losses = -(1 - eps) * logsigmoid(h) + eps * logsigmoid(-h) + (beta * sigma) ** 2 * (won**2 + lost**2) / 8
    return h.new_zeros(len(couples)).index_add(0, pair, losses / (1 - 2 * eps))


class _Segments:
    """The segments of a batch of responses, each response's sorted by score: best first, or worst first."""

    def __init__(self, policy: LogProbs, reference: LogProbs, *, best: bool) -> None:
        step = policy.token("step").long()
        stride = int(step.max()) + 1 if len(step) else 1
        keys, segment = torch.unique(policy.owner * stride + step, return_inverse=True)
        owner = keys // stride
        gains = policy.values.new_zeros(len(keys)).index_add(0, segment, policy.values - reference.values)
        scores = torch.empty_like(gains)
        scores[segment] = policy.token("step_score").to(gains.dtype)
        order = torch.argsort(scores, descending=best, stable=True)
        order = order[torch.argsort(owner[order], stable=True)]
        self.scores, self.gains = scores[order], gains[order]
        self.counts = owner.new_zeros(policy.count).index_add(0, owner, torch.ones_like(owner))
        self.starts = self.counts.cumsum(0) - self.counts

    def at(self, response: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Score and summed log-ratio of the segments at these places of these responses."""
        where = self.starts[response] + place
        return self.scores[where], self.gains[where]
