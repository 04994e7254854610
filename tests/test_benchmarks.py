"""The counting behind `benchmarks/`: no time is asserted here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from floor import Shape, Work, attention_flops, least, linear_flops, step_flops

TINY: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def test_the_work_for_a_pair_counted_by_hand() -> None:
    """A prompt of 2 and responses of 3 and 1: p p a a | (b predicts nothing itself)."""
    # Positions: two of the prompt, two of the first response. Keys seen: 1 + 2, then 3 + 4.
    # Predicting: the prompt's end and the two; the second response is predicted where the first one's start is.
    assert least(2, [3, 1]) == Work(4, 10, 3)


def test_the_work_by_listing_positions() -> None:
    for prompt, responses in [(1, [1]), (5, [4, 2]), (3, [1, 1, 6]), (7, [2] * 8)]:
        keys = [i + 1 for i in range(prompt)]
        for response in responses:
            keys += [prompt + i + 1 for i in range(response - 1)]
        ends = 1 + sum(response - 1 for response in responses)
        assert least(prompt, responses) == Work(len(keys), sum(keys), ends)


def test_responses_without_a_token_are_no_work() -> None:
    assert least(4, [0, 0]) == Work(0, 0, 0)
    assert least(4, [3, 0]) == least(4, [3])


def test_a_step_counted_by_hand() -> None:
    """One layer, one head of 2, MLP of 3, vocabulary of 5: each matrix written out."""
    shape = Shape(layers=1, hidden=2, heads=1, kv_heads=1, head_dim=2, mlp=3, vocab=5)
    weights = 4 * (2 * 2) + 3 * (2 * 3)
    linear = 3 * 2 * (weights * 4 + 2 * 5 * 3)
    attention = 3 * 2 * 2 * (10 * 2)  # two products of pairs x width, and twice that for the way back
    assert step_flops(shape, [(2, [3, 1])]) == linear + attention
    assert step_flops(shape, [(2, [3, 1])] * 3) == 3 * (linear + attention)
    assert step_flops(shape, []) == 0


def test_lora_has_no_gradients_of_frozen_weights() -> None:
    shape = Shape(layers=1, hidden=2, heads=1, kv_heads=1, head_dim=2, mlp=3, vocab=5, rank=1)
    work = Work(7, 0, 4)
    queries_keys_values = 3 * (1 * 2 * 2 * 2 + 2 * 2 * 2 * 1 + 3 * 2 * 1 * 2)  # no gradient of the embeddings
    out = 2 * 2 * 2 * 2 + 3 * 2 * 2 * 1 + 3 * 2 * 1 * 2
    gates = 2 * (2 * 2 * 2 * 3 + 3 * 2 * 2 * 1 + 3 * 2 * 1 * 3)
    down = 2 * 2 * 3 * 2 + 3 * 2 * 3 * 1 + 3 * 2 * 1 * 2
    head = 2 * 2 * 2 * 5
    assert linear_flops(shape, work) == 7 * (queries_keys_values + out + gates + down) + 4 * head


@pytest.mark.parametrize("rank", [0, 3])
def test_linear_layers_agree_with_torchs_own_counter(rank: int) -> None:
    length = 11
    config = LlamaConfig(**TINY, attn_implementation="sdpa")
    model: Any = LlamaForCausalLM(config)
    if rank:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    with FlopCounterMode(display=False) as counter:
        ids = torch.arange(length)[None]
        model(input_ids=ids).logits.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    linear = sum(n for op, n in counts.items() if str(op) in ("aten.mm", "aten.addmm"))
    shape = Shape.of(config, rank)
    assert linear_flops(shape, Work(length, 0, length)) == linear


def test_attention_is_the_half_of_what_torch_counts_without_a_mask() -> None:
    """All n * n pairs, forward and backward, by torch's counter; of them the mask lets n (n + 1) / 2 through."""
    shape, n = Shape.of(LlamaConfig(**TINY)), 9
    query, key, value = (torch.randn(shape.heads, n, shape.head_dim, requires_grad=True) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        ((query @ key.transpose(1, 2)).softmax(-1) @ value).sum().backward()
    whole = counter.get_total_flops() * shape.layers
    assert attention_flops(shape, Work(n, n * n, 0)) == whole
    assert attention_flops(shape, least(n, [1])) * 2 * n == whole * (n + 1)


def test_heads_that_are_not_given_are_worked_out() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, intermediate_size=96, num_hidden_layers=2)
    assert (Shape.of(config).head_dim, Shape.of(config).kv_heads) == (16, 4)
