"""Small tokenizers trained here and now, and chat templates in the manner of the common ones, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from boresight.data.render import Encoded, Renderer

SPECIAL = [
    "<unk>", "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|user|>",
    "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>",
]  # fmt: skip

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? Paris. Hello, world!\n",
    "system user assistant model Human: Assistant: Tool: System: [INST] [/INST] <think> </think> yes no maybe\n\n",
    "One two three four five; the answer is 42.\n\nGood day to you, and thank you for the fish.  Please go on.\n",
    "Ünïcödé, 漢字, привет, שלום, مرحبا, 👩‍👩‍👧 🙂 - naïve café\t<tab>\n",
] * 3


@cache
def byte_level(trim_offsets: bool = False) -> str:
    """GPT-2, Qwen and Llama-3 are made like this (the last with trim_offsets)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return tokenizer.to_str()


@cache
def metaspace() -> str:
    """Llama-2 and Mistral are made like this: spaces become a visible mark, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tree = json.loads(tokenizer.to_str())
    vocab = tree["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    tree["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer.to_str()


@cache
def word_level() -> str:
    """One token a word, white space thrown away, most words unknown: what masks have to survive."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer.to_str()


TOKENIZERS: dict[str, Callable[[], str]] = {
    "bytes": byte_level,
    "bytes-trimmed": lambda: byte_level(True),
    "metaspace": metaspace,
    "words": word_level,
}
LOSSLESS = ("bytes", "bytes-trimmed")
"""Tokenizers whose decoding gives back every character."""


@dataclass(frozen=True)
class Chat:
    """A chat template, its special tokens, and what the trained text of an answer is under it."""

    source: str
    bos: str | None
    eos: str
    trained: Callable[[str], str]
    in_context: bool = True
    appended: bool = False
    marked: bool = False


_HEADERS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CHATS = {
    "chatml": Chat(_HEADERS, None, "<|im_end|>", lambda a: a + "<|im_end|>"),
    "llama3": Chat(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{{ m.content | trim }}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|begin_of_text|>",
        "<|eot_id|>",
        lambda a: a.strip() + "<|eot_id|>",
    ),
    "llama2": Chat(
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
        "<s>",
        "</s>",
        lambda a: " " + a.strip() + " </s>",
    ),
    "gemma": Chat(
        "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<bos>",
        "</s>",
        lambda a: a.strip() + "<end_of_turn>",
    ),
    # Earlier turns lose their thoughts, the last one always has a block of them: generation has to write it.
    "thinking": Chat(
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{% set thought = '' %}{% set said = m.content %}"
        "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
        "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>assistant\n' }}{% if loop.index0 > ns.last %}"
        "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said + '<|im_end|>\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        None,
        "<|im_end|>",
        lambda a: "<think>\n\n</think>\n\n" + a + "<|im_end|>",
    ),
    # The generation prompt opens a thought and the conversation keeps it: it is given, so it is not trained on.
    "thinking-kept": Chat(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}",
        None,
        "<|im_end|>",
        lambda a: a + "<|im_end|>",
    ),
    # The generation prompt opens a thought that the conversation drops: two contexts, which has to be said.
    "thinking-dropped": Chat(
        _HEADERS.replace("assistant\n'", "assistant\n<think>\n'"),
        None,
        "<|im_end|>",
        lambda a: a + "<|im_end|>",
        in_context=False,
    ),
    "zephyr": Chat(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        "<s>",
        "</s>",
        lambda a: a + "</s>",
    ),
    # A second special token closes the whole conversation: one end is enough, the first.
    "phi": Chat(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        "<s>",
        "<|endoftext|>",
        lambda a: a + "<|end|>",
    ),
    "marked": Chat(
        "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{{ '\n' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<s>",
        "<|im_end|>",
        lambda a: a + "<|im_end|>",
        marked=True,
    ),
    "marked-content": Chat(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content | trim }}{% endgeneration %}{{ '<|im_end|>\n' }}"
        "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        None,
        "<|im_end|>",
        lambda a: a.strip() + "<|im_end|>",
        marked=True,
    ),
    "endless": Chat(
        "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}",
        None,
        "</s>",
        lambda a: a + "</s>",
        appended=True,
    ),
}


def tokenizer(kind: str, chat: str | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of `TOKENIZERS` with a template of `CHATS` (or none, then with BOS before plain text)."""
    backend = Tokenizer.from_str(TOKENIZERS[kind]())
    given = CHATS.get(chat or "")
    bos, eos = (given.bos, given.eos) if given else ("<s>", "</s>")
    if bos:  # as the real ones do: BOS before plain text, on top of what trims the offsets
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
        backend.post_processor = (
            processors.Sequence([backend.post_processor, template]) if backend.post_processor else template
        )
    named = {"bos_token": bos, "eos_token": eos, "pad_token": "<pad>", "unk_token": "<unk>"} | options
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in named.items() if v})
    made.chat_template = given.source if given else None
    return made


EVERY = [(kind, chat) for kind in TOKENIZERS for chat in (*CHATS, None)]
MADE = {(kind, chat): Renderer(tokenizer(kind, chat)) for kind, chat in EVERY}


def trained_text(chat: str | None, answer: str) -> str:
    return CHATS[chat].trained(answer) if chat else answer + "</s>"


def whole(renderer: Renderer, prompt: object, *responses: object) -> list[Encoded]:
    made = renderer.group(prompt, responses)  # type: ignore[arg-type]
    assert all(isinstance(e, Encoded) for e in made), made
    return made  # type: ignore[return-value]


def text_of(renderer: Renderer, ids: object) -> str:
    return renderer.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def runs(renderer: Renderer, tokens: object) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    edges = np.flatnonzero(np.diff(np.r_[0, tokens.mask, 0]))  # type: ignore[attr-defined]
    return [text_of(renderer, tokens.ids[a:b]) for a, b in edges.reshape(-1, 2)]  # type: ignore[attr-defined]
