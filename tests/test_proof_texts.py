"""The proof's lines on rows, over every template and tokenizer: silent where all is well, loud where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from boresight.data.example import Example, Message, Pair, Response
from boresight.data.render import Encoded, Renderer
from boresight.data.tokens import Row, Tokens
from boresight.engine.proof_texts import Text, begin_line, end_line, mask_line, texts
from templates import CHATS, EVERY, MADE, tokenizer

KINDS = {"kind": "pairs", "labelled": False, "ranked": "all"}
SAID = [
    ("What is the capital of France?", "Paris.", "I do not know; ask Wikipedia."),
    ("the cat", " sat on the mat", "sat"),
    ("Tell me\n\n", "\n yes  \n", "no\tno"),
    ("naïve café 漢字 🙂", "👩‍👩‍👧 привет", "שלום\u200b מرحبا"),
    ("a", "a", "b"),
    ("Say the same", "Say the same", "Say the same again, please go on. " * 9),
]
TURNS = (Message("user", "Hello?"), Message("assistant", "Good day."), Message("user", "Go on."))


def examples() -> list[Example]:
    single = [Example(p, (Response(c), Response(r)), (Pair(0, 1),)) for p, c, r in SAID]
    return [*single, Example(TURNS, (Response("Thank you."), Response("no")), (Pair(0, 1),))]


def made(renderer: Renderer) -> list[Text]:
    rows, kept = [], []
    for example in examples():
        group = renderer.group(example.prompt, list(example.responses))
        if all(isinstance(e, Encoded) for e in group):
            rows.append(Row(tuple(e.tokens for e in group), source=f"row {len(rows)}"))
            kept.append(example)
    assert rows
    return texts(rows, kept, renderer, **KINDS)


def ends_of(renderer: Renderer) -> list[int]:
    described = renderer.describe()["end_of_turn"]
    return sorted({renderer.tokenizer.eos_token_id} | ({described["id"]} if described else set()))


def altered(seen: list[Text], change: Callable[[Tokens], Tokens]) -> list[Text]:
    return [Text(change(t.tokens), t.prompt, t.response, t.source, t.same, t.alike) for t in seen]


def shifted(by: int) -> Callable[[Tokens], Tokens]:
    def change(t: Tokens) -> Tokens:
        mask = np.roll(t.mask, by)
        mask[:1] = False
        return Tokens(t.ids, mask, t.ends)

    return change


@pytest.mark.parametrize(("kind", "chat"), EVERY)
def test_nothing_is_said_against_good_rows(kind, chat):
    renderer = MADE[kind, chat]
    seen = made(renderer)
    assert all(t.same for t in seen)
    for line in (mask_line(seen, renderer), end_line(seen, ends_of(renderer)), begin_line(seen, renderer)):
        assert line.verdict == "holds", line


@pytest.mark.parametrize("spans", ["last", "all", (-1,)])
@pytest.mark.parametrize("truncation", ["drop", "cut-prompt", "cut-both"])
@pytest.mark.parametrize("chat", [*CHATS, None])
def test_nor_against_other_turns_and_cut_ones(spans, truncation, chat):
    for limit in (None, 60, 24):
        renderer = Renderer(tokenizer("bytes", chat), spans=spans, max_length=limit, truncation=truncation)
        try:
            seen = made(renderer)
        except AssertionError:
            continue
        for line in (mask_line(seen, renderer), end_line(seen, ends_of(renderer)), begin_line(seen, renderer)):
            assert line.verdict == "holds", (limit, line)


@pytest.mark.parametrize(("kind", "chat"), EVERY)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_shifted_mask_is_seen(kind, chat, by):
    renderer = MADE[kind, chat]
    line = mask_line(altered(made(renderer), shifted(by)), renderer)
    assert line.verdict == "fails"
    assert line.residual >= 1


@pytest.mark.parametrize(("kind", "chat"), EVERY)
def test_a_missing_end_and_a_second_one_are_seen(kind, chat):
    renderer = MADE[kind, chat]
    seen, ends = made(renderer), ends_of(renderer)
    cut = altered(seen, lambda t: Tokens(t.ids[:-1], t.mask[:-1], t.ends))
    twice = altered(seen, lambda t: Tokens(np.append(t.ids, ends[0]).astype(np.int32), np.append(t.mask, True), t.ends))
    assert "missing" in end_line(cut, ends).words
    assert "more than once" in end_line(twice, ends).words


@pytest.mark.parametrize(("kind", "chat"), [(k, c) for k, c in EVERY if MADE[k, c].tokenizer.bos_token_id is not None])
def test_a_second_bos_is_seen(kind, chat):
    renderer = MADE[kind, chat]
    bos = renderer.tokenizer.bos_token_id
    more = altered(
        made(renderer), lambda t: Tokens(np.r_[bos, bos, t.ids].astype(np.int32), np.r_[False, False, t.mask], t.ends)
    )
    assert begin_line(more, renderer).verdict == "fails"


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("limit", range(20, 90))
def test_a_cut_never_leaves_two_bos_where_the_template_writes_one_before_every_turn(kind, limit):
    """Found on hh-helpful: the cut fell between two turns, and the BOS that was kept stood before the next one's."""
    long = (Message("user", "Hello? " * 4), Message("assistant", "Good day. " * 4), Message("user", "Go on."))
    example = Example(long, (Response("Thank you."), Response("no, thank you")), (Pair(0, 1),))
    renderer = Renderer(tokenizer(kind, "llama2"), max_length=limit, truncation="cut-prompt")
    group = renderer.group(example.prompt, list(example.responses))
    if not all(isinstance(e, Encoded) for e in group):
        return
    whole = Renderer(tokenizer(kind, "llama2")).group(example.prompt, list(example.responses))
    seen = texts([Row(tuple(e.tokens for e in group))], [example], renderer, **KINDS)
    assert begin_line(seen, renderer).residual == 1
    assert mask_line(seen, renderer).verdict == "holds"
    for cut, full in zip(group, whole, strict=True):
        assert len(cut.tokens) <= limit or len(full.tokens) <= limit
        assert cut.prompt_length == int(cut.tokens.mask.argmax())
        assert np.array_equal(cut.tokens.ids[cut.tokens.mask], full.tokens.ids[full.tokens.mask])


def test_rows_that_hold_a_special_token_s_text_are_told_apart():
    """Found on llmfao-arena: a response that ends in "</s>" is a fault of the data, counted and left to the check."""
    renderer = MADE["bytes", "marked"]
    example = Example("a", (Response("b</s>"), Response("c")), (Pair(0, 1),))
    group = renderer.group(example.prompt, list(example.responses))
    seen = texts([Row(tuple(e.tokens for e in group))], [example], renderer, **KINDS)
    line = end_line(seen, ends_of(renderer))
    assert line.verdict == "holds"
    assert "1 hold the text of a special token" in line.words
