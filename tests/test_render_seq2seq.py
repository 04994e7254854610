"""Rendering for models with an encoder and a decoder: what transformers' own call with labels would be given."""

from __future__ import annotations

import numpy as np
import pytest

from boresight.data.example import Message
from boresight.data.render import Dropped, Encoded, Renderer
from boresight.errors import InputError
from boresight.lab.tiny import SPECIAL, word_tokenizer

PAD, UNKNOWN, BEGIN, END, START = range(len(SPECIAL))
ARCHS = ("t5", "bart")
TALK = (Message("user", "sort fox bear"), Message("assistant", "bear , fox ."), Message("user", "list cat"))


def renderer(arch: str = "t5", **options) -> Renderer:
    return Renderer(word_tokenizer(arch), encoder_decoder=True, **options)


def words(arch: str, text: str) -> list[int]:
    """The ids of the words, one for one, looked up in the vocabulary."""
    vocabulary = word_tokenizer(arch).get_vocab()
    return [vocabulary.get(w, UNKNOWN) for w in text.split()]


def one(made: list[Encoded | Dropped]) -> Encoded:
    (found,) = made
    assert isinstance(found, Encoded), found
    return found


@pytest.mark.parametrize("arch", ARCHS)
def test_both_sides_with_the_tokenizers_own_special_tokens(arch):
    made = one(renderer(arch).group("sort fox bear", ["bear , fox ."]))
    begin = [BEGIN] if arch == "bart" else []
    prompt, answer = [*begin, *words(arch, "sort fox bear"), END], [*begin, *words(arch, "bear , fox ."), END]
    assert made.tokens.ids.tolist() == prompt + answer
    assert made.tokens.mask.tolist() == [False] * len(prompt) + [True] * len(answer)
    assert made.tokens.ends
    assert made.prompt_length == len(prompt)
    assert renderer(arch).prompt_ids("sort fox bear").tolist() == prompt
    tokenizer = word_tokenizer(arch)
    assert prompt == tokenizer("sort fox bear")["input_ids"]
    assert answer == tokenizer(text_target="bear , fox .")["input_ids"]


def test_a_tokenizer_that_adds_nothing_still_gets_an_end_behind_the_response():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = None
    bare = Renderer(tokenizer, encoder_decoder=True)
    made = one(bare.group("sort fox", ["fox"]))
    assert made.tokens.ids.tolist() == [*words("t5", "sort fox"), *words("t5", "fox"), END]
    assert made.tokens.mask.tolist() == [False, False, True, True]
    empty = one(bare.group("", ["fox"]))  # an encoder reads one token at least
    assert empty.tokens.ids.tolist() == [END, *words("t5", "fox"), END]
    assert empty.prompt_length == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_an_end_in_the_answers_own_text_is_not_doubled(arch):
    made = one(renderer(arch).group("sort fox", ["fox <|end|>"]))
    assert made.tokens.ids[made.tokens.mask].tolist()[-2:] == [*words(arch, "fox"), END]
    assert made.special_text


@pytest.mark.parametrize("arch", ARCHS)
def test_one_message_is_its_text_and_several_are_a_transcript(arch):
    made, text = renderer(arch), one(renderer(arch).group("list cat", ["cat ."]))
    single = one(made.group((Message("user", "list cat"),), [(Message("assistant", "cat ."),)]))
    assert np.array_equal(single.tokens.ids, text.tokens.ids)
    transcript = "\n\nHuman: sort fox bear\n\nAssistant: bear , fox .\n\nHuman: list cat\n\nAssistant:"
    tokenizer = word_tokenizer(arch)
    whole = one(made.group(TALK, ["cat ."]))
    assert whole.tokens.ids[: whole.prompt_length].tolist() == tokenizer(transcript)["input_ids"]
    assert whole.tokens.ids[whole.prompt_length :].tolist() == tokenizer("cat .")["input_ids"]


def test_a_chat_template_is_used_where_there_is_one():
    chat = Renderer(word_tokenizer(), encoder_decoder=True)
    whole, usual = (r.group("sort fox", ["fox"])[0] for r in (chat, Renderer(word_tokenizer())))
    assert np.array_equal(whole.tokens.ids, usual.tokens.ids)
    assert np.array_equal(whole.tokens.mask, usual.tokens.mask)


def test_a_decoder_answers_once():
    answers = (Message("assistant", "fox"), Message("user", "and"), Message("assistant", "bear"))
    for made in (renderer(), Renderer(word_tokenizer(), encoder_decoder=True)):
        (dropped,) = made.group("sort fox", [answers])
        assert isinstance(dropped, Dropped)
        assert dropped.reason == "no-such-turn"
    for spans in ("all", {1, -1}):
        with pytest.raises(InputError, match="answers once"):
            renderer(spans=spans)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("response", ["", "  ", "<|end|>", "<|begin|> <|end|>"])
def test_a_response_without_a_word_is_left_out(arch, response):
    (dropped,) = renderer(arch).group("sort fox", [response])
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "empty-response"


def test_a_cut_prompt_keeps_its_begin_and_its_end():
    prompt, answers = "sort fox bear cat dog", ["fox .", "bear , fox ."]
    short, long = renderer("bart", max_length=11, truncation="cut-prompt").group(prompt, answers)
    # <begin> 5 words <end> and <begin> 4 words <end>: 13 tokens, so two words of the prompt go, for both alike
    for made, answer in ((short, answers[0]), (long, answers[1])):
        kept = [BEGIN, *words("bart", "bear cat dog"), END]
        assert made.tokens.ids.tolist() == [*kept, BEGIN, *words("bart", answer), END]
        assert made.prompt_length == 5
        assert made.cut_prompt == 2
    (both,) = renderer("t5", max_length=4, truncation="cut-both").group(prompt, [answers[1]])
    assert both.tokens.ids.tolist() == [*words("t5", "dog"), END, *words("t5", "bear ,")]
    assert not both.tokens.ends


@pytest.mark.parametrize("arch", ARCHS)
def test_steps_are_the_lines_of_the_response(arch):
    (made,) = renderer(arch).group("sort fox bear", ["bear , fox\n\nfox .\ncat"])
    begin = [0] if arch == "bart" else []
    assert made.steps().tolist() == [*begin, 0, 0, 0, 1, 1, 2, 2]  # the end belongs to the last


def test_rows_of_the_two_kinds_of_model_are_kept_apart():
    tokenizer = word_tokenizer("t5")
    assert Renderer(tokenizer).identity != Renderer(tokenizer, encoder_decoder=True).identity


def test_it_says_what_it_does():
    told = renderer().describe()
    assert told["template"] == "encoder and decoder"
    assert told["end_of_turn"]["id"] == END
    assert not told["notes"]
