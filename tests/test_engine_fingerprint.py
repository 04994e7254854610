"""Fingerprints: what changes them, and what must not."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

import tiny
from boresight.engine import adapter_fingerprint, disable_dropout, weights_fingerprint
from boresight.errors import InputError

EVERYWHERE = {"target_modules": "all-linear", "modules_to_save": ["lm_head"]}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_saving_and_loading_keeps_it(family, tmp_path):
    model = tiny.tiny(family)
    before = weights_fingerprint(model)
    model.save_pretrained(tmp_path)
    assert weights_fingerprint(tf.AutoModelForCausalLM.from_pretrained(tmp_path)) == before
    assert len(before) == 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_ulp_of_one_weight_changes_it(dtype):
    model = tiny.tiny("gemma3", dtype=dtype)
    seen = {weights_fingerprint(model)}
    for parameter in list(model.parameters())[::3]:
        with torch.no_grad():
            flat = parameter.view(-1)
            flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf, dtype=dtype))
        fingerprint = weights_fingerprint(model)
        assert fingerprint not in seen
        seen.add(fingerprint)


def test_dtype_names_and_meaningful_configuration_change_it():
    prints = [
        weights_fingerprint(m)
        for m in (
            tiny.tiny(),
            tiny.tiny().to(torch.bfloat16),
            tiny.tiny("mistral"),
            tiny.tiny(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
            tiny.tiny("gemma3"),
            tiny.tiny("gemma3", final_logit_softcapping=5.0),
            tiny.tiny("gemma3", sliding_window=8),
        )
    ]
    assert len(set(prints)) == len(prints)


def test_what_does_not_change_log_probs_does_not_change_it():
    model = tiny.tiny("phi")
    before = weights_fingerprint(model)
    disable_dropout(model)
    model.train().requires_grad_(False)
    model.config.use_cache = False
    model.config._name_or_path = "elsewhere"
    model.set_attn_implementation("eager")
    assert weights_fingerprint(model) == before


def test_tied_weights_count_once():
    tied, loose = tiny.tiny("llama-tied"), tiny.tiny("llama-tied")
    loose.lm_head.weight = torch.nn.Parameter(loose.lm_head.weight.detach().clone())
    assert weights_fingerprint(tied) == weights_fingerprint(tiny.tiny("llama-tied"))
    assert weights_fingerprint(tied) != weights_fingerprint(loose)


@pytest.mark.parametrize("settings", [{}, EVERYWHERE, {"trainable_token_indices": [3, 4]}, {"use_dora": True}])
@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_the_base_under_an_adapter_is_the_bare_base(family, settings):
    bare = weights_fingerprint(tiny.tiny(family))
    model = tiny.lora(tiny.tiny(family), **settings)
    assert weights_fingerprint(model, adapters=None) == bare
    assert weights_fingerprint(model, adapters="all") != bare
    assert weights_fingerprint(model, adapters="all") == weights_fingerprint(model, adapters="default")


def test_adapters_by_what_they_are_not_by_name():
    a, b = tiny.lora(tiny.tiny(), **EVERYWHERE), tiny.lora(tiny.tiny(), name="other", **EVERYWHERE)
    tiny.train(b, "other")
    assert adapter_fingerprint(a, "default") == adapter_fingerprint(b, "other")
    assert weights_fingerprint(a, adapters="default") == weights_fingerprint(b, adapters="other")
    before = adapter_fingerprint(a, "default")
    a.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] *= 2
    assert adapter_fingerprint(a, "default") != before


def test_each_part_of_an_adapter_counts_and_no_other_adapter_does():
    model = tiny.lora(tiny.tiny(), use_dora=True, **EVERYWHERE)
    seen = {adapter_fingerprint(model, "default")}
    names = [n for n, _ in model.named_parameters() if ".default." in n or n.endswith(".default")]
    assert any("magnitude" in n for n in names)
    assert any("modules_to_save" in n for n in names)
    for name in names:
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] += 1
        seen.add(adapter_fingerprint(model, "default"))
    assert len(seen) == len(names) + 1
    base, own = weights_fingerprint(model, adapters=None), adapter_fingerprint(model, "default")
    model.add_adapter("second", model.peft_config["default"])
    assert weights_fingerprint(model, adapters=None) == base
    assert adapter_fingerprint(model, "default") == own


def test_an_adapter_that_is_not_there():
    with pytest.raises(InputError, match="'sft'"):
        weights_fingerprint(tiny.lora(tiny.tiny()), adapters="sft")
    with pytest.raises(InputError, match="no adapters at all"):
        adapter_fingerprint(tiny.tiny(), "sft")
