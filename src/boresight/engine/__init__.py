"""The engine: per-token log-probs of responses under a model, and a reference's, computed once and kept.

    from boresight.engine import TokenLogProbs, logprobs
    module = TokenLogProbs(model)                # what gets wrapped by accelerate, DDP or FSDP
    logprobs(module, sequences, pad_id).sum()    # log p(response | prompt), one value for each sequence

How sequences come through a model, each file for itself:

    layout, packing    one row, every prompt once; tried on the model itself (`padded`, `batch`: side by side)
    segments, flex     attention over such a row: by segments on a CPU, one compiled kernel on a GPU
    trim               the last layer where something is predicted, and nowhere else
    head, headform     log-probs in tiles of logits; what a model does between hidden states and logits
    fused, loss        head and loss forward and backward in one pass: `fused_loss`, and `total_loss` through a module
    statistics         what else there is to a token's distribution: entropy, KL, top-k, expectations, argmax
    scores, seq2seq    reward models; models with an encoder and a decoder
    reference, store   whose log-probs count as the reference's, and where they are kept (`shards`, `fingerprint`)
    proof, proof_*     the step-zero proof of texts, model and paths

`plain_logprobs` is the oracle: the model's full logits, log-softmax, gather. Everything faster must equal it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "PaddedBatch": "batch",
    "pad": "batch",
    "disable_dropout": "dropout",
    "evaluating": "dropout",
    "adapter_fingerprint": "fingerprint",
    "weights_fingerprint": "fingerprint",
    "fused_loss": "fused",
    "token_log_probs": "head",
    "total_loss": "loss",
    "log_probs_module": "module",
    "TokenLogProbs": "padded",
    "logprobs": "padded",
    "plain_logprobs": "padded",
    "token_values": "padded",
    "Reference": "reference",
    "resolve_reference": "reference",
    "ResponseScores": "scores",
    "score_values": "scores",
    "scores": "scores",
    "ReferenceStore": "store",
}

if TYPE_CHECKING:
    from boresight.engine.batch import PaddedBatch as PaddedBatch
    from boresight.engine.batch import pad as pad
    from boresight.engine.dropout import disable_dropout as disable_dropout
    from boresight.engine.dropout import evaluating as evaluating
    from boresight.engine.fingerprint import adapter_fingerprint as adapter_fingerprint
    from boresight.engine.fingerprint import weights_fingerprint as weights_fingerprint
    from boresight.engine.fused import fused_loss as fused_loss
    from boresight.engine.head import token_log_probs as token_log_probs
    from boresight.engine.loss import total_loss as total_loss
    from boresight.engine.module import log_probs_module as log_probs_module
    from boresight.engine.padded import TokenLogProbs as TokenLogProbs
    from boresight.engine.padded import logprobs as logprobs
    from boresight.engine.padded import plain_logprobs as plain_logprobs
    from boresight.engine.padded import token_values as token_values
    from boresight.engine.reference import Reference as Reference
    from boresight.engine.reference import resolve_reference as resolve_reference
    from boresight.engine.scores import ResponseScores as ResponseScores
    from boresight.engine.scores import score_values as score_values
    from boresight.engine.scores import scores as scores
    from boresight.engine.store import ReferenceStore as ReferenceStore

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
