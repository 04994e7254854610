"""What goes to an OpenAI-compatible server and what comes back: addresses, keys, requests, replies."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from boresight.data.cells import plain
from boresight.errors import InputError

KEYS = ("BORESIGHT_API_KEY", "OPENAI_API_KEY")
HIDDEN = "<hidden>"

Message = Mapping[str, Any]
"""{"role": ..., "content": text, or a list of parts}."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer: its log-prob in nats, and those of the likeliest tokens in its place, itself among them."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Settings:
    """How answers are sampled. top_logprobs: how many alternatives to report for each token; 0 asks for none.

    extra: further keys of the request, as they stand. Raises InputError for a value that cannot be used.
    """

    temperature: float = 0.0
    max_tokens: int = 512
    top_logprobs: int = 0
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}", mend="give 0 or more")
        if self.max_tokens < 1 or self.top_logprobs < 0:
            raise InputError(f"max_tokens={self.max_tokens}, top_logprobs={self.top_logprobs}", mend="give more")
        bad = next((k for k in self.extra if k in ("model", "messages", "stream", "n")), None)
        if bad is not None:
            raise InputError(f"the setting {bad} is not to be set so", mend="it is given by the question itself")

    def request(self) -> dict[str, Any]:
        """The keys of the request body; one in `extra` goes before ours, and null takes ours away."""
        asked: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if self.top_logprobs:
            asked |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.seed is not None:
            asked["seed"] = self.seed
        return {k: v for k, v in {**asked, **self.extra}.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. text: None where it gave none, as in a refusal. Counts of tokens: None if not told."""

    text: str | None
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    served_by: str | None = None


def address(url: str) -> str:
    """Where completions are asked for: URL, or URL/chat/completions if it does not end so.

    Raises InputError if it is no http(s) address, or has a password or a query: keys belong in the environment.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url.strip()):
        raise InputError("endpoint: not an http or https address", mend="give one like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"endpoint at {plain(host)}: a user, password, query or fragment in the address",
            mend=f"give the address alone, and the key in the environment as {KEYS[0]}",
        )
    path = parts.path.rstrip("/")
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def is_local(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_for(url: str, name: str | None = None) -> str | None:
    """The key from the environment: of the variable `name`, or BORESIGHT_API_KEY; for OpenAI's own OPENAI_API_KEY too.

    OPENAI_API_KEY goes nowhere else unless it is named. None where none is set. Raises InputError if the one that is
    named is not set, it holds what no header can, or it would go to another machine unencrypted without being named.
    """
    host = urlsplit(url).hostname or ""
    openai = host == "openai.com" or host.endswith(".openai.com")
    names = (name,) if name else KEYS if openai else KEYS[:1]
    found = next((n for n in names if os.environ.get(n, "").strip()), None)
    if found is None:
        if name:
            raise InputError(f"{name} is not set in the environment", mend=f"set it, or leave key_env for {KEYS[0]}")
        return None
    key = os.environ[found].strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{found} holds characters that no key has", mend="set it to the key alone")
    if not name and urlsplit(url).scheme == "http" and not is_local(url):
        raise InputError(
            f"{found} would go to {host} unencrypted",
            mend=f"use https, unset it, or say that it is meant to by key_env={found}",
        )
    return key


def scrubbed(text: str, key: str | None) -> str:
    """The text without the key."""
    return text.replace(key, HIDDEN) if key else text


def read_reply(body: bytes, key: str | None = None) -> Reply:
    """The reply in a body of JSON. Raises ValueError with what is wrong with it, the key hidden."""
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON but {excerpt(body, key)}") from None
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError(f"JSON without choices: {excerpt(body, key)}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise ValueError(f"a choice without message: {excerpt(body, key)}")
    text = _text(message.get("content"))
    usage = value["usage"] if isinstance(value.get("usage"), dict) else {}
    finish, served = choices[0].get("finish_reason"), value.get("model")
    return Reply(
        None if text is None else scrubbed(_whole(text), key),
        _tokens(choices[0].get("logprobs"), key),
        scrubbed(_whole(finish), key)[:200] if isinstance(finish, str) else None,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        scrubbed(_whole(served), key)[:200] if isinstance(served, str) else None,
    )


def excerpt(body: bytes, key: str | None) -> str:
    """The beginning of a body, for an error: on one line, the key hidden."""
    text = scrubbed(body[:4000].decode("utf-8", "replace"), key)
    return plain(" ".join(text.split()))[:200] or "nothing"


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
        return "".join(parts) if parts else None
    return None


def _whole(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def _tokens(logprobs: Any, key: str | None) -> tuple[Token, ...]:
    """The tokens with their log-probs; none where the server gives none or they make no sense."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    tokens = []
    for item in content:
        one = _one(item, key)
        if one is None:
            return ()  # a gap would put what follows in another place
        top = item.get("top_logprobs") if isinstance(item.get("top_logprobs"), list) else []
        tokens.append(Token(*one, tuple(t for t in (_one(x, key) for x in top) if t is not None)))
    return tuple(tokens)


def _one(item: Any, key: str | None) -> tuple[str, float] | None:
    if not isinstance(item, dict) or not isinstance(item.get("token"), str):
        return None
    value = item.get("logprob")
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value > 1e-3:
        return None
    return scrubbed(_whole(item["token"]), key), float(value)


def estimate(messages: Sequence[Message], settings: Settings) -> int:
    """Tokens that a question will cost at most, roughly: a token for 3 bytes of text, 1000 an image, and the answer."""
    total = settings.max_tokens
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        total += sum(len(p["text"].encode()) // 3 + 4 if p.get("type") == "text" else 1000 for p in parts)
    return total
