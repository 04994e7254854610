"""Models and tokenizers from a directory or a hub: weights by safetensors, no remote code, nothing guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from boresight.errors import InputError

if TYPE_CHECKING:
    from boresight.data.render import Renderer

Kind = Literal["causal", "score"]
"""What is loaded: a causal language model, or a sequence classifier with one output (a reward model)."""


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer. `base` is the model under an adapter; `adapter` the folder the adapter came from."""

    model: Any
    tokenizer: Any
    base: str
    adapter: str | None
    pad_id: int


def hush_transformers() -> None:
    """Switch transformers' progress bars and reports off; ours say what matters."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_tokenizer(name: str) -> Any:
    """The tokenizer saved with a model. Raises InputError if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no tokenizer at {name}: {_first_line(error)}", mend=_WHERE) from None


def adapter_base(name: str) -> str | None:
    """The base model that the adapter at `name` belongs to; None if `name` is no adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        found = find_adapter_config_file(name)
    except (OSError, ValueError):
        return None
    if found is None:
        return None
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(name).base_model_name_or_path
    if not base:
        raise InputError(f"the adapter at {name} does not name its base model", mend="set base_model_name_or_path")
    return str(base)


def load(
    name: str, *, kind: Kind = "causal", dtype: torch.dtype = torch.float32, four_bit: bool = False, train: bool = False
) -> Loaded:
    """Load a model, or an adapter with its base, from a directory or a hub name.

    transformers' own progress bars and load reports are switched off: what is missing is said here.

    Raises InputError that says what is missing and how to mend it.
    """
    hush_transformers()
    base = adapter_base(name)
    tokenizer = load_tokenizer(name)
    model = _load_weights(base or name, kind, dtype, four_bit)
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, name, is_trainable=train)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"the tokenizer at {name} has {len(tokenizer)} tokens but the model embeds {vocabulary}",
            mend="save the tokenizer that the model was trained with beside it",
        )
    pad_id = _pad(tokenizer, model, kind)
    model.config.use_cache = False
    return Loaded(model, tokenizer, base or name, name if base else None, pad_id)


def _load_weights(name: str, kind: Kind, dtype: torch.dtype, four_bit: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    options: dict[str, Any] = {"dtype": dtype}
    if kind == "score":
        options["num_labels"] = 1
    if four_bit:
        options["quantization_config"] = _four_bit(dtype)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    try:
        model, info = auto.from_pretrained(name, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no usable model at {name}: {_first_line(error)}", mend=_WHERE) from None
    missing = [k for k in info["missing_keys"] if not (kind == "score" and k.startswith(("score.", "classifier.")))]
    if missing:
        raise InputError(
            f"the weights at {name} lack {len(missing)} tensors, for example {sorted(missing)[0]}",
            mend="they would be random: give the whole checkpoint",
        )
    return model


def _four_bit(dtype: torch.dtype) -> Any:
    try:
        import bitsandbytes  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        raise InputError("adapter=qlora needs bitsandbytes", mend="pip install 'boresight[qlora]'") from None
    if not torch.cuda.is_available():
        raise InputError("adapter=qlora needs a GPU", mend="use adapter=lora here")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def add_lora(model: Any, *, rank: int, alpha: float, targets: str, kind: Kind, four_bit: bool = False) -> Any:
    """Put a fresh LoRA adapter on a model; its dropout is 0, since policy and reference must see the same."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    modules: str | list[str] = targets if targets == "all-linear" else [t.strip() for t in targets.split(",")]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=modules,
        task_type="CAUSAL_LM" if kind == "causal" else "SEQ_CLS",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"lora_targets={targets}: {_first_line(error)}", mend="name modules of this model") from None


def _pad(tokenizer: Any, model: Any, kind: Kind) -> int:
    """The id that fills up batches; masks never come from it. A reward model needs one that is no other token."""
    eos = tokenizer.eos_token_id
    if tokenizer.pad_token_id is not None and not (kind == "score" and tokenizer.pad_token_id == eos):
        pad = int(tokenizer.pad_token_id)
    elif kind == "causal":
        pad = int(eos if eos is not None else 0)
    else:
        # transformers finds the last token of a text by the pad id, so a pad that is the EOS would hide the EOS.
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id != eos:
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
            if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
                model.resize_token_embeddings(len(tokenizer))
        pad = int(tokenizer.pad_token_id)
    if kind == "score":
        model.config.pad_token_id = pad
    return pad


def turn_ends(loaded: Loaded, renderer: Renderer) -> list[int]:
    """The tokens that end a turn: the template's end-of-turn, the EOS, and what the model's settings name."""
    from boresight.training.sample import end_tokens

    described = renderer.describe().get("end_of_turn")
    found = set(end_tokens(loaded.model, loaded.tokenizer)) | ({int(described["id"])} if described else set())
    return sorted(found)


_WHERE = "give a folder written by save_pretrained, or a hub name that can be reached from here"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n", 1)[0][:300]
