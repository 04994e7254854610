"""Scores of a scalar reward model, read at the last real token by the attention mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boresight.engine.head import accumulation_dtype
from boresight.engine.headform import bare
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

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The score of each sequence, (n,), fp32 (fp64 for a model in fp64). input_ids, attention_mask: (n, L).

        Without sequences the result is empty, but tied to every parameter, as in `TokenLogProbs`.
        """
        base: Any = bare(self.model)
        count = input_ids.shape[0]
        if count == 0:
            input_ids, attention_mask = input_ids.new_zeros(1, 1), attention_mask.new_ones(1, 1)
        if not isinstance(getattr(base, "score", None), nn.Module):
            scores = self.model(input_ids=input_ids, attention_mask=attention_mask).logits[:count, 0]
            return scores.to(accumulation_dtype(scores.dtype))
        hidden = base.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        place = torch.arange(input_ids.shape[1], device=attention_mask.device)
        last = (place * attention_mask.bool()).argmax(1)
        scores = base.score(hidden[torch.arange(hidden.shape[0], device=hidden.device), last])[:count, 0]
        return scores.to(accumulation_dtype(scores.dtype))
