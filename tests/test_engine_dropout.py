"""Dropout off: training mode becomes deterministic, and equal to evaluation mode."""

from __future__ import annotations

import pytest
import torch

import tiny
from boresight.engine import disable_dropout, evaluating

IDS = torch.arange(3, 40)[None]


def twice(model):
    model.train()
    with torch.no_grad():
        first, second = model(input_ids=IDS).logits, model(input_ids=IDS).logits
        model.eval()
        return first, second, model(input_ids=IDS).logits


NO_SDPA = ("gemma2", "gptj")
CASES = [(f, a) for f in tiny.FAMILIES for a in ("eager", "sdpa") if a == "eager" or f not in NO_SDPA]


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_training_mode_becomes_deterministic(family, attention):
    model = tiny.tiny(family, attn_implementation=attention)
    first, second, still = twice(model)
    noisy = not torch.equal(first, second)
    assert disable_dropout(model) > 0 or not noisy
    first, second, now = twice(model)
    assert torch.equal(first, second)
    assert torch.equal(now, still)
    torch.testing.assert_close(first, now)
    assert disable_dropout(model) == 0


def test_the_noise_was_there_in_most_families():
    """The test above would pass on models without dropout; these have it."""
    for family in ("llama", "gemma2", "phi", "gpt2", "gpt-neox", "gptj", "opt", "mixtral", "qwen3-moe"):
        first, second, _ = twice(tiny.tiny(family))
        assert not torch.equal(first, second), family


def test_lora_dropout():
    model = tiny.lora(tiny.tiny(attention_dropout=0.0), lora_dropout=0.5)
    first, second, _ = twice(model)
    assert not torch.equal(first, second)
    assert disable_dropout(model) == 4  # two layers, two modules each
    first, second, _ = twice(model)
    assert torch.equal(first, second)


def test_evaluating_restores_each_flag_also_after_an_error():
    model = tiny.tiny().train()
    model.model.layers[1].eval()
    flags = [m.training for m in model.modules()]
    inside = []

    def fail():
        with evaluating(model):
            inside.extend(m.training for m in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(inside)
    assert flags == [m.training for m in model.modules()]
