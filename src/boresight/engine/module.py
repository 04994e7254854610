"""The one place where a model is given the module that computes log-probs of responses under it."""

from __future__ import annotations

from torch import nn

from boresight.engine.headform import is_encoder_decoder
from boresight.engine.padded import TokenLogProbs
from boresight.engine.seq2seq import Seq2SeqLogProbs


def log_probs_module(model: nn.Module) -> TokenLogProbs:
    """`TokenLogProbs` of a causal language model, `Seq2SeqLogProbs` of one with an encoder and a decoder."""
    return Seq2SeqLogProbs(model) if is_encoder_decoder(model) else TokenLogProbs(model)
