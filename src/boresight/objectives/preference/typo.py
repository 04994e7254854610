from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from boresight.objectives import PairLogProbs, objective
from boresight.objectives._check import not_negative


@objective(
    "typo",
    needs=("samples",),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the paper's own was not found",
    sources={"lam": "a choice of this project; the paper sweeps it, and its values for language were not found"},
    paper="Hu et al. 2024, the loss TYPO (a supervised and an unsupervised term)",
)
def typo(pairs: PairLogProbs, *, lam: float = 0.1) -> Tensor:
    """Preferences without a reference, and apart from them closeness to the reference on samples of its own.

    -log sigmoid(log p(chosen) - log p(rejected)) + lam * mean of -log p over samples of the reference, log-probs in
    nats, summed over response tokens. The second term is lam * KL(reference || policy), estimated on the samples, but
    for a constant. As lam falls the optimum goes to the policy whose odds are those of the preferences, as it grows
    to the reference; `dpo` multiplies the two instead, so a prompt where the reference is right already is moved as
    well. (Stated from the catalogue; the paper's own equation was not found.)

    Returns the loss of each pair, shape (pairs,). Raises ValueError if lam < 0.
    """
    not_negative(lam=lam)
    samples = pairs.samples
    return softplus(-pairs.policy.margin()) - lam * samples.mean(samples.policy.sum())
