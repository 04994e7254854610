"""Small language models that are real `transformers` models, with a tokenizer and a template, saved as a folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from boresight.errors import InputError, nearest
from boresight.lab.words import VOCABULARY

BEGIN, END, START, PAD, UNKNOWN = "<|begin|>", "<|end|>", "<|start|>", "<|pad|>", "<|unknown|>"
SPECIAL = (PAD, UNKNOWN, BEGIN, END, START)
ROLES = ("system", "user", "assistant", "tool")

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% if messages %}{{ '\\n' }}{% endif %}<|start|>assistant\n{% endif %}"
)
"""`<|begin|><|start|>user\\nsort fox bear<|end|>\\n<|start|>assistant\\nbear , fox .<|end|>`; <|end|> is the EOS."""

ARCHITECTURES = ("llama", "qwen", "t5", "bart")
FRAMES = {"t5": "$A <|end|>", "bart": "<|begin|> $A <|end|>"}
"""Of models with an encoder and a decoder, what their tokenizers put around a text; they have no chat template."""
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 4},
    "small": {"hidden": 128, "layers": 4, "heads": 4},
}


def word_tokenizer(arch: str = "llama") -> Any:
    """One token for each word of the lab's language; decoding joins the words by single spaces.

    arch: of the model that it is for; with an encoder and a decoder it puts special tokens around every text.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *ROLES, *VOCABULARY)))}
    tokenizer = Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return _wrap(tokenizer, arch)


def byte_tokenizer(texts: Iterable[str], vocab: int, arch: str = "llama") -> Any:
    """A byte-level BPE of at most `vocab` tokens trained on the texts; any text survives encoding and decoding."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab < len(alphabet) + len(SPECIAL):
        raise InputError(
            f"vocab is {vocab}", mend=f"give at least {len(alphabet) + len(SPECIAL)}: every byte and the special tokens"
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer, arch)


def new_model(arch: str, vocab: int, *, hidden: int, layers: int, heads: int, seed: int = 0) -> Any:
    """A model with random weights that depend on the seed alone; token ids as in `SPECIAL`.

    llama: grouped-query attention and its own output matrix. qwen: the Qwen3 form, with normalised queries and keys
    and the output matrix tied to the embedding. t5: the form of T5 1.1, gated and with its own output matrix. bart:
    positions are learned, the output matrix is the embedding. `layers` of these are in the encoder and in the decoder.
    """
    import transformers as tf

    if arch not in ARCHITECTURES:
        raise InputError(f"architecture {arch!r} is not one that the lab builds", mend=nearest(arch, ARCHITECTURES))
    if hidden % heads or (hidden // heads) % 2:
        raise InputError(f"hidden is {hidden} and heads {heads}", mend="hidden / heads must be an even whole number")
    ids = {"pad_token_id": 0, "bos_token_id": SPECIAL.index(BEGIN), "eos_token_id": SPECIAL.index(END)}
    shape = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2 if heads % 2 == 0 else heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": 4096,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch == "llama":
            model = tf.LlamaForCausalLM(tf.LlamaConfig(**shape, **ids, tie_word_embeddings=False))
        elif arch == "qwen":
            model = tf.Qwen3ForCausalLM(tf.Qwen3Config(**shape, **ids, tie_word_embeddings=True))
        else:
            model = _seq2seq(arch, shape, ids)
    model.generation_config = tf.GenerationConfig(**ids)
    return model.eval()


def _seq2seq(arch: str, shape: dict[str, int], ids: dict[str, int]) -> Any:
    import transformers as tf

    heads, layers, width = shape["num_attention_heads"], shape["num_hidden_layers"], shape["hidden_size"]
    if arch == "t5":
        ids["decoder_start_token_id"] = ids["pad_token_id"]
        config = tf.T5Config(
            vocab_size=shape["vocab_size"], d_model=width, d_kv=shape["head_dim"], d_ff=shape["intermediate_size"],
            num_layers=layers, num_heads=heads, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **ids,
        )  # fmt: skip
        model = tf.T5ForConditionalGeneration(config)
        model.lm_head.weight.data.mul_(width**-0.5)  # logits of order one, as those of the others
        return model
    ids["decoder_start_token_id"] = ids["eos_token_id"]
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", shape["intermediate_size"]))
    }
    config = tf.BartConfig(
        vocab_size=shape["vocab_size"], d_model=width, max_position_embeddings=1024, forced_eos_token_id=None,
        **sides, **ids,
    )  # fmt: skip
    return tf.BartForConditionalGeneration(config)


def make_model(
    texts: Iterable[str],
    path: str | Path,
    *,
    arch: str = "llama",
    vocab: int = 4096,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    seed: int = 0,
) -> Path:
    """Save an untrained model with a byte-level BPE trained on the texts, for real data. Returns the folder.

    The vocabulary is smaller than `vocab` where the texts hold fewer merges. Raises InputError if the folder exists
    and is not empty, or an option cannot be used.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already", mend="give a new folder, or remove that one")
    tokenizer = byte_tokenizer(texts, vocab, arch)
    model = new_model(arch, len(tokenizer), hidden=hidden, layers=layers, heads=heads, seed=seed)
    return save_aside(target, lambda folder: save(model, tokenizer, folder))


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer into one folder, as `from_pretrained` reads them."""
    with no_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars that transformers shows when it reads or writes a model of a few kilobytes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_aside(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder beside the target and rename it, so that the target is never half there.

    Where another process was faster, its folder is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    aside.mkdir()
    try:
        write(aside)
        try:
            os.replace(aside, target)
        except OSError:
            if not (target / "config.json").exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _wrap(tokenizer: Any, arch: str) -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if arch in FRAMES:
        special = [(token, SPECIAL.index(token)) for token in (BEGIN, END)]
        tokenizer.post_processor = TemplateProcessing(single=FRAMES[arch], special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[START],
        chat_template=None if arch in FRAMES else TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
