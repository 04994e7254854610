"""From a conversation to one string, and where in it the assistant's answers lie, in characters.

Nothing is searched for. A template that marks its answers (`{% generation %}`) is believed; any other is rendered
again with the answer replaced by two probes that share neither first nor last character: what all renderings have in
common at both ends is the template's own text, and what lies between is the answer as the template printed it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol

from boresight.data.example import Message, Response

Spans = Literal["last", "all"] | frozenset[int]
Content = str | tuple[Message, ...]

PROBES = ("Qa1Z", "Wb2X")
"""Two short answers that differ in their first and in their last character."""

_MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class Refused(Exception):
    """This conversation cannot be rendered; the first argument is the reason's name, the second the detail."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One conversation as a string, cut off behind the last answer that is trained on.

    trained: (start, end) of each answer that is trained on, in characters of `text`, end-of-turn included.
    boundary: where the response begins: what lies before is prompt. append_eos: the template wrote no end-of-turn
    behind the last answer, so the EOS id has to be appended. closed: the last answer has an end-of-turn in `text`.
    in_context: what generation starts from is a prefix of `text`, so that training sees what inference sees.
    """

    text: str
    trained: tuple[tuple[int, int], ...]
    boundary: int
    append_eos: bool
    closed: bool
    in_context: bool


class Template(Protocol):
    """What turns conversations into strings: the tokenizer's chat template, or plain text."""

    name: str

    def prompt(self, prompt: Content) -> str:
        """What generation starts from."""

    def render(self, prompt: Content, response: Content, spans: Spans) -> Rendered:
        """The conversation with its response. Raises Refused if it cannot be rendered."""


def content_of(response: Response | Content) -> Content:
    """A response's text or messages."""
    return response.content if isinstance(response, Response) else response


def as_messages(content: Content, role: str) -> tuple[Message, ...]:
    """Messages as they are; a text becomes one message of the role given."""
    return (Message(role, content),) if isinstance(content, str) else tuple(content)


def wanted_turns(messages: Sequence[Message], first: int, spans: Spans) -> list[int]:
    """Indices of the messages that are trained on; `first` is the index of the response's first message.

    "last": the assistant's messages of the response. "all": every message of the assistant. A set: these indices,
    negative ones counted from the end. Raises Refused if an index is not a message of the assistant's.
    """
    if isinstance(spans, frozenset):
        turns = sorted({i + len(messages) if i < 0 else i for i in spans})
        bad = next((i for i in turns if not 0 <= i < len(messages) or messages[i].role != "assistant"), None)
        if bad is not None:
            raise Refused("no-such-turn", f"message {bad} of {len(messages)} is not one of the assistant's")
    else:
        turns = [i for i, m in enumerate(messages) if m.role == "assistant" and (spans == "all" or i >= first)]
    if not turns:
        raise Refused("no-such-turn", "the response holds no message of the assistant's")
    return turns


