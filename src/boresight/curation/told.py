"""Words that are put before a prompt, so that a model can be told what is wanted of its answer."""

from __future__ import annotations

from dataclasses import replace

from boresight.data.example import Example, Message

Prompt = str | tuple[Message, ...]


def told(example: Example, words: str, *, system: bool = True) -> Example:
    """The example with `words` before its prompt, and before the prompts that responses have of their own.

    system: as a message of the system, before the words of one that is there; False for templates without such a
    role: at the head of the user's first message, with a blank line behind.
    """
    responses = tuple(
        r if r.prompt is None else replace(r, prompt=_before(r.prompt, words, system)) for r in example.responses
    )
    return replace(example, prompt=_before(example.prompt, words, system), responses=responses)


def name_of(example: Example, index: int) -> str:
    """The example's id, else where it was read, else its place among the others, counted from 0."""
    return example.id or example.source or f"example {index}"


def _before(prompt: Prompt, words: str, system: bool) -> Prompt:
    if isinstance(prompt, str) and not system:
        return f"{words}\n\n{prompt}"
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    role = "system" if system else "user"
    place = next((i for i, turn in enumerate(turns) if turn.role == role), None)
    if place is None:
        return (Message(role, words), *turns)
    joined = Message(role, f"{words}\n\n{turns[place].content}")
    return (*turns[:place], joined, *turns[place + 1 :])
