"""What a renderer does, found out on a small conversation and said in words."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from boresight.data.spans import Chat

if TYPE_CHECKING:
    from boresight.data.render import Renderer


def describe(renderer: Renderer) -> dict[str, Any]:
    """Template, special tokens, options, how answers are found and how they end, and notes on what is unusual."""
    tokenizer, template = renderer.tokenizer, renderer.template
    chat = isinstance(template, Chat)
    result: dict[str, Any] = {
        "template": template.name,
        "tokenizer": str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
        "vocabulary": len(tokenizer),
        "bos": _named(tokenizer, tokenizer.bos_token_id),
        "eos": _named(tokenizer, tokenizer.eos_token_id),
        "pad": _named(tokenizer, tokenizer.pad_token_id),
        "spans": sorted(renderer.spans) if isinstance(renderer.spans, frozenset) else renderer.spans,
        "spans_found_by": _found_by(template),
        "max_length": renderer.max_length,
        "truncation": renderer.truncation,
        "identity": renderer.identity,
    }
    notes = []
    plain = copy(renderer)
    plain.spans, plain.max_length = "last", None
    sample = plain.group("Hello?", ["Good day."])[0]
    tokens = getattr(sample, "tokens", None)
    if tokens is None:
        notes.append(f"a conversation of one question and one answer cannot be rendered: {sample.detail}")  # type: ignore[union-attr]
    else:
        whole = renderer.template.render("Hello?", "Good day.", "last")
        result["end_of_turn"] = _named(tokenizer, int(tokens.ids[-1])) if tokens.ends else None
        result["end_of_turn_from"] = "the template" if whole.closed else "appended" if tokens.ends else "nowhere"
        result["bos_count"] = sample.bos  # type: ignore[union-attr]
        result["prompt_is_prefix"] = whole.in_context
        if chat and not whole.closed and tokens.ends:
            notes.append("the chat template writes no end-of-turn behind the last answer: the EOS is appended once")
        if not whole.closed and tokenizer.eos_token_id is None:
            notes.append("the tokenizer has no EOS: nothing teaches the model to stop")
        if not whole.in_context:
            notes.append(
                "what generation starts from is not a prefix of what is trained on (the generation prompt adds text "
                "that the conversation drops): training and inference see different contexts"
            )
        if chat and renderer._prefix and sample.bos == 0:  # type: ignore[union-attr]
            notes.append("the chat template writes no BOS, though the tokenizer puts one before plain text")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        notes.append("pad is the same token as EOS: masks come from positions here, so the EOS is still trained on")
    if isinstance(template, Chat) and "strftime_now" in template.source:
        notes.append("the chat template writes today's date: rows made on another day differ")
    return result | {"notes": notes}


def _found_by(template: Any) -> str:
    if not isinstance(template, Chat):
        return "concatenation"
    return "generation marks" if template.marked else "rendering again with another answer"


def _named(tokenizer: Any, token: int | None) -> dict[str, Any] | None:
    return None if token is None else {"token": tokenizer.convert_ids_to_tokens(token), "id": token}
