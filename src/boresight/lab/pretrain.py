"""The lab's base models: pre-trained on the instruction language, the same bits every time, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.data.cache import root
from boresight.errors import InputError, nearest
from boresight.lab.gold import Prompt
from boresight.lab.language import Knobs, LanguageWorld
from boresight.lab.tiny import FRAMES, SIZES, new_model, save, save_aside, word_tokenizer

STEPS, BATCH, LR = 512, 64, 4e-3
Progress = Callable[[int, int], None]


def base_model(
    arch: str = "llama",
    *,
    knobs: Knobs | None = None,
    seed: int = 0,
    size: str = "tiny",
    progress: Progress | None = None,
) -> Path:
    """The folder of a causal LM pre-trained on the language's corpus, trained now if it is not in the cache.

    Only the knobs that shape the corpus matter (carelessness, told groups, domains). progress(done, steps) is called
    after every step. Two runs give the same bits on one machine. Raises InputError for an unknown arch or size.
    """
    if size not in SIZES:
        raise InputError(f"size {size!r} is not one that the lab builds", mend=nearest(size, SIZES))
    if arch in FRAMES:
        raise InputError(f"the lab pre-trains no {arch}", mend="take llama or qwen")
    corpus = (knobs or Knobs()).corpus()
    folder = root() / "lab" / f"{arch}-{size}-{_address(arch, size, corpus, seed)}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = word_tokenizer()
    model = new_model(arch, len(tokenizer), **SIZES[size], seed=seed)
    with _one_thread():
        _train(model, tokenizer, LanguageWorld(corpus).corpus(STEPS * BATCH // 2, seed), seed, progress)
    return save_aside(folder, lambda aside: save(model, tokenizer, aside))


def _train(
    model: Any, tokenizer: Any, corpus: Sequence[tuple[Prompt, str]], seed: int, progress: Progress | None
) -> None:
    """Next-token loss on the responses and their end, AdamW, cosine learning rate."""
    rows = tokenise(tokenizer, corpus)
    adam = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    model.train()
    for step, places in enumerate(_batches([len(ids) for ids, _ in rows], seed)):
        adam.param_groups[0]["lr"] = LR * min(1, (step + 1) / 40) * (0.51 + 0.49 * cos(pi * step / STEPS))
        ids, labels = pad([rows[i] for i in places])
        # Padding is on the right and attention is causal, so no mask is needed.
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        )
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        if progress:
            progress(step + 1, STEPS)
    model.eval()


def tokenise(tokenizer: Any, corpus: Sequence[tuple[Prompt, str]]) -> list[tuple[list[int], int]]:
    """Token ids of each conversation, and where its response starts."""
    talks = [[{"role": m.role, "content": m.content} for m in p.messages] for p, _ in corpus]
    heads = tokenizer.apply_chat_template(talks, add_generation_prompt=True, tokenize=False)
    prompts = tokenizer(heads, add_special_tokens=False)["input_ids"]
    answers = tokenizer([answer for _, answer in corpus], add_special_tokens=False)["input_ids"]
    return [(p + a + [tokenizer.eos_token_id], len(p)) for p, a in zip(prompts, answers, strict=True)]


def _batches(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """`STEPS` batches of rows of similar length, in random order; every row equally often."""
    rng = torch.Generator().manual_seed(seed)
    batches: list[list[int]] = []
    while len(batches) < STEPS:
        order = torch.randperm(len(lengths), generator=rng).tolist()
        for start in range(0, len(order), 16 * BATCH):
            alike = sorted(order[start : start + 16 * BATCH], key=lambda i: lengths[i])
            batches += [alike[i : i + BATCH] for i in range(0, len(alike), BATCH)]
    return [batches[i] for i in torch.randperm(STEPS, generator=rng)]


def pad(rows: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """Ids padded on the right with 0, and the same with -100 wherever nothing is predicted; (rows, length) each."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), -100, dtype=torch.int64)
    for i, (row, start) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = torch.tensor(row[start:])
    return ids, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how work is split over threads; with one thread the bits do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _address(arch: str, size: str, corpus: Knobs, seed: int) -> str:
    """What the weights depend on, as a name: options, the code of the lab, and the library versions."""
    import transformers

    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in ("words", "gold", "language", "tiny", "pretrain")]
    facts = [arch, size, seed, asdict(corpus), torch.__version__, transformers.__version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
