"""Which reference is taken, what it computes, and what it leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

import tiny
from boresight.engine import ReferenceStore, TokenLogProbs, plain_logprobs, resolve_reference, weights_fingerprint
from boresight.errors import InputError, RunError

SEQUENCES = tiny.sequences([(3, 5), (7, 1), (1, 9), (4, 0), (12, 2)])


def resolve(choice, model, **settings):
    def load_model(name):
        return tf.AutoModelForCausalLM.from_pretrained(name)

    return resolve_reference(choice, model, load_model=load_model, pad_id=0, budget=20, **settings)


def oracle(model) -> np.ndarray:
    with torch.no_grad():
        return plain_logprobs(model, SEQUENCES, 0).values.float().numpy()


def computed(reference) -> np.ndarray:
    return np.concatenate(reference.compute(SEQUENCES))


def assert_equal(reference, model):
    np.testing.assert_allclose(computed(reference), oracle(model), rtol=1e-5, atol=1e-5)


def assert_not(reference, model):
    assert np.abs(computed(reference) - oracle(model)).max() > 1e-2


def state(model):
    """Everything about a model that a reference must leave as it was."""
    adapters = (list(model.active_adapters), model.active_adapter) if hasattr(model, "peft_config") else None
    return (
        adapters,
        [m.training for m in model.modules()],
        {n: p.requires_grad for n, p in model.named_parameters()},
        [getattr(m, "gradient_checkpointing", None) for m in model.modules()],
        [getattr(m, "disable_adapters", None) for m in model.modules()],
        {n: None if p.grad is None else p.grad.clone().tolist() for n, p in model.named_parameters()},
        weights_fingerprint(model),
    )


def two_adapters(**settings):
    """A policy that trains adapter "default", with another trained adapter "sft" beside it."""
    model = tiny.lora(tiny.tiny(), **settings)
    model.add_adapter("sft", model.peft_config["default"])
    tiny.train(model, "sft", seed=7)
    return model.eval()  # the new adapter's dropout is born in training mode


def busy(model):
    """As in the middle of training: training mode, checkpointing, gradients, something frozen by hand."""
    if hasattr(model, "peft_config"):
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model(input_ids=torch.arange(3, 20)[None]).logits.sum().backward()
    next(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    return model


def test_default_for_full_training_is_the_policy_at_the_start():
    model = tiny.tiny()
    reference = resolve(None, model)
    assert_equal(reference, tiny.tiny())
    assert reference.fingerprint == resolve("start", model).fingerprint
    assert "before the first step" in reference.description


@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"lora_bias": True}])
def test_default_under_a_fresh_lora_is_the_base(settings):
    model = tiny.lora(tiny.tiny(), trained=False, **settings)
    reference = resolve(None, model)
    assert "base" in reference.description
    assert_equal(reference, tiny.tiny())
    tiny.train(model)  # the reference stays the base while the adapter learns
    assert_equal(reference, tiny.tiny())
    assert_not(reference, model)


def one_b(model):
    model.get_parameter("base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight").data[0, 0] = 1e-6


def saved_head(model):
    model.get_parameter("base_model.model.lm_head.modules_to_save.default.weight").data[0, 0] += 1e-6


@pytest.mark.parametrize(("change", "settings"), [
    (one_b, {}),
    (saved_head, {"modules_to_save": ["lm_head"]}),
    (lambda model: None, {"init_lora_weights": False}),
    (lambda model: None, {"trainable_token_indices": [3]}),
])  # fmt: skip
def test_pitfall_16_a_trained_adapter_is_never_guessed_about(change, settings):
    model = tiny.lora(tiny.tiny(), trained=False, **settings)
    change(model)
    with pytest.raises(InputError, match="was trained before") as caught:
        resolve(None, model)
    for choice in ("reference=start", "reference=base", "reference=adapter:DIRECTORY"):
        assert choice in caught.value.mend


def test_the_choices_that_are_loaded_are_listed():
    with pytest.raises(InputError) as caught:
        resolve(None, two_adapters())
    assert "reference=adapter:sft" in caught.value.mend


def test_pitfall_16_base_start_and_named_adapter_are_three_different_references():
    model = two_adapters()
    base, start, sft = (resolve(c, model) for c in ("base", "start", "adapter:sft"))
    assert len({base.fingerprint, start.fingerprint, sft.fingerprint}) == 3
    assert_equal(base, tiny.tiny())
    assert_equal(start, model)
    model.set_adapter("sft")
    wanted = oracle(model)
    model.set_adapter("default")
    np.testing.assert_allclose(computed(sft), wanted, rtol=1e-5, atol=1e-5)
    assert base.fingerprint == resolve("start", tiny.tiny()).fingerprint  # one store for the base, however it is met


@pytest.mark.parametrize("choice", ["base", "start", "adapter:sft"])
def test_pitfall_16_state_is_restored_and_dropout_off_in_the_middle_of_training(choice):
    model = busy(two_adapters(modules_to_save=["lm_head"]))
    before = state(model)
    reference = resolve(choice, model)
    first, second = computed(reference), computed(reference)
    np.testing.assert_array_equal(first, second)  # lora_dropout and attention_dropout are on in this model
    assert state(model) == before


def test_state_of_a_full_model_is_restored():
    model = busy(tiny.tiny())
    before = state(model)
    reference = resolve(None, model)
    np.testing.assert_array_equal(computed(reference), computed(reference))
    assert state(model) == before
    model.eval()
    assert_equal(reference, model)


def test_state_is_restored_when_computing_fails():
    model = two_adapters()
    before = state(model)
    reference = resolve("adapter:sft", model)
    bad = tiny.sequences([(2, 2)])
    bad[0].ids[:] = 10_000
    with pytest.raises(IndexError):
        reference.compute(bad)
    assert state(model) == before


@pytest.mark.parametrize("settings", [{"foreach": True}, {"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_start_is_refused_once_the_policy_has_moved(settings, adapter):
    """The reference of an evaluation after training must not be the trained policy (pitfall 19)."""
    model = tiny.lora(tiny.tiny()) if adapter else tiny.tiny()
    reference = resolve("start", model)
    computed(reference)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, **settings)
    TokenLogProbs(model)
    plain_logprobs(model, SEQUENCES, 0).values.sum().backward()
    optimizer.step()
    with pytest.raises(RunError, match="weights have changed since"):
        computed(reference)


def test_the_start_stays_usable_when_weights_are_only_written_again():
    model = tiny.tiny()
    reference = resolve("start", model)
    model.load_state_dict(tiny.tiny().state_dict())
    assert_equal(reference, tiny.tiny())


def test_an_adapter_from_a_directory(tmp_path):
    model = two_adapters()
    model.save_pretrained(tmp_path, selected_adapters=["sft"])
    policy = busy(tiny.lora(tiny.tiny(), trained=False))
    before = {n: p.requires_grad for n, p in policy.named_parameters()}
    reference = resolve(f"adapter:{tmp_path / 'sft'}", policy)
    after = {n: p.requires_grad for n, p in policy.named_parameters()}
    assert before.items() <= after.items()
    assert not any(flag for n, flag in after.items() if n not in before)  # what was added is frozen
    assert policy.active_adapter == "default"
    np.testing.assert_allclose(computed(reference), computed(resolve("adapter:sft", model)), rtol=1e-5, atol=1e-5)
    assert reference.fingerprint == resolve("adapter:sft", model).fingerprint
    assert resolve(f"adapter:{tmp_path / 'sft'}", policy).fingerprint == reference.fingerprint  # loaded once


@pytest.mark.parametrize("other", [
    {"family": "gpt2", "target_modules": ["c_attn"]},
    {"family": "llama", "hidden_size": 64},
    {"family": "llama", "num_hidden_layers": 3},
])  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_nothing(other, tmp_path):
    """User ask 6: an adapter opened, converted for zero layers, silently a fresh one."""
    own = {k: v for k, v in other.items() if k not in ("family", "target_modules")}
    lora = {"target_modules": other["target_modules"]} if "target_modules" in other else {}
    tiny.lora(tiny.tiny(other["family"], **own), **lora).save_pretrained(tmp_path)
    policy = tiny.lora(tiny.tiny(), trained=False)
    before = state(policy)
    with pytest.raises(InputError, match="does not fit the policy's base model"):
        resolve(f"adapter:{tmp_path}", policy)
    assert list(policy.peft_config) == ["default"]
    assert state(policy) == before


def test_a_model_from_a_directory(tmp_path):
    tiny.tiny(seed=5).save_pretrained(tmp_path)
    policy = tiny.tiny()
    reference = resolve(str(tmp_path), policy)
    assert_equal(reference, tiny.tiny(seed=5))
    assert_not(reference, policy)
    assert str(tmp_path) in reference.description
    assert reference.fingerprint == resolve("start", tiny.tiny(seed=5)).fingerprint


def word_tokenizer(words):
    from tokenizers import Tokenizer, models

    vocabulary = {word: i for i, word in enumerate(words)}
    return tf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=words[0])))


def test_another_vocabulary_or_tokenizer_is_refused(tmp_path):
    tiny.tiny(vocab_size=98).save_pretrained(tmp_path / "larger")
    with pytest.raises(InputError, match="98 tokens, the policy one of 97"):
        resolve(str(tmp_path / "larger"), tiny.tiny())
    tiny.tiny().save_pretrained(tmp_path / "same")
    ours = word_tokenizer(["a", "b", "c"])
    resolve(str(tmp_path / "same"), tiny.tiny(), tokenizer=ours)  # none saved with it: nothing to compare
    word_tokenizer(["a", "b", "c"]).save_pretrained(tmp_path / "same")
    resolve(str(tmp_path / "same"), tiny.tiny(), tokenizer=ours)
    word_tokenizer(["a", "c", "b"]).save_pretrained(tmp_path / "same")
    with pytest.raises(InputError, match="another tokenizer: token 'b' is 2 there and 1 in the policy's"):
        resolve(str(tmp_path / "same"), tiny.tiny(), tokenizer=ours)


@pytest.mark.parametrize(("choice", "lora", "says"), [
    ("base", False, "has none"),
    ("adapter:sft", False, "has none"),
    ("adapter:defalt", True, "no adapter of that name"),
])  # fmt: skip
def test_choices_that_do_not_fit(choice, lora, says):
    model = tiny.lora(tiny.tiny()) if lora else tiny.tiny()
    with pytest.raises(InputError, match=says) as caught:
        resolve(choice, model)
    if lora:
        assert "default" in caught.value.mend


def test_an_adapter_directory_without_its_prefix_is_refused_with_the_mend(tmp_path):
    tiny.lora(tiny.tiny()).save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        resolve(str(tmp_path), tiny.tiny())
    assert f"reference=adapter:{tmp_path}" in caught.value.mend


def test_the_dtype_of_computing_is_part_of_the_address():
    model = tiny.tiny()
    plain, cast = resolve(None, model), resolve(None, model, autocast_dtype=torch.bfloat16)
    half = resolve(None, tiny.tiny().to(torch.bfloat16))
    assert len({plain.fingerprint, cast.fingerprint, half.fingerprint}) == 3
    assert plain.tolerance < cast.tolerance == half.tolerance
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = plain_logprobs(model, SEQUENCES, 0).values.numpy()
    exact = oracle(model)
    assert np.linalg.norm(computed(cast) - exact) <= 1.2 * np.linalg.norm(wanted - exact)
    assert np.abs(computed(cast) - exact).max() > 1e-4  # autocast was on


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_stored_once_and_verified(autocast, tmp_path):
    """Fill, open again, verify: within the reference's own tolerance; and refused under another model."""
    rows = tiny.sequences([(4, int(r)) for r in np.random.default_rng(0).integers(0, 20, 60)])
    reference = resolve(None, tiny.tiny(), autocast_dtype=autocast)
    ReferenceStore(tmp_path, reference.fingerprint).fill(rows, reference.compute)
    store = ReferenceStore(tmp_path, reference.fingerprint)
    assert store.verify(rows[::-1], reference.compute, sample=20, tolerance=reference.tolerance) < reference.tolerance
    with pytest.raises(RunError, match="stale"):
        store.verify(rows, resolve(None, tiny.tiny(seed=1)).compute, tolerance=reference.tolerance)
