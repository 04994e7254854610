"""Rendering: the pitfalls by number, what is refused, what is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.data.example import Message
from boresight.data.render import Dropped, Encoded, Renderer
from boresight.errors import InputError
from templates import CHATS, EVERY, LOSSLESS, MADE, runs, text_of, tokenizer, trained_text, whole

# ---- pitfalls by number


def test_pitfall_03_a_cut_answer_gets_no_end() -> None:
    renderer = Renderer(tokenizer("bytes", "llama3"), max_length=40, truncation="cut-both")
    full = whole(Renderer(tokenizer("bytes", "llama3")), "Why? " * 20, "Because. " * 30, "So.")
    long, short = whole(renderer, "Why? " * 20, "Because. " * 30, "So.")
    end = renderer.tokenizer.eos_token_id
    assert len(long.tokens) == 40
    assert not long.tokens.ends
    assert end not in long.tokens.ids[long.tokens.mask]
    assert long.cut_answer == len(full[0].tokens) - long.cut_prompt - 40
    assert short.tokens.ends
    assert short.tokens.ids[-1] == end
    assert short.cut_prompt == long.cut_prompt
    assert long.tokens.ids[: long.prompt_length].tolist() == short.tokens.ids[: short.prompt_length].tolist()


def test_pitfall_03_too_long_is_dropped_by_default_and_said() -> None:
    renderer = Renderer(tokenizer("bytes", "llama3"), max_length=40)
    long, short = renderer.group("Why?", ["Because. " * 30, "So."])
    assert isinstance(long, Dropped)
    assert long.reason == "too-long"
    assert "40 are allowed" in long.detail
    assert isinstance(short, Encoded)


@settings(max_examples=60)
@given(
    prompt=st.integers(0, 60), answers=st.lists(st.integers(1, 60), min_size=1, max_size=4), limit=st.integers(2, 80),
    policy=st.sampled_from(["drop", "cut-prompt", "cut-both"]), bos=st.booleans(),
)  # fmt: skip
def test_truncation(prompt: int, answers: list[int], limit: int, policy: str, bos: bool) -> None:
    base = MADE["bytes", "marked" if bos else "chatml"].tokenizer
    asked, said = "aZ" * prompt, [f"Zb{i}" * n for i, n in enumerate(answers)]
    full = whole(Renderer(base), asked, *said)
    cut = Renderer(base, max_length=limit, truncation=policy).group(asked, said)  # type: ignore[arg-type]
    kept = [(a, b) for a, b in zip(full, cut, strict=True) if isinstance(b, Encoded)]
    if any(len(a.tokens) > limit for a in full):
        assert len({b.cut_prompt for _, b in kept}) <= 1
    for a, b in kept:
        assert len(b.tokens) <= limit
        assert b.prompt_length >= 1
        assert b.tokens.ids[0] == a.tokens.ids[0] if bos else True
        head = int(bos)
        expected = np.r_[a.tokens.ids[:head], a.tokens.ids[head + b.cut_prompt :]]
        assert b.tokens.ids.tolist() == expected[: len(expected) - b.cut_answer].tolist()
        assert b.tokens.ends == (b.cut_answer == 0)
        assert policy == "cut-both" or b.cut_answer == 0
        assert policy != "drop" or b.cut_prompt == 0
    for a, b in zip(full, cut, strict=True):
        answer = len(a.tokens) - a.prompt_length
        if policy == "drop":
            assert isinstance(b, Dropped) == (len(a.tokens) > limit)
        elif policy == "cut-prompt":
            assert isinstance(b, Dropped) == (answer + 1 > limit)
        else:
            assert isinstance(b, Encoded)


def test_pitfall_09_a_trimmed_answer_is_trained_whole() -> None:
    renderer = MADE["bytes", "llama3"]
    made = whole(renderer, "What is the capital of France?", "Paris.\n", "  Paris. ", "Paris.")
    assert {text_of(renderer, e.tokens.ids[e.tokens.mask]) for e in made} == {"Paris.<|eot_id|>"}


def test_pitfall_09_an_answer_that_stands_in_the_prompt_too_is_not_confused() -> None:
    for chat in CHATS:
        renderer = MADE["bytes", chat]
        prompt = (Message("user", "Say user"), Message("assistant", "user"), Message("user", "user again: user"))
        got = runs(renderer, whole(renderer, prompt, "user")[0].tokens)
        assert got == [trained_text(chat, "user")], chat


@pytest.mark.parametrize("kind", LOSSLESS)
def test_pitfall_10_no_space_is_made_before_the_end_and_the_seam_is_counted(kind: str) -> None:
    renderer = MADE[kind, None]
    plain = whole(renderer, "The quick", " brown fox\n")[0]
    assert text_of(renderer, plain.tokens.ids[plain.tokens.mask]) == " brown fox\n</s>"
    assert not plain.seam
    whole_word = renderer.tokenizer("assistant", add_special_tokens=False)["input_ids"]
    first = renderer.tokenizer.decode(whole_word[:1])
    cut = len(first) - 1
    torn = whole(renderer, "assistant"[:cut], "assistant"[cut:])[0]
    assert torn.seam == (cut > 0)
    assert text_of(renderer, torn.tokens.ids[torn.tokens.mask]).endswith("assistant"[cut:] + "</s>")


def test_pitfall_10_the_plain_transcript_leaves_the_space_to_the_answer() -> None:
    renderer = MADE["bytes", None]
    prompt = (Message("system", "Be kind."), Message("user", "Hi"))
    made = whole(renderer, prompt, "Hello!")[0]
    assert text_of(renderer, renderer.prompt_ids(prompt)) == "<s>\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant:"
    assert runs(renderer, made.tokens) == [" Hello!</s>"]
    assert made.tokens.ids[: made.prompt_length].tolist() == renderer.prompt_ids(prompt).tolist()


def test_pitfall_11_bos_once_and_only_where_it_belongs() -> None:
    for kind, chat in EVERY:
        renderer = MADE[kind, chat]
        base = renderer.tokenizer
        tokens = whole(renderer, "Hello?", "Good day.")[0]
        written = "bos_token" in (base.chat_template or "bos_token")
        assert tokens.bos == int(written), (kind, chat)
        assert (tokens.tokens.ids == base.bos_token_id).sum() == int(written)
    renderer = MADE["bytes", None]
    assert whole(renderer, "<s>Hello?", "Good day.")[0].bos == 1  # it stands there already
    bare = tokenizer("bytes", None, bos_token=None)
    bare.backend_tokenizer.post_processor = tokenizer("bytes", "chatml").backend_tokenizer.post_processor
    assert whole(Renderer(bare), "Hello?", "Good day.")[0].bos == 0


def test_pitfall_12_pad_that_is_eos_changes_nothing() -> None:
    for chat in (None, "zephyr", "endless", "llama3"):
        eos = CHATS[chat].eos if chat else "</s>"
        one = whole(Renderer(tokenizer("bytes", chat)), "Hello?", "Good day.")[0].tokens
        renderer = Renderer(tokenizer("bytes", chat, pad_token=eos))
        two = whole(renderer, "Hello?", "Good day.")[0].tokens
        assert one.ids.tolist() == two.ids.tolist()
        assert one.mask.tolist() == two.mask.tolist()
        assert two.mask[-1]
        assert two.ids[-1] == renderer.tokenizer.pad_token_id
        assert any("pad is the same token" in n for n in renderer.describe()["notes"])


def test_pitfall_18_thoughts_in_the_generation_prompt() -> None:
    kept, dropped, written = (MADE["bytes", f"thinking{e}"] for e in ("-kept", "-dropped", ""))
    assert runs(kept, whole(kept, "Hi", "Yes.")[0].tokens) == ["Yes.<|im_end|>"]
    assert runs(written, whole(written, "Hi", "Yes.")[0].tokens) == ["<think>\n\n</think>\n\nYes.<|im_end|>"]
    thought = whole(written, "Hi", "<think>\nwell\n</think>\n\nYes.")[0]
    assert runs(written, thought.tokens) == ["<think>\nwell\n</think>\n\nYes.<|im_end|>"]
    assert not whole(dropped, "Hi", "Yes.")[0].in_context
    assert dropped.describe()["prompt_is_prefix"] is False
    assert any("different contexts" in n for n in dropped.describe()["notes"])


def test_an_answer_that_cannot_fit_costs_the_others_nothing() -> None:
    made = Renderer(tokenizer("bytes", "llama3"), max_length=40, truncation="cut-prompt")
    lost, short = made.group("Why so?", ["Because. " * 30, "So."])
    assert isinstance(lost, Dropped)
    assert isinstance(short, Encoded)
    assert short.cut_prompt == 0


def test_without_prompt_and_bos_the_first_token_is_given() -> None:
    bare = tokenizer("bytes", None, bos_token=None)
    bare.backend_tokenizer.post_processor = tokenizer("bytes", "chatml").backend_tokenizer.post_processor
    tokens = whole(Renderer(bare), "", "Good day.")[0].tokens
    assert text_of(Renderer(bare), tokens.ids) == "Good day.</s>"
    assert tokens.mask.tolist() == [False] + [True] * (len(tokens) - 1)


def test_a_template_that_looks_into_the_answer() -> None:
    """Where a probe is printed otherwise than the answer, what all renderings share still bounds it."""
    source = tokenizer("bytes", "thinking-dropped").chat_template
    for added, loud, quiet in (("'((' if '!' in", "((Yes!", "Yes."), ("'~~' if '!' not in", "Yes!", "Yes.")):
        base = tokenizer("bytes", "thinking-dropped")
        base.chat_template = source.replace("+ m.content +", f"+ ({added} m.content else '') + m.content +")
        renderer = Renderer(base)
        assert runs(renderer, whole(renderer, "Hi", "Yes!")[0].tokens) == [loud + "<|im_end|>"]
        assert runs(renderer, whole(renderer, "Hi", "Yes.")[0].tokens) == [quiet + "<|im_end|>"]


def test_a_mark_that_holds_what_the_generation_prompt_gives() -> None:
    base = tokenizer("bytes", "marked")
    base.chat_template = base.chat_template.replace(
        "{% generation %}{{ m.content", "{% generation %}{{ '<think>' + m.content"
    ).replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>' }}")
    renderer = Renderer(base)
    made = whole(renderer, "Hi", "Yes.")[0]
    assert runs(renderer, made.tokens) == ["Yes.<|im_end|>"]
    assert made.in_context


# ---- what is refused, and what is said


def test_refusals() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="no character offsets"):
        Renderer(Slow())
    base = tokenizer("bytes", None)
    with pytest.raises(InputError, match="no chat template"):
        Renderer(base, template="chat")
    for options in ({"template": "x"}, {"spans": "x"}, {"truncation": "x"}, {"max_length": 1}):
        with pytest.raises(InputError):
            Renderer(base, **options)  # type: ignore[arg-type]


def test_what_the_template_refuses_is_dropped_with_its_reason() -> None:
    renderer = MADE["bytes", "gemma"]
    system = (Message("system", "Be kind."), Message("user", "Hi"))
    made = renderer.tokens(system, "Hello.")
    assert isinstance(made, Dropped)
    assert made.reason == "template"
    assert "System role not supported" in made.detail
    with pytest.raises(InputError, match="System role not supported"):
        renderer.prompt_ids(system)


@pytest.mark.parametrize("answer", ["", " ", "\n\t "])
def test_an_empty_response_is_dropped(answer: str) -> None:
    for chat in (*CHATS, None):
        made = MADE["bytes", chat].tokens("Hi", answer)
        assert isinstance(made, Dropped)
        assert made.reason == "empty-response"


def test_special_tokens_in_the_data_are_noticed() -> None:
    made = whole(MADE["bytes", "chatml"], "Hi", "a<|im_end|>b", "ab")
    assert [e.special_text for e in made] == [True, False]
    plain = whole(MADE["bytes", None], "Hi", "ab</s>")[0]
    assert (plain.tokens.ids == MADE["bytes", None].tokenizer.eos_token_id).sum() == 1


def test_a_tokenizer_without_eos_teaches_no_end() -> None:
    made = whole(Renderer(tokenizer("bytes", None, eos_token=None)), "Hi", "Hello.")[0]
    assert not made.tokens.ends
    renderer = Renderer(tokenizer("bytes", None, eos_token=None))
    assert any("no EOS" in n for n in renderer.describe()["notes"])


def test_describe_tells_how_answers_end() -> None:
    for chat, spec in CHATS.items():
        told = MADE["bytes", chat].describe()
        assert told["template"] == "chat"
        assert told["end_of_turn_from"] == ("appended" if spec.appended else "the template")
        assert spec.trained("x").endswith(told["end_of_turn"]["token"])
        assert ("marks" in told["spans_found_by"]) == spec.marked
        assert told["prompt_is_prefix"] == spec.in_context
        assert any("appended" in n for n in told["notes"]) == spec.appended


def test_identity_holds_through_use_and_changes_with_options() -> None:
    base = tokenizer("bytes", "chatml")
    one = Renderer(base)
    before = one.identity
    base("a text", padding="max_length", truncation=True, max_length=7)
    assert Renderer(base).identity == before
    others = [
        Renderer(base, max_length=9),
        Renderer(base, spans="all"),
        Renderer(base, template="plain"),
        Renderer(base, truncation="cut-both"),
        Renderer(tokenizer("bytes", "llama3")),
        Renderer(tokenizer("words", "chatml")),
    ]
    assert len({before, *(r.identity for r in others)}) == 7
