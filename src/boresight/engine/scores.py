"""Scores of a scalar reward model, read at the last real token by the attention mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.batch import pad
from boresight.engine.dropout import evaluating
from boresight.engine.head import accumulation_dtype
from boresight.engine.headform import bare
from boresight.engine.layout import Group, pack
from boresight.engine.packing import Layout, choose
from boresight.engine.padded import BUDGET, inputs, portions, together
from boresight.errors import InputError


class ResponseScores(nn.Module):
    """Scalar scores of whole sequences from a sequence-classification model with one label.

    model: a transformers `AutoModelForSequenceClassification` with num_labels=1, with or without peft adapters.
    transformers finds the last token of a padded row by comparing ids with the pad id, which reads the score in the
    wrong place where pad is EOS or occurs in the text; here the attention mask alone decides. Encoders with a
    `classifier` read their first token, where padding cannot mislead, and answer for themselves.
    Raises InputError for more than one label, and for models without either head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        base = bare(model)
        name = type(base).__name__
        if int(base.config.num_labels) != 1:
            raise InputError(
                f"{name} has {base.config.num_labels} labels; a reward model has one", mend="load it with num_labels=1"
            )
        if not isinstance(getattr(base, "score", None), nn.Module) or base.base_model is base:
            encoder = hasattr(base, "classifier") and not base.config.is_encoder_decoder
            if not encoder or "decoder" in base.config.model_type:
                raise InputError(
                    f"{name} has no `score` head over its last hidden states",
                    mend="use a decoder (Llama, Qwen, Gemma, ...) or an encoder (BERT, DeBERTa, ...) as reward model",
                )
        self.model = model
        encoder = not isinstance(getattr(base, "score", None), nn.Module)
        lazy = any(p.is_meta for p in model.parameters())
        self._layout: Layout | None = "padded" if encoder else None if lazy else choose(model)

    @property
    def layout(self) -> Layout:
        """How `scores` lays sequences out."""
        if self._layout is None:
            self._layout = choose(self.model)
        return self._layout

    @layout.setter
    def layout(self, layout: Layout) -> None:
        self._layout = layout

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        last: Tensor | None = None,
        position_ids: Tensor | None = None,
        groups: Sequence[Group] | None = None,
    ) -> Tensor:
        """The score of each sequence, (n,), fp32 (fp64 for a model in fp64).

        input_ids, attention_mask: (n, L), padded on the right; or, with `groups`, one packed row (1, N), the place of
        each sequence's `last` token, (n,), and position_ids. Without sequences the result is empty, but tied to every
        parameter, as in `TokenLogProbs`.
        """
        base: Any = bare(self.model)
        count = 0 if input_ids.numel() == 0 else input_ids.shape[0] if last is None else last.numel()
        options = inputs(input_ids, attention_mask, position_ids, groups)
        if not isinstance(getattr(base, "score", None), nn.Module):
            scores = self.model(**{k: v for k, v in options.items() if k != "use_cache"}).logits[:count, 0]
            return scores.to(accumulation_dtype(scores.dtype))
        hidden = base.base_model(**options)[0]
        if last is None or not count:
            mask = options["attention_mask"]
            place = torch.arange(mask.shape[1], device=mask.device)
            ends = (place * mask.bool()).argmax(1)
            picked = hidden[torch.arange(hidden.shape[0], device=hidden.device), ends]
        else:
            picked = hidden[0, last]
        scores = base.score(picked)[:count, 0]
        return scores.to(accumulation_dtype(scores.dtype))


def scores(module: nn.Module, sequences: Sequence[Tokens], pad_id: int, device: torch.device | None = None) -> Tensor:
    """The score of each of `sequences`, (n,), in one forward pass; gradients flow.

    module: a `ResponseScores`, wrapped or not. Packed behind shared prompts where its model can take that.
    """
    part = next(m for m in module.modules() if isinstance(m, ResponseScores))
    device = device or next(module.parameters()).device
    values: Tensor
    if part.layout == "padded":
        padded = pad(sequences, pad_id).to(device)
        values = module(padded.input_ids, padded.attention_mask)
    else:
        row = pack(sequences, share=part.layout == "shared", whole=True).to(device)
        values = module(row.input_ids, None, row.predictor, row.position_ids, row.groups)
    return values


def score_values(
    module: nn.Module,
    sequences: Sequence[Tokens],
    pad_id: int,
    budget: int = BUDGET,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.float64]:
    """The score of each sequence, (n,), in their order: no gradients, evaluation mode, `budget` tokens at a time."""
    values = np.zeros(len(sequences))
    layout = next(m for m in module.modules() if isinstance(m, ResponseScores)).layout
    with torch.no_grad(), evaluating(module):
        for batch in together(module, portions(sequences, budget, layout)):
            values[batch] = scores(module, [sequences[i] for i in batch], pad_id).double().cpu().numpy()
            if progress is not None:
                progress(len(batch))
    return values
