"""Keeping keys, tokens and passwords out of what is logged and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "<hidden>"

_ALWAYS = {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "apikey", "bearer"}
_ALWAYS |= {"authorization", "authentication"}
_BEFORE_KEY = {"api", "access", "private", "secret", "auth", "signing", "encryption", "account", "service"}
# "token" is the end of a secret's name (hf_token) and of a vocabulary's (eos_token) alike; these are the vocabulary's.
_VOCABULARY = {"eos", "bos", "pad", "unk", "sep", "cls", "mask", "stop", "end", "start", "per", "image", "logp"}
_VOCABULARY |= {"turn", "special"}
_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[0-9A-Za-z_-]{30,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*"
    r"|(?i:\bbearer\s+)\S{8,}|(?i:\b(?:api_?key|access_token|token|password|secret)=)[^&\s]+|(?<=://)[^/@\s]+:[^/@\s]+(?=@)"
)


def without_secrets(value: Any, *, of: str = "") -> Any:
    """A copy of `value` (mappings, lists, plain values) in which everything that looks like a secret reads <hidden>.

    Hidden are the values of keys named like a secret (hf_token, api_key, password, Authorization, ...), and within
    any text what has the shape of a known kind of key, a bearer token, or a password in a URL. Names such as
    max_tokens, tokenizer or eos_token are no secrets. None and flags stay. of: the key that `value` belongs to, which
    counts as part of its keys' names: {"eos": {"token": ...}} is no secret.
    """
    if isinstance(value, Mapping):
        return {
            k: _hide(v) if _named_secret(f"{of} {k}", str(k)) else without_secrets(v, of=str(k))
            for k, v in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secrets(v, of=of) for v in value]
    return _SHAPES.sub(HIDDEN, value) if isinstance(value, str) else value


def last_part(value: Any) -> Any:
    """A path on somebody's machine is nobody else's business: its last part. Anything else stays as it is."""
    if isinstance(value, str) and (value.startswith(("/", "~", "./", "../")) or re.match(r"[A-Za-z]:[\\/]", value)):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _hide(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else HIDDEN


def _named_secret(path: str, key: str) -> bool:
    own, parts = _words(key), _words(path)
    if not own:
        return False
    if _ALWAYS & set(own):
        return True
    before = parts[-2] if len(parts) > 1 else ""
    if own[-1] in ("key", "keys"):
        return before in _BEFORE_KEY
    return own[-1] == "token" and before not in _VOCABULARY


def _words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", spaced.replace("_", " ")) if w]
