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

_MLA = {k: v for k, v in _ROPE.items() if k != "num_key_value_heads"} | {
    "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 10, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "n_group": 2, "topk_group": 2, "first_k_dense_replace": 1, "head_dim": 4,
}  # fmt: skip


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return _ROPE | {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0} | more}


MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-linear": ("LlamaConfig", _rope("linear", factor=4.0)),
    "llama-yarn": ("LlamaConfig", _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama-llama3": ("LlamaConfig", _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                          original_max_position_embeddings=32)),
    "llama-one-kv": ("LlamaConfig", _ROPE | {"num_key_value_heads": 1, "attention_bias": True}),
    "phi3": ("Phi3Config", _ROPE | {"sliding_window": 4, "resid_pdrop": 0.1, "embd_pdrop": 0.1}),
    "gemma": ("GemmaConfig", _ROPE | {"head_dim": 8}),
    "gemma2-capped": ("Gemma2Config", _GEMMA | {"initializer_range": 0.3, "attn_logit_softcapping": 0.5}),
    "gemma3-windows": ("Gemma3TextConfig", _GEMMA | {"num_hidden_layers": 3, "layer_types": [
        "sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 3}),
    "qwen2-windows": ("Qwen2Config", _ROPE | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    "qwen2-moe": ("Qwen2MoeConfig", _ROPE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                                            "shared_expert_intermediate_size": 16}),
    "gpt-oss": ("GptOssConfig", _ROPE | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
                                         "sliding_window": 4}),
    "starcoder2": ("Starcoder2Config", _ROPE | {"residual_dropout": 0.1, "embedding_dropout": 0.1,
                                                "sliding_window": 4}),
    "olmo2": ("Olmo2Config", _ROPE),
    "cohere2": ("Cohere2Config", _ROPE | {"logit_scale": 0.25, "sliding_window": 4, "layer_types": [
        "sliding_attention", "full_attention"]}),
    "smollm3": ("SmolLM3Config", _ROPE | {"no_rope_layers": [1, 0]}),
    "stablelm": ("StableLmConfig", _ROPE | {"use_qkv_bias": True}),
    "glm4": ("Glm4Config", _ROPE | {"head_dim": 8}),
    "deepseek-v2": ("DeepseekV2Config", _MLA | {"topk_method": "greedy"}),
    "deepseek-v3": ("DeepseekV3Config", _MLA),
}  # fmt: skip
"""More families that can be packed."""

PADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-dynamic": ("LlamaConfig", _rope("dynamic", factor=4.0)),
    "falcon": ("FalconConfig", _ROPE | {"hidden_dropout": 0.1}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, "initializer_range": 0.3}),
    "gpt-neo": ("GPTNeoConfig", {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 4,
                                 "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128,
                                 "intermediate_size": 48, "initializer_range": 0.3}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "initializer_range": 0.3}),
    "jamba": ("JambaConfig", _ROPE | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 4,
                                      "expert_layer_offset": 3, "mamba_d_state": 4, "mamba_d_conv": 3,
                                      "use_mamba_kernels": False}),
    "recurrent-gemma": ("RecurrentGemmaConfig", {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                                                 "num_attention_heads": 4, "num_key_value_heads": 1, "lru_width": 32,
                                                 "attention_window_size": 16, "head_dim": 8}),
    "qwen3-next": ("Qwen3NextConfig", _ROPE | {"head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
                                               "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4,
                                               "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                                               "shared_expert_intermediate_size": 16, "num_hidden_layers": 2,
                                               "layer_types": ["linear_attention", "full_attention"]}),
}  # fmt: skip
"""Families that cannot be packed: biases in the scores, state-space layers, attention that cannot be replaced."""


def config(family: str, **settings: Any) -> Any:
    name, own = (FAMILIES | MORE | PADDED)[family]
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
