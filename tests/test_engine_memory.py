"""What a run says of its memory: adapters in pairs, and measurements in rows of a round length."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

import tiny
from boresight.engine import TokenLogProbs, flex, packing
from boresight.training.memory import LENGTHS, MANY, _curve, _kept, estimate

WORDS = {"scores": False, "tokens": 100, "longest": 20, "parts": 1, "checkpointing": False, "cast": nullcontext}


def parts(module, **words) -> dict[str, int]:
    found = estimate(module.train(), device=torch.device("cpu"), **(WORDS | words))
    return {part.name: part.bytes for part in found.parts}


def test_a_twin_is_a_second_adapter_with_all_that_belongs_to_it():
    model = tiny.lora(tiny.tiny(), lora_dropout=0.0)
    adapter = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    module = TokenLogProbs(model)
    one, two = parts(module), parts(module, twin=True)
    assert one["gradients"] == adapter
    assert {n: two[n] - one[n] for n in ("weights", "gradients", "optimizer")} == {
        "weights": adapter,
        "gradients": adapter,
        "optimizer": 2 * adapter,
    }
    assert two["activations"] == 2 * one["activations"]


def test_the_curve_of_many_sequences_is_that_of_one():
    """kept = 7 + tokens * (5 + 3 * length) of 1 and of 16 sequences, for 1,000 tokens that see 200 others."""
    for many in (1, MANY):
        kept = [7 + many * n * (5 + 3 * n) for n in LENGTHS]
        assert _curve(kept, many, 1000, 200) == pytest.approx(7 + 1000 * (5 + 3 * 200), rel=1e-6)


def test_rows_of_a_round_length_measure_the_same(monkeypatch):
    module = TokenLogProbs(tiny.tiny("llama", num_hidden_layers=4)).train()
    alone = [MANY * _kept(module, False, n, 1, nullcontext) for n in LENGTHS]
    monkeypatch.setattr(flex, "serves", lambda device: True)
    assert packing.choose(module.model, "segments") == "shared"
    lengths = []
    module.model.get_input_embeddings().register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    together = [_kept(module, False, n, MANY, nullcontext) for n in LENGTHS]
    assert lengths == [MANY * n for n in LENGTHS]
    for one, many in zip(alone, together, strict=True):
        assert many == pytest.approx(one, rel=0.1)
