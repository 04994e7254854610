"""The likelihood of what a user would say next as a reward: thanks after a good answer, complaints after a bad one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from boresight.data.example import Message
from boresight.data.render import response_mask, untrimmed
from boresight.data.spans import PROBES, Chat, Refused, as_messages, common_prefix, common_suffix
from boresight.data.tokens import Tokens
from boresight.engine.padded import BUDGET
from boresight.errors import InputError
from boresight.paper import paper
from boresight.rewards.base import Content, Values
from boresight.rewards.models import _Modelled
from boresight.training.judge import load_model

POSITIVE = MappingProxyType(
    {
        "understanding": ("Yes, that is what I meant.", "You have understood me well."),
        "relevance": ("That is just what I was asking about.", "Good, that keeps to my question."),
        "correctness": ("That is right, thank you.", "I have checked it, and it is correct."),
        "engagingness": ("How interesting, tell me more!", "I like talking to you about this."),
        "informativeness": ("I have learned a lot from that.", "Thanks, that told me all I needed."),
        "instruction following": ("Perfect, you did what I asked for.", "Great, just the way I wanted it."),
    }
)
NEGATIVE = MappingProxyType(
    {
        "understanding": ("No, that is not what I meant.", "You have not understood me."),
        "relevance": ("That has nothing to do with my question.", "Why are you telling me this?"),
        "correctness": ("That is wrong.", "I have checked it, and it is not correct."),
        "engagingness": ("This is boring, let us stop.", "I do not want to talk about this any more."),
        "informativeness": ("That told me nothing new.", "This is too vague to be of use."),
        "instruction following": ("That is not what I asked you to do.", "You left out what I told you to do."),
    }
)
"""What a user says after a good and after a bad answer, by aspect; our own wording."""


@paper("flr")
class FollowUpReward(_Modelled):
    """How much likelier a model of dialogues finds a user's thanks than a user's complaints after the response.

    r(x, y) = mean over aspects of (mean over positive follow-ups f of l(f | x, y) - mean over negative ones), where l
    is the mean log-likelihood of the tokens of f, in nats, as the user's next turn by the model's own chat template;
    what ends the turn is not counted.
    model: a run, a model or a hub name, with a chat template that takes a user's turn behind the assistant's.
    positive, negative: follow-ups by aspect, of the same aspects.
    Source: Zhang et al. 2024, Aligning language models using follow-up likelihood as reward signal. How they join
    aspects was not found; here each counts alike, however many follow-ups it has.
    Raises InputError for reward models, models without chat template, and follow-ups that are none.
    """

    def __init__(
        self,
        model: str | Path,
        positive: Mapping[str, Sequence[str]] = POSITIVE,
        negative: Mapping[str, Sequence[str]] = NEGATIVE,
        *,
        max_length: int | None = None,
        micro_tokens: int = BUDGET,
        dtype: torch.dtype = torch.float32,
        store: str | Path | None = None,
    ) -> None:
        if set(positive) != set(negative) or not positive:
            raise InputError(
                f"positive follow-ups are of {sorted(positive)}, negative ones of {sorted(negative)}",
                mend="give both for the same aspects, of which there is one at least",
            )
        for aspect, texts in [*positive.items(), *negative.items()]:
            if isinstance(texts, str) or not texts or not all(t.strip() for t in texts):
                raise InputError(f"{texts!r} are no follow-ups of {aspect!r}", mend="give a list of texts")
        super().__init__(model, {"max_length": max_length}, micro_tokens, store)
        loaded = load_model(self.name, dtype=dtype)
        if loaded.reward:
            raise InputError(f"{model} is a reward model", mend="give a language model")
        if not loaded.loaded.tokenizer.chat_template:
            raise InputError(f"{model} has no chat template", mend="give a model of dialogues")
        self._ready(loaded)
        # Each follow-up once, with its share of the reward.
        self.shares: dict[str, float] = {}
        for sign, given in ((1, positive), (-1, negative)):
            for texts in given.values():
                for text in texts:
                    self.shares[text] = self.shares.get(text, 0.0) + sign / (len(texts) * len(given))

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,); nan where a response is empty, a follow-up does not fit, or the template refuses it."""
        found = np.full(len(prompts), np.nan)
        made: dict[int, list[Tokens]] = {}
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            talk = (*as_messages(prompt, "user"), *as_messages(response, "assistant"))
            each = [self._followed(talk, text) for text in self.shares] if talk[-1].content.strip() else [None]
            kept = [tokens for tokens in each if tokens is not None]
            if len(kept) == len(each):
                made[i] = kept
        values = iter(self._judges[0].values([t for tokens in made.values() for t in tokens], lambda n: None))
        shares = np.array(list(self.shares.values()))
        for i in made:
            found[i] = shares @ [float(next(values).mean(dtype=np.float64)) for _ in shares]
        return found

    def _followed(self, talk: tuple[Message, ...], text: str) -> Tokens | None:
        """The conversation with the follow-up as its last turn, whose tokens alone are masked."""
        renderer, template = self._renderer, self._renderer.template
        assert isinstance(template, Chat)
        try:
            # Templates strip or change what they print: it is what differs where other texts stand in its place.
            whole, one, two = (template.string((*talk, Message("user", t))) for t in (text, *PROBES))
        except Refused:
            return None
        start, tail = common_prefix(one, two), common_suffix(one, two)
        out = renderer.tokenizer(
            whole, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        offsets = np.asarray(out["offset_mapping"], np.int64).reshape(-1, 2)
        if renderer._trims:
            offsets = untrimmed(offsets)
        special = np.isin(out["input_ids"], renderer._special)
        mask, _ = response_mask(offsets, special, [(start, len(whole) - tail)])
        ids = np.asarray(out["input_ids"], np.int32)
        mask[:1] = False
        if not mask.any() or (renderer.max_length is not None and len(ids) > renderer.max_length):
            return None
        return Tokens(ids, mask, False)
