"""Domains: models for data that are not distributed as their training data were.

    from boresight.domains import coral, density_ratio, importance_weighted, mixval
    weights = density_ratio(source, target, source)        # how much more often the target has each source row
    importance_weighted(right, weights)                    # accuracy on the target, without a label of it

Scorers choose between models without labels of the target; of all of them more is better.
"""

from __future__ import annotations

from boresight.domains.adapt import align_subspaces, coral, density_ratio
from boresight.domains.scorers import (
    circular,
    deep_embedded,
    importance_weighted,
    mixval,
    prediction_entropy,
    soft_neighbourhood_density,
)

__all__ = [
    "align_subspaces",
    "circular",
    "coral",
    "deep_embedded",
    "density_ratio",
    "importance_weighted",
    "mixval",
    "prediction_entropy",
    "soft_neighbourhood_density",
]
