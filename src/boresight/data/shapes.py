"""Shapes that several formats share: the prompt, one response, two sides of a comparison, a vote."""

from __future__ import annotations

from typing import Any, TypedDict

from boresight.data import transcripts
from boresight.data.cells import (
    Bad,
    Cells,
    filled,
    first_of,
    found,
    has,
    listing,
    messages,
    name,
    number,
    show,
    text,
    unicode,
)
from boresight.data.example import Message, Pair, Response

Content = str | tuple[Message, ...]

PROMPT = "prompt|question|instruction|messages|conversations"


class About(TypedDict):
    """The optional keys that every format knows."""

    id: str | None
    user: str | None
    group: str | None
    domain: str | None


def about(row: Cells) -> About:
    """What the row says under the keys that every format knows."""
    return {
        "id": name(row, "id", "idx", "prompt_id", "question_id"),
        "user": name(row, "user"),
        "group": name(row, "group"),
        "domain": name(row, "domain"),
    }


def asked(row: Cells, key: str, more: str | None = None) -> Content:
    """The prompt under `key`: text, a transcript or messages; behind a text that under `more`, if there is any."""
    if not isinstance(row.get(key), str):
        if not isinstance(row.get(key), list | tuple):
            raise Bad(key, "text or a list of messages", found(row, key))
        return messages(row[key], key)
    words = text(row, key, blank=True)
    if more and text(row, more, blank=True):
        words += "\n\n" + row[more]
    return transcripts.parse_prompt(words) if transcripts.is_transcript(words) else words


def prompt_of(row: Cells) -> Content:
    """The prompt: text, a transcript or messages; an instruction with its input; a system text before it."""
    key = first_of(row, *PROMPT.split("|"))
    more = "input" if key == "instruction" and isinstance(row.get(key), str) and has(row, "input") else None
    prompt = asked(row, key, more)
    if isinstance(row.get("system"), str) and row["system"].strip():
        turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        prompt = (Message("system", text(row, "system")), *turns)
    return prompt


def content_of(value: Any, key: str, *, blank: bool = False) -> Content:
    """One response: text, a message, or the messages that follow the prompt."""
    if isinstance(value, str):
        if not (blank or value.strip()):
            raise Bad(key, "a response that is not empty", show(value))
        return unicode(value, key)
    if not isinstance(value, list | tuple | dict):
        raise Bad(key, "a response: text or messages", show(value))
    return transcripts.answer(messages(value, key), key, blank=blank)


def answered(row: Cells, key: str) -> tuple[Content, Content]:
    """The prompt and the one response under `key`, which is text or messages."""
    prompt = prompt_of(row)
    if not has(row, key):
        raise Bad(key, "a response", found(row, key))
    return prompt, content_of(_unspaced(row, row[key]), key)


def answer_to(row: Cells, asked_under: str, key: str) -> tuple[Content, Content]:
    """The prompt under one key and the response under another."""
    prompt = asked(row, asked_under)
    if not has(row, key):
        raise Bad(key, "a response", found(row, key))
    return prompt, content_of(_unspaced(row, row[key], asked_under), key)


def _unspaced(row: Cells, value: Any, asked_under: str | None = None) -> Any:
    """After a prompt that ends in "Assistant:" a text begins with the separating space, which is not its own."""
    prompt = row.get(asked_under or first_of(row, *PROMPT.split("|")))
    waits = isinstance(prompt, str) and transcripts.is_transcript(prompt) and prompt.endswith("\n\nAssistant:")
    return value.removeprefix(" ") if waits and isinstance(value, str) else value


def two(row: Cells, first: str, second: str, *, blank: bool = False) -> tuple[Content, list[Content]]:
    """The prompt and the two responses of a comparison, whether the sides hold answers or whole dialogues.

    Sides that begin with a turn of the user or the system are whole dialogues; a prompt beside them must begin them.
    """
    keys = (first, second)
    given = any(has(row, key) for key in PROMPT.split("|"))
    absent = next((key for key in keys if not has(row, key)), None)
    if absent:
        raise Bad(absent, "a response", found(row, absent))
    dialogues = [_dialogue(row[key], key) for key in keys]
    prompt = prompt_of(row) if given else None
    if prompt is None or all(turns and turns[0].role in ("user", "system") for turns in dialogues):
        for key, turns in zip(keys, dialogues, strict=True):
            if turns is None:
                what = 'messages or a transcript "\\n\\nHuman: ...", as there is no prompt'
                raise Bad(key, what, show(row[key]))
            if prompt is not None and not _begins(turns, prompt):
                raise Bad(key, "a dialogue that begins with the prompt, or the answer alone", "another beginning")
        shared, answers = transcripts.part(dialogues[0] or (), dialogues[1] or (), keys, blank=blank)
        return shared, list(answers)
    return prompt, [content_of(_unspaced(row, row[key]), key, blank=blank) for key in keys]


def _dialogue(value: Any, key: str) -> tuple[Message, ...] | None:
    if isinstance(value, str):
        return transcripts.parse(unicode(value, key)) if transcripts.is_transcript(value) else None
    return messages(value, key)


def _begins(turns: tuple[Message, ...], prompt: Content) -> bool:
    if isinstance(prompt, str):
        return any(turn.role == "user" and turn.content.strip() == prompt.strip() for turn in turns)
    return turns[: len(prompt)] == prompt


def responses_of(row: Cells, key: str, least: int) -> tuple[Response, ...]:
    """Several responses, with the names of their systems under `systems`."""
    values = listing(row, key, what="responses")
    if len(values) < least:
        raise Bad(key, f"at least {least} responses", str(len(values)))
    systems = listing(row, "systems", len(values), "names") if has(row, "systems") else [None] * len(values)
    return tuple(
        Response(content_of(value, f"{key}[{place}]"), name({f"systems[{place}]": system}, f"systems[{place}]"))
        for place, (value, system) in enumerate(zip(values, systems, strict=True))
    )


def weight_of(row: Cells) -> float:
    """The weight of a row's pair or label, 1 where it names none."""
    weight = number(row, "weight") if filled(row, "weight") else 1.0
    if weight <= 0:
        raise Bad("weight", "a number above 0", show(row["weight"]))
    return weight


JUDGES = ("annotator", "judge", "worker")
TIES = ("tie", "tie (bothbad)", "bothbad", "both_bad")


def vote(row: Cells, key: str, sides: dict[Any, int], annotator: str | None) -> Pair:
    """The pair that a verdict makes: `sides` says which response each word means; the words of a tie are known."""
    value = row.get(key)
    if isinstance(value, str | int) and not isinstance(value, bool):
        if value in sides:
            return Pair(sides[value], 1 - sides[value], annotator=annotator)
        if str(value).lower() in TIES:
            return Pair(0, 1, tie=True, annotator=annotator)
    raise Bad(key, f"{', '.join(str(side) for side in sides if side is not None)} or tie", found(row, key))
