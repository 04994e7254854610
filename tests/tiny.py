"""Tiny random models of every family that the engine is held to, made from configurations alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers as tf

from boresight.data.tokens import Tokens

VOCABULARY = 97

_ROPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "attention_dropout": 0.1,
}
_GEMMA = _ROPE | {"head_dim": 8, "initializer_range": 0.1, "sliding_window": 4}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _ROPE),
    "llama-tied": ("LlamaConfig", _ROPE | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _ROPE),
    "qwen3": ("Qwen3Config", _ROPE | {"head_dim": 8}),
    "gemma2": ("Gemma2Config", _GEMMA | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3TextConfig", _GEMMA | {"final_logit_softcapping": 4.0}),
    "mistral": ("MistralConfig", _ROPE | {"sliding_window": 4}),
    "phi": ("PhiConfig", _ROPE | {"resid_pdrop": 0.1, "embd_pdrop": 0.1}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}),
    "gpt-neox": (
        "GPTNeoXConfig",
        _ROPE | {"hidden_dropout": 0.1} | {"num_key_value_heads": None},
    ),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 128,
                            "initializer_range": 0.3, "attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1}),
    "opt": ("OPTConfig", {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                          "max_position_embeddings": 128, "word_embed_proj_dim": 16, "init_std": 0.3,
                          "layerdrop": 0.2}),
    "mixtral": ("MixtralConfig", _ROPE | {"num_local_experts": 4, "router_jitter_noise": 0.1}),
    "qwen3-moe": ("Qwen3MoeConfig", _ROPE | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
                                            "moe_intermediate_size": 16, "decoder_sparse_step": 1}),
    "cohere": ("CohereConfig", _ROPE | {"logit_scale": 0.25}),
    "granite": ("GraniteConfig", _ROPE | {"logits_scaling": 4.0, "residual_multiplier": 0.5,
                                          "embedding_multiplier": 3.0}),
}  # fmt: skip
"""Name -> configuration class and its settings. Dropout is on where the family has it, so that it can be missed."""


def config(family: str, **settings: Any) -> Any:
    name, own = FAMILIES[family]
    own = {k: v for k, v in own.items() if v is not None}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return getattr(tf, name)(**({"vocab_size": VOCABULARY, "tie_word_embeddings": False} | ids | own | settings))


def tiny(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A causal language model of the family, in evaluation mode; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.AutoModelForCausalLM.from_config(config(family, **settings))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at birth, so that a forgotten one would not show
                torch.nn.init.normal_(parameter, std=0.5)
    return model.to(dtype).eval()


def tiny_reward(family: str = "llama", *, seed: int = 0, **settings: Any) -> Any:
    """A sequence-classification model of the family with one label."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.AutoModelForSequenceClassification.from_config(config(family, **({"num_labels": 1} | settings)))
    return model.eval()


def lora(model: Any, *, seed: int = 0, trained: bool = True, name: str = "default", **settings: Any) -> Any:
    """`model` under a LoRA adapter; `trained` gives its B matrices random values in place of zeros."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1} | settings
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, LoraConfig(**settings), adapter_name=name)
        if trained:
            train(wrapped, name, seed)
    return wrapped.eval()


def train(model: Any, adapter: str = "default", seed: int = 0) -> None:
    """Give the B matrices of a LoRA adapter random values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key and f".{adapter}." in key:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def sequences(lengths: list[tuple[int, int]], *, seed: int = 0) -> list[Tokens]:
    """Random sequences of (prompt, response) lengths; the prompt at least 1."""
    random = np.random.default_rng(seed)
    made = []
    for prompt, response in lengths:
        ids = random.integers(3, VOCABULARY, prompt + response).astype(np.int32)
        made.append(Tokens(ids, np.arange(prompt + response) >= prompt, True))
    return made
