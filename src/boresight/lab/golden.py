"""The language world's gold reward as a function of prompts and responses, as `boresight compare --gold` takes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boresight.data.example import Message
from boresight.lab.language import LanguageWorld


def reward(prompts: Sequence[str | Sequence[Mapping[str, str]]], responses: Sequence[str]) -> list[float]:
    """The gold reward of each response, in [0, 1]; a prompt is text, or messages as {"role", "content"}.

    Raises InputError for a prompt that is no instruction of the lab's language.
    """
    world = LanguageWorld()
    asked = [p if isinstance(p, str) else [Message(m["role"], m["content"]) for m in p] for p in prompts]
    return [world.reward(p, r) for p, r in zip(asked, responses, strict=True)]
