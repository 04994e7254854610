"""Samples from a model, and what their text tells about its health."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.engine.headform import is_encoder_decoder
from boresight.engine.seq2seq import decoder_start
from boresight.errors import InputError, RunError


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response.

    ids: (length,) int32, with the token that ends the turn if the model produced one. text: without special tokens.
    ends: the model ended the turn by itself. logprob_sum: log-prob of `ids` in nats under the model at temperature 1,
    whatever temperature they were sampled at.
    """

    ids: NDArray[np.int32]
    text: str
    ends: bool
    logprob_sum: float
    length: int


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[NDArray[np.int32]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    greedy: bool = False,
    eos_ids: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sample]:
    """One response to each prompt, in the order of the prompts.

    model: a `transformers` causal model, one with an encoder and a decoder, or a `peft` model around one (its active
    adapter speaks); dropout is off while it samples. Its own generation settings (top-k, penalties, minimum length)
    are left aside: what is drawn is the model's distribution at `temperature`, cut to the nucleus `top_p`, and nothing
    else.
    prompts: token ids, (length,) each, as `Renderer.prompt_ids` makes them. eos_ids: the tokens that end a turn; by
    default those of the model's generation settings and of the tokenizer. progress: called with (done, all) after each
    batch.

    Each prompt has its own random stream, made from `seed` and its place in `prompts`: neither the batch size nor the
    other prompts matter (up to rounding in the model), and torch's global random state is neither read nor moved.
    Modules return to the train or eval mode they had, the model to its settings.

    A response stops at the model's last position (`max_position_embeddings`) even if it is shorter than
    `max_new_tokens`. Raises InputError for an option out of range, an empty prompt, or a prompt that leaves no
    position free; RunError if the model's logits are NaN.
    """
    from transformers import LogitsProcessorList

    _check(max_new_tokens, temperature, top_p, batch_size)
    paired = is_encoder_decoder(model)
    allowed = _allowed(prompts, max_new_tokens, model)
    ends = sorted(set(eos_ids if eos_ids is not None else end_tokens(model, tokenizer)))
    samples: dict[int, Sample] = {}
    with _undisturbed(model, _pad(tokenizer, ends), ends):
        for places in _batches([len(p) for p in prompts], allowed, batch_size):
            chooser = _Choose(1.0 if greedy else temperature, top_p, None if greedy else [(seed, i) for i in places])
            ids, mask = _padded([prompts[i] for i in places], _pad(tokenizer, ends), left=not paired)
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=allowed[places[0]],
                do_sample=False,  # the chooser draws; generate takes the largest of what it returns
                use_cache=True,
                logits_processor=LogitsProcessorList([chooser]),
            )
            # A decoder with an encoder gives back its start token, others the prompt.
            new = out[:, 1 if paired else ids.shape[1] :].cpu().numpy().astype(np.int32)
            logprobs = torch.stack(chooser.logprobs, dim=1).double().cpu().numpy()
            for row, place in enumerate(places):
                samples[place] = _cut(new[row], logprobs[row], ends, tokenizer)
            if progress is not None:
                progress(len(samples), len(prompts))
    return [samples[i] for i in range(len(prompts))]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids of the tokens that end a turn: those of the model's generation settings and the tokenizer's EOS."""
    found: set[int] = set()
    for named in (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer):
        ids = getattr(named, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or [])
    return sorted(found)


def repetition(ids: Sequence[int] | NDArray[np.int32], n: int = 4) -> float:
    """Share of the n-grams that occurred before in the same response; 0 where it is shorter than n tokens."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def surprisal(samples: Sequence[Sample]) -> float:
    """Nats per token, over all tokens of all samples: minus their log-prob. nan without tokens.

    On samples drawn at temperature 1 without a nucleus this estimates the model's entropy per token.
    """
    tokens = sum(s.length for s in samples)
    return -sum(s.logprob_sum for s in samples) / tokens if tokens else nan