def common_prefix(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def common_suffix(a: str, b: str) -> int:
    """Length of the longest common suffix."""
    return common_prefix(a[::-1], b[::-1])


class Chat:
    """The tokenizer's own chat template."""

    name = "chat"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.source: str = tokenizer.get_chat_template()
        self.marked = bool(_MARKS.search(self.source))
        # BOS alone ends nothing: where it differs from EOS it may stand before the next turn.
        ends = [t for t in special_texts(tokenizer) if t != tokenizer.bos_token or t == tokenizer.eos_token]
        one = "|".join(re.escape(t) for t in sorted(ends, key=len, reverse=True)) or r"(?!)"
        self.end = re.compile(one)
        self.end_run = re.compile(rf"(?:\s*(?:{one}))+\s*\Z")
        self.end_next = re.compile(rf"\s*(?:{one})")
        self.string = lru_cache(maxsize=256)(self._string)  # prompts and probes are shared by all the responses

    def _string(self, messages: tuple[Message, ...], generation: bool = False) -> str:
        return str(
            self._try(
                self.tokenizer.apply_chat_template, _plain(messages), tokenize=False, add_generation_prompt=generation
            )
        )

    def _try(self, function: Any, *arguments: Any, **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            return function(*arguments, **options)
        except (
            *(TemplateError, ValueError, TypeError, LookupError, AttributeError),
            *(ArithmeticError, MemoryError, RecursionError),  # what a template of ill will comes to
        ) as error:
            why = str(error) or type(error).__name__
            raise Refused("template", f"the chat template refuses the conversation: {why}") from error

    def prompt(self, prompt: Content) -> str:
        """The prompt rendered with its generation prompt."""
        return self.string(as_messages(prompt, "user"), True)

    def render(self, prompt: Content, response: Content, spans: Spans) -> Rendered:
        """One rendering of the whole conversation and the spans in it. Raises Refused."""
        before = as_messages(prompt, "user")
        messages = before + as_messages(response, "assistant")
        turns = wanted_turns(messages, len(before), spans)
        opening = next((i for i in range(len(before), len(messages)) if messages[i].role == "assistant"), turns[-1])
        text, found, ends = (self._from_marks if self.marked else self._from_differences)(
            messages, tuple(sorted({*turns, opening}))
        )
        last = turns[-1]
        stop, closed = found[last][1], ends[last]
        return Rendered(
            text=text[:stop],
            trained=tuple(found[i][:2] for i in turns),
            boundary=min(found[opening][0], stop),
            append_eos=not closed and last == len(messages) - 1,
            closed=closed,
            in_context=all(found[i][2] for i in turns),
        )

    def _opening(self, text: str, messages: tuple[Message, ...], turn: int, limit: int) -> int | None:
        """Length of what generation of this turn starts from, where the whole rendering begins with exactly that."""
        if turn == 0:
            return None
        try:
            opening = self.string(messages[:turn], True)
        except Refused:
            return None
        return len(opening) if len(opening) <= limit and text.startswith(opening) else None

    def _content(self, text: str, messages: tuple[Message, ...], turn: int) -> tuple[int, int]:
        """Where the content of one message lies in the rendering `text`, as the template printed it."""
        one, two = (
            self.string((*messages[:turn], replace(messages[turn], content=probe), *messages[turn + 1 :]))
            for probe in PROBES
        )
        head, tail = common_prefix(one, two), common_suffix(one, two)
        agrees = text.startswith(one[:head]) and text.endswith(one[len(one) - tail :])
        if not agrees or head + tail > len(text):  # the template looks into the content
            head = min(common_prefix(text, one), common_prefix(text, two))
            tail = min(common_suffix(text, one), common_suffix(text, two), len(text) - head)
        return head, len(text) - tail

    def _from_differences(
        self, messages: tuple[Message, ...], turns: tuple[int, ...]
    ) -> tuple[str, dict[int, tuple[int, int, bool]], dict[int, bool]]:
        text = self._string(messages)
        final = len(messages) - 1
        content = {i: self._content(text, messages, i) for i in {*turns, final}}
        match = self.end.search(text, content[final][1])
        closing = text[content[final][1] : match.end()] if match else ""
        found, ends = {}, {}
        for i in turns:
            start, stop = content[i]
            opening = self._opening(text, messages, i, stop)
            ends[i] = bool(closing) and text.startswith(closing, stop)
            found[i] = (
                start if opening is None else opening,
                stop + len(closing) * ends[i],
                opening is not None or i == 0,
            )
        return text, found, ends

    def _from_marks(
        self, messages: tuple[Message, ...], turns: tuple[int, ...]
    ) -> tuple[str, dict[int, tuple[int, int, bool]], dict[int, bool]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, marks = self._try(
            render_jinja_template,
            conversations=[_plain(messages)],
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        text, blocks = texts[0], marks[0]
        speakers = [i for i, m in enumerate(messages) if m.role == "assistant"]
        if len(blocks) != len(speakers):  # marks that do not match the turns cannot be told apart
            return self._from_differences(messages, turns)
        found, ends = {}, {}
        for i, (start, stop) in zip(speakers, blocks, strict=True):
            if i not in turns:
                continue
            opening = self._opening(text, messages, i, stop)
            run = self.end_run.search(text, start, stop)
            if run:  # up to the first end token of those that close the block, without the white space behind it
                first = self.end.search(text, run.start(), stop)
                stop, ends[i] = (first.end() if first else stop), True
            else:
                behind = self.end_next.match(text, stop)
                stop, ends[i] = (behind.end(), True) if behind else (stop, False)
            found[i] = (max(start, opening or 0), stop, opening is not None or i == 0)
        return text, found, ends


class Plain:
    """No template: a text prompt is continued by its response as it is, messages become a transcript.

    The transcript has "\\n\\nHuman: " before a user's message, "\\n\\nAssistant: " before an answer, and
    "\\n\\nSystem: " and "\\n\\nTool: " likewise. A prompt ends in "\\n\\nAssistant:"; the space behind it belongs to
    the answer, so that the prompt alone is tokenised as it is in the whole.
    """

    name = "plain"
    roles: ClassVar = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}

    def prompt(self, prompt: Content) -> str:
        """The text itself, or the transcript up to and including "\\n\\nAssistant:"."""
        if isinstance(prompt, str):
            return prompt
        return "".join(self._head(m) + " " + m.content for m in prompt) + "\n\nAssistant:"

    def render(self, prompt: Content, response: Content, spans: Spans) -> Rendered:
        """Prompt and response as one text, EOS to be appended. Raises Refused."""
        before, after = as_messages(prompt, "user"), as_messages(response, "assistant")
        messages = before + after
        turns = wanted_turns(messages, len(before), spans)
        bare = {0, 1} if isinstance(prompt, str) else set()  # a text is continued by a text: no names, no spaces
        text, found = "", {}
        for i, message in enumerate(messages):
            named = i not in bare or (i == 1 and message.role != "assistant")
            text += self._head(message) if named else ""
            start = len(text)
            text += " " + message.content if named else message.content
            found[i] = (start, len(text))
        opening = next((i for i in range(len(before), len(messages)) if messages[i].role == "assistant"), turns[-1])
        stop = found[turns[-1]][1]
        return Rendered(
            text=text[:stop],
            trained=tuple(found[i] for i in turns),
            boundary=min(found[opening][0], stop),
            append_eos=turns[-1] == len(messages) - 1,
            closed=False,
            in_context=True,
        )

    def _head(self, message: Message) -> str:
        return f"\n\n{self.roles.get(message.role, message.role.capitalize())}:"


class Apart(Plain):
    """No template, for a model with an encoder and a decoder: the prompt goes to one, the response to the other.

    A text, or a single message of the user's, is the prompt as it is; several messages become the transcript of
    `Plain`. The response is one text.
    """

    name = "encoder and decoder"

    def prompt(self, prompt: Content) -> str:
        """The text itself, or the transcript up to and including "\\n\\nAssistant:"."""
        if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0].role == "user":
            return prompt[0].content
        return super().prompt(prompt)

    def render(self, prompt: Content, response: Content, spans: Spans) -> Rendered:
        """Prompt and response one behind the other, to be tokenised apart. Raises Refused."""
        start, text = self.prompt(prompt), as_messages(response, "assistant")[-1].content
        whole = start + text
        return Rendered(
            text=whole,
            trained=((len(start), len(whole)),),
            boundary=len(start),
            append_eos=True,
            closed=False,
            in_context=True,
        )


def special_texts(tokenizer: Any) -> list[str]:
    """The texts of the tokens that the tokenizer treats as special, EOS among them."""
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return sorted(added | {str(t) for t in tokenizer.all_special_tokens} - {""})


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]
