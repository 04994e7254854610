"""What every contestant is given: one random model, one tokenizer, the same rows in the same order, in a folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MIXES = {"balanced": (140, 90), "long-prompt": (450, 45), "long-response": (60, 260)}
"""Median tokens of prompt and response; lengths are log-normal with sigma 0.5, at most four times the median."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("Llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                       "num_attention_heads": 4, "num_key_value_heads": 2}),
    "v": ("Llama", {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6,
                    "num_attention_heads": 4, "num_key_value_heads": 2}),
    "body": ("Llama", {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
                       "num_attention_heads": 8, "num_key_value_heads": 4}),
    "0.5b": ("Qwen2", {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                       "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
                       "vocab_size": 151_936}),
    "1b": ("Llama", {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
                     "vocab_size": 128_256}),
    "1.5b": ("Qwen2", {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                       "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
                       "vocab_size": 151_936}),
}  # fmt: skip
"""Name -> family and sizes. Those in billions have the sizes and the vocabulary of published models."""

EOS = 2
LORA = {"rank": 16, "alpha": 32}


@dataclass(frozen=True)
class Setting:
    """One comparison: what is trained on what.

    scale: multiplies the lengths of the mix. batch: pairs, or lists of 8 responses, in a step. steps: all of
    them, the `warm` first ones not timed. ours: further words of our recipe.
    """

    model: str
    vocab: int
    mix: str
    scale: float
    shape: str
    method: str
    device: str
    batch: int
    steps: int
    warm: int
    lr: float
    beta: float
    ours: dict[str, Any]

    @property
    def responses(self) -> int:
        """Responses to each prompt."""
        return 8 if self.shape == "lists" else 2


Rows = list[tuple[list[int], list[list[int]]]]
"""Each row's prompt and responses, as token ids; every response ends in EOS."""


def config(setting: Setting) -> Any:
    """The configuration of the model, and by it its shape."""
    import transformers

    family, sizes = MODELS[setting.model]
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
    whole = {"vocab_size": setting.vocab, "max_position_embeddings": 65_536} | ids | sizes
    return getattr(transformers, f"{family}Config")(**whole)


def draw(setting: Setting) -> Rows:
    """Random rows, `batch` for each step; those of the last step are the first one's, whose loss has moved by then."""
    import numpy as np

    vocab = config(setting).vocab_size
    rng = np.random.default_rng(0)
    prompt, response = (median * setting.scale for median in MIXES[setting.mix])

    def ids(median: float) -> list[int]:
        length = int(np.clip(rng.lognormal(np.log(median), 0.5), 4, 4 * median))
        return [int(i) for i in rng.integers(5, vocab, length)]

    count = setting.batch * (setting.steps - 1)
    rows = [(ids(prompt), [[*ids(response), EOS] for _ in range(setting.responses)]) for _ in range(count)]
    return rows + rows[: setting.batch]


def make(folder: Path, setting: Setting) -> None:
    """Write the model, its tokenizer (one word a token) and the rows, as text and as ids, into `folder`."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    made = config(setting)
    model = getattr(transformers, f"{MODELS[setting.model][0]}ForCausalLM")(made)
    model.save_pretrained(folder / "model")
    words = {word(i): i for i in range(made.vocab_size)}
    backend = Tokenizer(models.WordLevel(words, unk_token=word(3)))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=word(3), eos_token=word(EOS), pad_token=word(0), bos_token=word(1)
    ).save_pretrained(folder / "model")
    rows = draw(setting)
    (folder / "ids.json").write_text(json.dumps(rows), "utf-8")
    if setting.shape == "pairs":
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
            for prompt, responses in rows:
                texts = [" " + text(response[:-1]) for response in responses]  # the EOS is for the trainers to add
                file.write(json.dumps({"prompt": text(prompt), "chosen": texts[0], "rejected": texts[1]}) + "\n")
    (folder / "setting.json").write_text(json.dumps(asdict(setting)), "utf-8")


def read(folder: Path) -> tuple[Setting, Rows]:
    """What `make` wrote."""
    setting = Setting(**json.loads((folder / "setting.json").read_text("utf-8")))
    return setting, json.loads((folder / "ids.json").read_text("utf-8"))


def word(token: int) -> str:
    return f"<{token}>" if token < 5 else f"w{token}"


def text(ids: list[int]) -> str:
    return " ".join(word(i) for i in ids)


def seen(rows: Rows) -> list[int]:
    """What tells whether two contestants saw the same tokens: of all sequences tokens, response tokens, and their sums.

    Prompts count with every response, as they stand in sequences laid out one by one.
    """
    whole = [prompt + response for prompt, responses in rows for response in responses]
    answers = [response for _, responses in rows for response in responses]
    return [sum(map(len, whole)), sum(map(len, answers)), sum(map(sum, whole)), sum(map(sum, answers))]
