"""Tokenizers and configurations from a folder or a hub. Code that comes with one is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boresight.data.hub import hub
from boresight.data.trust import check_settings
from boresight.errors import BoresightError, InputError

WHERE = "give a folder written by save_pretrained, or a hub name that can be reached from here"
CODE = "Boresight runs no code that comes with a model: take one of a kind that transformers itself knows"


def load_tokenizer(name: str) -> Any:
    """The tokenizer saved with a model. Raises InputError if there is none that can be used, or its template cannot."""
    from jinja2 import TemplateSyntaxError
    from transformers import AutoTokenizer

    check_settings(name)
    tokenizer = loaded(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    try:
        if tokenizer.chat_template:
            tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise InputError(
            f"the chat template at {name} is broken, line {error.lineno}: {error.message}", mend="mend it there"
        ) from None
    except Exception:  # it may refuse this conversation, or need more than it: rows are counted that it refuses
        return tokenizer
    return tokenizer


def load_config(name: str) -> Any:
    """The configuration saved with a model. Raises InputError if there is none that can be used."""
    from transformers import AutoConfig

    check_settings(name)
    return loaded(name, "model", lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))


def is_encoder_decoder(name: str) -> bool:
    """Whether the model saved at `name`, or under the adapter there, has an encoder and a decoder.

    False where nothing says so, as in a folder that holds a tokenizer alone.
    """
    folder, adapter = Path(name), Path(name) / "adapter_config.json"
    try:
        if adapter.is_file():
            return bool(json.loads(adapter.read_text(encoding="utf-8")).get("task_type") == "SEQ_2_SEQ_LM")
        if folder.is_dir() and not (folder / "config.json").is_file():
            return False
        return bool(getattr(load_config(name), "is_encoder_decoder", False))
    except (InputError, OSError, ValueError, AttributeError):
        return False


def loaded(name: str, what: str, load: Any) -> Any:
    """What `load()` takes from a folder or the hub under this name; `what` says in words what that is.

    Raises InputError, whatever the many libraries behind it raise: the user can only mend the name or the folder.
    """
    try:
        if Path(name).exists():
            return load()
        with hub() as silent:
            return load()
    except BoresightError:
        raise
    except Exception as error:
        why = first_line(error)
        if why.startswith("Weights only load failed"):  # and torch advises to unpickle it all the same
            what = f"{name} holds pickled weights with more than tensors in them, which are not unpickled"
            raise InputError(what, mend="do not use it: this may be an attack; or ask for safetensors") from None
        if "custom code" in why or "trust_remote_code" in why:
            raise InputError(f"the {what} at {name} needs code of its own, which is not run", mend=CODE) from None
        if not Path(name).exists() and silent:
            raise InputError(f"no {what} at {name}: no such folder, and {silent}", mend=WHERE) from None
        raise InputError(f"no usable {what} at {name}: {why}", mend=WHERE) from None


def first_line(error: BaseException) -> str:
    """The beginning of what an error says, or its name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]
