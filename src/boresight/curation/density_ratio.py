"""Weights for labelled data whose desirable and undesirable responses answer different kinds of prompts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from boresight.curation.curated import Curated
from boresight.data.example import Example
from boresight.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def density_ratio(
    examples: Iterable[Example], embedding: Tensor, *, lowest: float = 0.5, highest: float = 10.0, l2: float = 1.0
) -> Curated:
    """The examples with weights on their labels that make the undesirable ones' prompts look like the desirable ones'.

    embedding: (examples, width), of each example's prompt, by whatever model of texts; lowest, highest, l2 as of
    `boresight.objectives.preference.bco.density_ratio_weights`, which fits the classifier. Each label's own weight is
    multiplied; nothing else changes. counts: labels of each kind, and examples without any.

    Train on it with bco, or any method of labels.

    Raises InputError if there are not as many embeddings as examples, one of the two labels is missing, or the bounds
    or l2 cannot be used.
    Source: Jung et al. 2024 (BCO, 2404.04656), underlying distribution matching; the bounds are TRL's.
    """
    import torch

    from boresight.objectives.preference.bco import density_ratio_weights

    kept = list(examples)
    if embedding.ndim != 2 or len(embedding) != len(kept):
        raise InputError(
            f"embeddings have shape {tuple(embedding.shape)}, and there are {len(kept)} examples",
            mend="give one row for each example, in the same order",
        )
    owner = torch.tensor([i for i, example in enumerate(kept) for _ in example.labels], dtype=torch.int64)
    desirable = torch.tensor([x.desirable for example in kept for x in example.labels], dtype=torch.bool)
    try:
        ratio = density_ratio_weights(embedding[owner], desirable, lowest=lowest, highest=highest, l2=l2)
    except ValueError as error:
        raise InputError(str(error), mend="give data with both labels, and bounds with 1 between them") from None
    each = iter(ratio.tolist())
    made = tuple(
        replace(example, labels=tuple(replace(x, weight=x.weight * next(each)) for x in example.labels))
        for example in kept
    )
    ups = int(desirable.sum())
    counts = {
        "desirable labels": ups,
        "undesirable labels": len(desirable) - ups,
        "examples without a label": sum(not example.labels for example in kept),
    }
    return Curated(made, counts)
