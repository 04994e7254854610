"""Show which tokens are trained on: as pieces of text, and in colour on a terminal."""

from __future__ import annotations

import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING, Any

from boresight.data.tokens import Tokens

if TYPE_CHECKING:
    from rich.text import Text

LEGEND = "bold green: trained on; dim: context only; ⟨…⟩: special tokens; · ↵ ⇥: white space; \\u…: invisible"


def explain(tokens: Tokens, tokenizer: Any) -> list[tuple[str, bool]]:
    """The sequence cut into (text, trained) pieces, one for each token.

    Tokens that are bytes of one character make one piece together; it counts as trained if the last of them is.
    """
    return [(text, trained) for text, trained, _ in _pieces(tokens, tokenizer)]


def paint(tokens: Tokens, tokenizer: Any, *, title: str = "") -> Text:
    """The sequence as coloured text: trained in bold green, context dim, nothing invisible.

    The data's text is shown as it is and never read as markup; control and format characters are shown as escapes.
    """
    from rich.text import Text

    text = Text(overflow="fold")
    if title:
        text.append(escape(title) + "\n", style="bold")
    styled = (
        (f"⟨{escape(p)}⟩" if special else visible(p), "bold green" if trained else "dim italic" if special else "dim")
        for p, trained, special in _pieces(tokens, tokenizer)
    )
    for style, run in groupby(styled, key=lambda part: part[1]):
        text.append("".join(shown for shown, _ in run), style=style)
    if not tokens.ends:
        text.append(" [no end-of-turn: this answer is not finished]", style="bold yellow")
    return text


def visible(text: str) -> str:
    """Escaped, with marks for white space; a line break stays one, behind its mark."""
    return "".join({" ": "·", "\n": "↵\n", "\t": "⇥\t"}.get(c, c) for c in escape(text, keep="\n\t"))


def escape(text: str, keep: str = "") -> str:
    """Control, format, surrogate and private characters as \\x.., \\u.... or \\U........; `keep` as they are."""
    return "".join(c if c in keep or not _hidden(c) else c.encode("unicode_escape").decode() for c in text)


def _hidden(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or (c.isspace() and c != " ")


def _pieces(tokens: Tokens, tokenizer: Any) -> list[tuple[str, bool, bool]]:
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special} | set(tokenizer.all_special_ids)
    pieces: list[tuple[str, bool, bool]] = []
    held: list[int] = []
    before: list[int] = []  # decoded along, since many decoders treat the beginning of a text apart

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    ids, mask = tokens.ids.tolist(), tokens.mask.tolist()
    for place, (token, trained) in enumerate(zip(ids, mask, strict=True)):
        if token in special:
            pieces.append((str(tokenizer.convert_ids_to_tokens(token)), trained, True))
            before = []
            continue
        held.append(token)
        text = decode(before + held)[len(decode(before)) :] if before else decode(held)
        following = ids[place + 1] if place + 1 < len(ids) else None
        if text.endswith("\ufffd") and len(held) < 4 and following is not None and following not in special:
            continue  # not yet a whole character
        pieces.append((text, trained, False))
        before, held = held, []
    return pieces
