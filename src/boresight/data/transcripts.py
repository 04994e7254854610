r"""Transcripts "\n\nHuman: ...\n\nAssistant: ..." to messages, and two dialogues to a prompt and two responses.

A turn begins at a blank line followed by `Human:` or `Assistant:`, and its text is everything up to the next such
place, less the one space after the colon. So the text is kept to the letter, quirks included: in the hh sets a
"\n\nHuman" without a colon stays at the end of the turn it stands in, "Assistant: Human: ..." is the assistant
saying "Human: ...", and two turns of the assistant in a row stay two.
"""

from __future__ import annotations

import re

from boresight.data.cells import Bad
from boresight.data.example import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}

Turns = tuple[Message, ...]


def is_transcript(text: str) -> bool:
    """The text begins as a transcript does."""
    return text.startswith("\n\nHuman:")


def parse(text: str) -> Turns:
    """The turns of a transcript. Raises ValueError if the text does not begin as one."""
    if not is_transcript(text):
        raise ValueError('a transcript begins with "\\n\\nHuman:"')
    pieces = _TURN.split(text)
    return tuple(
        Message(_ROLE[who], said.removeprefix(" ")) for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    )


def parse_prompt(text: str) -> Turns:
    """The turns of a transcript that waits for an answer: an empty last turn of the assistant is left off."""
    turns = parse(text)
    return turns[:-1] if turns[-1] == Message("assistant", "") else turns


def answer(turns: Turns, key: str, *, blank: bool = False) -> str | Turns:
    """What follows a prompt, as a response's content: plain text where it is one turn of the assistant.

    Raises Bad if the last turn is not the assistant's, or (without `blank`) if it says nothing.
    """
    last = turns[-1] if turns else Message("user", "")
    if last.role != "assistant":
        raise Bad(key, "a last turn by the assistant", f"one by the {last.role}" if turns else "no turn")
    if not (blank or last.content.strip()):
        raise Bad(key, "an answer in the assistant's last turn", "an empty one")
    return last.content if len(turns) == 1 else turns


def part(first: Turns, second: Turns, keys: tuple[str, str], *, blank: bool = False) -> tuple[Turns, list[str | Turns]]:
    """Two dialogues as (prompt, [answer, answer]): the prompt is their longest common beginning in whole turns.

    At least the last turn of each is left for the answer; where the dialogues part earlier, the answers are several
    turns. Raises Bad if they share no turn of the user, or an answer is unusable.
    """
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    answers = [answer(turns[shared:], key, blank=blank) for turns, key in zip((first, second), keys, strict=True)]
    if not any(turn.role == "user" for turn in first[:shared]):
        raise Bad(keys[1], f"a dialogue that begins with the same turns as {keys[0]}", "another beginning")
    return first[:shared], answers
