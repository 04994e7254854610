"""Diagnostics: what alignment does to a model, told from its log-probs, gradients and embeddings.

    from boresight.diagnostics import entanglement
    found = entanglement(chosen, rejected, model.parameters())   # log-probs that still have their graph
    found.chosen_falls                                           # will a step of DPO lower the chosen?

Each is one function on tensors; this floor imports nothing but torch.
"""

from __future__ import annotations

from boresight.diagnostics.differential_information import information, information_entropy, rejected_law
from boresight.diagnostics.embeddings import distinguishability
from boresight.diagnostics.gradients import Entanglement, entanglement
from boresight.diagnostics.mass import Masses, gradient_ratio, masses
from boresight.diagnostics.ranking_accuracy import (
    Ranking,
    difficulty,
    ideal_margin,
    ranked_by_loss,
    ranking,
    ranking_accuracy,
    turning_loss,
)

__all__ = [
    "Entanglement",
    "Masses",
    "Ranking",
    "difficulty",
    "distinguishability",
    "entanglement",
    "gradient_ratio",
    "ideal_margin",
    "information",
    "information_entropy",
    "masses",
    "ranked_by_loss",
    "ranking",
    "ranking_accuracy",
    "rejected_law",
    "turning_loss",
]
