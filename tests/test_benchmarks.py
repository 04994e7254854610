"""The counting behind `benchmarks/`: no time is asserted here."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from contestants import Record, ours, plain, unshared
from dpo_step import disagreement, parse
from floor import Shape, Work, attention_flops, least, linear_flops, step_flops
from inputs import EOS, Setting, draw, make, read, seen

SETTING = Setting(
    model="tiny", vocab=60, mix="balanced", scale=0.05, shape="pairs", method="full", device="cpu",
    batch=3, steps=3, warm=1, lr=1e-3, beta=0.1, ours={},
)  # fmt: skip
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


def test_rows_are_counted_by_hand() -> None:
    rows = [([5, 6], [[7, EOS], [8, 9, EOS]])]
    assert seen(rows) == [4 + 5, 2 + 3, 2 * 11 + 9 + 19, 9 + 19]


def test_the_last_step_sees_the_first_rows_again_and_lengths_are_bounded() -> None:
    rows = draw(SETTING)
    assert rows[6:] == rows[:3]
    assert rows[:3] != rows[3:6]
    assert all(4 <= len(prompt) <= 4 * 7 for prompt, _ in rows)
    assert all(response[-1] == EOS and min(response[:-1]) >= 5 for _, both in rows for response in both)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_ours_and_plain_compute_the_same(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path))  # the contestant sets another one: put back afterwards
    make(tmp_path, replace(SETTING, method=method))
    setting, rows = read(tmp_path)
    found = [Record("cpu"), Record("cpu")]
    for contestant, record in zip((ours, plain), found, strict=True):
        contestant(tmp_path, setting, rows, "fp32", record)
    assert found[0].first["tokens"] == found[1].first["tokens"] == seen(rows[:3])
    assert found[0].first["log-probs"] == pytest.approx(found[1].first["log-probs"], rel=1e-5)
    assert found[0].losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert found[1].losses[-1] < 0.99 * math.log(2)  # it has learnt, so the equality below says something
    if method == "full":  # adapters start at random, each contestant's at its own
        assert found[0].losses == pytest.approx(found[1].losses, rel=1e-4)


def test_lists_are_the_same_with_and_without_sharing(tmp_path: Path) -> None:
    make(tmp_path, replace(SETTING, shape="lists", batch=2))
    setting, rows = read(tmp_path)
    found = {how: Record("cpu") for how in (ours, unshared, plain)}
    for contestant, record in found.items():
        contestant(tmp_path, setting, rows, "fp32", record)
    for record in found.values():
        assert record.losses == pytest.approx(found[plain].losses, rel=1e-4)
        assert record.first["tokens"] == seen(rows[:2])


def test_other_tokens_or_losses_are_seen() -> None:
    one = {"first": {"tokens": [9, 5], "log-probs": [-3.0, -4.0]}, "losses": [0.69, 0.5]}
    assert not disagreement(one, one, bf16=False, last=True)
    assert "tokens" in disagreement(one, one | {"first": one["first"] | {"tokens": [9, 4]}}, bf16=True, last=False)
    moved = one | {"losses": [0.69, 0.515]}
    assert "last loss" in disagreement(one, moved, bf16=False, last=True)
    assert not disagreement(one, moved, bf16=True, last=True)
    assert not disagreement(one, moved, bf16=False, last=False)
    other = one | {"first": {"tokens": [9, 5], "log-probs": [-3.0, -4.1]}}
    assert disagreement(one, other, bf16=True, last=True) == "log-probs -4 and -4.1"


def test_names_of_contestants() -> None:
    assert parse("ours", "fp32", "default") == ("ours", "fp32", False)
    assert parse("ours:bf16:tuned", "fp32", "default") == ("ours", "bf16", True)
    assert parse("trl-default", "fp32", "default") == ("trl-default", "bf16", False)
    assert parse("trl-any:fp32:untuned", "bf16", "tuned") == ("trl-any", "fp32", False)
    for wrong in ("trl-default:fp32", "ours:fp64"):
        with pytest.raises(SystemExit, match="fp"):
            parse(wrong, "fp32", "default")
