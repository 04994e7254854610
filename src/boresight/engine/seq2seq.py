"""Log-probs of responses under a model with an encoder and a decoder: T5, BART and their kin.

The prompt goes through the encoder, once for all responses to it; the response goes through the decoder, behind the
model's start token. Only the positions that predict response tokens reach the head, in tiles, as in `head.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from boresight.data.tokens import Tokens
from boresight.engine.dropout import evaluating
from boresight.engine.fused import LossOf
from boresight.engine.head import TILE, bend, module_log_probs, picked_log_probs, token_log_probs
from boresight.engine.headform import HeadForm, _candidates, _close, bare, is_plain, refuse_virtual_tokens
from boresight.engine.packing import Layout
from boresight.engine.padded import TokenLogProbs, summed
from boresight.engine.seq2seq_batch import Seq2SeqBatch, lay
from boresight.errors import InputError
from boresight.objectives import LogProbs

log = logging.getLogger(__name__)


class Seq2SeqLogProbs(TokenLogProbs):
    """`TokenLogProbs` for a model with an encoder and a decoder.

    model: a transformers model for conditional generation, with or without peft adapters. The encoder runs once for
    each different prompt of a batch. Raises InputError for other models, and for adapters with virtual tokens.
    """

    def __init__(self, model: nn.Module, *, tile: int = TILE, layout: Layout | None = None) -> None:
        base = bare(model)
        if not getattr(base.config, "is_encoder_decoder", False) or base.get_output_embeddings() is None:
            raise InputError(
                f"{type(base).__name__} is not a language model with an encoder and a decoder",
                mend="load it with AutoModelForSeq2SeqLM, or use TokenLogProbs for a decoder-only model",
            )
        refuse_virtual_tokens(model)
        decoder_start(base)
        super().__init__(model, tile=tile, layout="padded")

    @property
    def form(self) -> HeadForm:
        """What the model does to its logits after the head, apart from adding its `final_logits_bias`."""
        if self._form is None:
            self._form = _measure(self.model)
        return self._form

    @property
    def layout(self) -> Layout:
        """How batches are counted: rows times the longest."""
        return "padded"

    @layout.setter
    def layout(self, layout: Layout) -> None:
        if layout != "padded":
            raise InputError("a model with an encoder and a decoder cannot be packed", mend='use layout="padded"')

    def arrange(self, sequences: Sequence[Tokens], pad_id: int) -> Seq2SeqBatch:
        """The batch that `forward` takes."""
        return lay(sequences, pad_id, decoder_start(bare(self.model)))

    def forward(  # type: ignore[override]
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        source: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        predictor: Tensor,
        targets: Tensor,
        fused: tuple[Sequence[Tensor], LossOf] | None = None,
        states: bool = False,
    ) -> Any:
        """Log-probs of `targets`, (tokens,), in nats, fp32 (fp64 for a model in fp64); arguments as in `Seq2SeqBatch`.

        Without any response token the result is empty, but still tied to every parameter. fused: as in `TokenLogProbs`,
        the sum of the losses of the parts and the log-probs without gradient; the head is made again for the gradient.
        states: as there, the decoder's, as the head is given them (T5 scales them where its head is its embedding).
        """
        values, hidden = self._values(prompt_ids, prompt_mask, source, input_ids, attention_mask, predictor, targets)
        if fused is not None:
            return summed(values, *fused)
        return (values, hidden) if states else values

    def _values(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        source: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        predictor: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        form = self.form
        if not source.numel():
            source = source.new_zeros(1)
            prompt_ids, input_ids = prompt_ids.new_zeros(1, 1), input_ids.new_zeros(1, 1)
            prompt_mask, attention_mask = torch.ones_like(prompt_ids), torch.ones_like(input_ids)
        base = bare(self.model)
        encoded = base.get_encoder()(input_ids=prompt_ids, attention_mask=prompt_mask)
        encoded.last_hidden_state = encoded.last_hidden_state[source]
        options = {
            "encoder_outputs": encoded,
            "attention_mask": prompt_mask[source],
            "decoder_input_ids": input_ids,
            "decoder_attention_mask": attention_mask,
            "use_cache": False,
        }
        if form.own:
            return picked_log_probs(self.model(**options).logits.flatten(0, 1)[predictor], targets), None
        head: Any = base.get_output_embeddings()
        plain, bias = is_plain(head), late_bias(base)
        shape: dict[str, Any] = {"scale": form.scale, "cap": form.cap, "tile": self.tile}
        found: list[tuple[Tensor, Tensor]] = []

        def compute(own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
            rows = hidden.flatten(0, 1)[predictor]
            if plain:
                both = [b for b in (head.bias, bias) if b is not None]
                total = sum(both[1:], both[0]) if both else None
                values = token_log_probs(rows, head.weight, targets, bias=total, **shape)
            else:
                full = own if bias is None else lambda x: own(x) + bias
                values = module_log_probs(full, rows, targets, vocabulary=form.vocabulary, **shape)
            found.append((values, rows))
            return hidden.new_zeros(0, form.vocabulary)  # what is left for the model to call its logits

        with _in_place_of(head, compute):
            self.model(**options)
        return found[0]


@contextmanager
def _in_place_of(head: Any, compute: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Iterator[None]:
    """Inside the block, a call of `head` is `compute(head.forward, hidden)`."""
    own, ours = head.forward, vars(head).get("forward")
    head.forward = lambda hidden: compute(own, hidden)
    try:
        yield
    finally:
        del head.forward
        if ours is not None:
            head.forward = ours


def plain_seq2seq_logprobs(model: nn.Module, sequences: Sequence[Tokens], pad_id: int) -> LogProbs:
    """The oracle: transformers' own call with labels, one sequence at a time, full logits. Gradients flow.

    Nothing is padded or shared, so `pad_id` is not used; it is there to be called as `plain_logprobs` is.
    """
    device = next(model.parameters()).device
    values = []
    for sequence in sequences:
        where = np.flatnonzero(sequence.mask)
        first = int(where[0]) if where.size else len(sequence)
        ids = torch.from_numpy(sequence.ids).long().to(device).unsqueeze(0)
        labels = ids[:, first : first + where.size]
        if not where.size:
            values.append(torch.zeros(0, device=device))
            continue
        logits = model(input_ids=ids[:, :first], labels=labels).logits[0]
        logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        values.append(torch.log_softmax(logits, -1).gather(1, labels[0].unsqueeze(1)).squeeze(1))
    return LogProbs.from_sequences(values)


def padded_seq2seq_logprobs(model: nn.Module, sequences: Sequence[Tokens], pad_id: int) -> LogProbs:
    """The same over one batch, padded on the right with `pad_id`, prompts and responses apart; nothing is shared."""
    device = next(model.parameters()).device
    marks = [torch.from_numpy(s.mask).to(device) for s in sequences]
    ids = [torch.from_numpy(s.ids).long().to(device) for s in sequences]
    before = [i[: int(m.int().argmax())] for i, m in zip(ids, marks, strict=True)]
    labels = pad_sequence([i[m] for i, m in zip(ids, marks, strict=True)], True, pad_id)
    answered = pad_sequence([torch.ones_like(i[m]) for i, m in zip(ids, marks, strict=True)], True).bool()
    seen = pad_sequence([torch.ones_like(b) for b in before], True)
    logits = model(input_ids=pad_sequence(before, True, pad_id), attention_mask=seen, labels=labels).logits
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    values = torch.log_softmax(logits, -1).gather(2, labels.unsqueeze(2)).squeeze(2)
    return LogProbs.from_padded(values, answered)


def decoder_start(base: Any) -> int:
    """The token that the decoder begins with. Raises InputError if there is none, or it begins otherwise."""
    start = base.config.decoder_start_token_id
    if start is None:
        start = getattr(getattr(base, "generation_config", None), "decoder_start_token_id", None)
    if start is None:
        raise InputError(
            f"the configuration of {type(base).__name__} has no decoder_start_token_id",
            mend="set it in config.json: the decoder's first token (for T5 the pad token)",
        )
    shift = getattr(base, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None and shift(torch.tensor([[5, 6, 7]])).tolist() != [[int(start), 5, 6]]:
        raise InputError(
            f"{type(base).__name__} does not begin its decoder with decoder_start_token_id ({start})",
            mend="models that begin with a token of the response, such as mBART's language, are not trained here",
        )
    return int(start)


def late_bias(base: Any) -> Tensor | None:
    """What BART and its kin add to their logits: (vocabulary,)."""
    bias: Tensor | None = getattr(base, "final_logits_bias", None)
    return None if bias is None else bias.flatten()


def _measure(model: nn.Module) -> HeadForm:
    """As `headform.recognise`: the head's output is replaced by a ramp, and what becomes of it is looked at."""
    base = bare(model)
    head = base.get_output_embeddings()
    seen: list[Tensor] = []

    def replaced(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ramp = torch.linspace(-300, 300, output.numel(), device=output.device).to(output.dtype).view(output.shape)
        seen.append(ramp)
        return ramp.clone()

    vocabulary = int(base.config.get_text_config().vocab_size)
    ids = torch.linspace(1, vocabulary - 1, 4, device=base.get_input_embeddings().weight.device).long().unsqueeze(0)
    with torch.no_grad(), evaluating(model):
        handle = head.register_forward_hook(replaced)
        try:
            logits = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        finally:
            handle.remove()
    if len(seen) == 1 and seen[0].shape == logits.shape:
        bias = late_bias(base)
        for scale, cap in _candidates(base.config):
            expected = bend(seen[0].double().clone(), scale, cap)
            # A bias is added to what is bent; `token_log_probs` adds it before.
            if bias is not None and (scale, cap) != (1.0, None):
                continue
            if _close(logits, expected if bias is None else expected + bias.double()):
                return HeadForm(own=False, vocabulary=logits.shape[-1], scale=scale, cap=cap)
    reason = "what it does to its logits after the head is neither a scale, a soft-cap nor a bias of its configuration"
    log.warning("%s: the chunked head is off, its own logits are used: %s", type(base).__name__, reason)
    return HeadForm(own=True, vocabulary=logits.shape[-1], reason=reason)