def text_statistics(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics of some samples: surprisal in nats per token, mean repetition, share that ends, mean length in tokens.

    Empty if there are no samples.
    """
    if not samples:
        return {}
    count = len(samples)
    return {
        "sample_surprisal": surprisal(samples),
        "sample_repetition": sum(repetition(s.ids) for s in samples) / count,
        "sample_ends": sum(s.ends for s in samples) / count,
        "sample_length": sum(s.length for s in samples) / count,
    }


class _Choose:
    """Draws each row's next token from its own random stream and keeps its log-prob.

    Called by `generate` with (batch, vocabulary) logits at each step; returns scores whose largest entry is the token
    drawn (an exponential race: argmax of log p - log E, E exponential, is distributed as p).
    """

    def __init__(self, temperature: float, top_p: float, streams: list[tuple[int, int]] | None) -> None:
        self.temperature, self.top_p, self.streams = temperature, top_p, streams
        self.generators: list[torch.Generator] = []
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        logp = logits.float().log_softmax(-1)
        if bool(logp.isnan().any()):
            raise RunError(
                f"the model's logits are not finite at position {input_ids.shape[1]} of a sampled response",
                mend="look for NaN in its weights: go back to an earlier checkpoint, lower lr, or load it in fp32",
            )
        scores = logp if self.streams is None else self._race(logp)
        self.logprobs.append(logp.gather(1, scores.argmax(-1, keepdim=True))[:, 0])
        return scores

    def _race(self, logp: Tensor) -> Tensor:
        if not self.generators:
            self.generators = [_generator(s, logp.device) for s in self.streams or ()]
        scores = nucleus((logp / self.temperature).log_softmax(-1), self.top_p)
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


def nucleus(logp: Tensor, top_p: float) -> Tensor:
    """Log-probs (batch, vocabulary) with -inf outside the smallest set of likeliest tokens that reaches `top_p`.

    The likeliest token always stays. Not renormalised. Source: Holtzman et al. 2020, eq. 2.
    """
    if top_p >= 1:
        return logp
    ordered, order = logp.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    out = torch.zeros_like(logp, dtype=torch.bool).scatter(1, order, before >= top_p)
    out.scatter_(1, order[:, :1], False)
    return logp.masked_fill(out, float("-inf"))


def _generator(stream: tuple[int, int], device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence(stream).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0] >> np.uint64(1)))


def _padded(prompts: Sequence[NDArray[np.int32]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask, (prompts, longest). left: what comes next is behind them; an encoder counts positions from 0."""
    width = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = width - len(prompt) if left else 0
        ids[row, start : start + len(prompt)] = torch.as_tensor(np.asarray(prompt, dtype=np.int64))
        mask[row, start : start + len(prompt)] = 1
    return ids, mask


def _cut(ids: NDArray[np.int32], logprobs: NDArray[np.float64], ends: Sequence[int], tokenizer: Any) -> Sample:
    """The row up to and with its first end token: what follows is padding."""
    stops = np.flatnonzero(np.isin(ids, ends))
    length = int(stops[0]) + 1 if stops.size else len(ids)
    kept = ids[:length].copy()
    text = tokenizer.decode(kept.tolist(), skip_special_tokens=True)
    return Sample(kept, text, bool(stops.size), float(logprobs[:length].sum()), length)


def _pad(tokenizer: Any, ends: Sequence[int]) -> int:
    """What fills the gaps. Its value does not matter, the attention mask hides it; it must only be a token."""
    pad = getattr(tokenizer, "pad_token_id", None)
    return pad if pad is not None else next(iter(ends), 0)


@contextmanager
def _undisturbed(model: Any, pad: int, ends: Sequence[int]) -> Iterator[None]:
    """Eval mode and neutral generation settings inside, everything as it was afterwards.

    In eval mode gradient checkpointing is idle and the cache works, so neither flag is touched.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    holders = [m for m in (model, base) if hasattr(m, "generation_config")]
    settings = [m.generation_config for m in holders]
    training = [m for m in model.modules() if m.training]
    start = decoder_start(base) if is_encoder_decoder(base) else None
    neutral = GenerationConfig(pad_token_id=pad, eos_token_id=list(ends) or None, decoder_start_token_id=start)
    try:
        for holder in holders:
            holder.generation_config = neutral
        model.eval()
        yield
    finally:
        for holder, setting in zip(holders, settings, strict=True):
            holder.generation_config = setting
        for module in training:
            module.training = True


def _allowed(prompts: Sequence[NDArray[np.int32]], max_new_tokens: int, model: Any) -> list[int]:
    """Most new tokens for each prompt: as asked, or as many as the model has positions left for.

    A decoder with an encoder has all of them for the response.
    """
    room = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    room = room if isinstance(room, int) and room > 0 else None
    paired = is_encoder_decoder(model)
    for place, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise InputError(f"prompt {place} has no tokens", mend="begin it with the tokenizer's BOS token")
        if room is not None and len(prompt) >= room + paired:
            raise InputError(
                f"prompt {place} has {len(prompt)} tokens, and the model has {room} positions: no room for a response",
                mend=f"cut the prompt from the left to fewer than {room} tokens",
            )
    return [max_new_tokens if room is None else min(max_new_tokens, room - len(p) * (not paired)) for p in prompts]


def _batches(lengths: Sequence[int], allowed: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of prompts to sample together: like lengths (less padding), one limit, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for _, group in groupby(order, key=lambda i: allowed[i]):
        places = list(group)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _check(max_new_tokens: int, temperature: float, top_p: float, batch_size: int) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}", mend="leave it at 64")
    if not 0 < temperature < float("inf"):
        raise InputError(
            f"temperature must be positive and finite, not {temperature}",
            mend="for the likeliest token at each step, say greedy=True",
        )
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must be in (0, 1], not {top_p}", mend="1 keeps every token")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}", mend="leave it at 16")
