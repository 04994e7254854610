"""Which models are packed: what cannot be is recognised, and what is packed is left as it was."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, logprobs, plain_logprobs
from boresight.engine.layout import pack
from boresight.engine.segments import CannotPack
from boresight.training.sample import sample
from test_engine_packed import PACKED, PAD, alone, assert_close, behind, fresh, mixed
from test_engine_padded import assert_same_gradients, gradients
from test_training_sample import Letters, some_prompts

PADDED = ["gptj", *tiny.PADDED]


@pytest.mark.parametrize("family", PADDED)
def test_models_that_cannot_be_packed_say_so_once_and_are_right(family, caplog):
    model, untouched = fresh(family)
    before = model.config._attn_implementation
    with caplog.at_level(logging.WARNING, "boresight.engine.packing"):
        module = TokenLogProbs(model, layout="shared")
    assert module.layout == "padded"
    lines = [r.getMessage() for r in caplog.records if r.name == "boresight.engine.packing"]
    assert len(lines) == 1
    assert "padded instead of packed" in lines[0]
    assert "\n" not in lines[0]
    assert model.config._attn_implementation == before
    sequences = mixed()
    ours, truth = logprobs(module, sequences, PAD), plain_logprobs(untouched, sequences, PAD)
    assert_close(ours.values, truth.values)
    assert_same_gradients(gradients(model, ours.values), gradients(untouched, truth.values), 1e-5)


def ignore_mask(model):
    """A layer that attends to everything before it."""
    layer = model.model.layers[1].self_attn
    own = layer.forward
    layer.forward = lambda *args, **options: own(*args, **options | {"attention_mask": None})


def copy_mask(model):
    """A layer that hands down a copy of its mask."""
    layer = model.model.layers[1].self_attn
    own = layer.forward

    def forward(*args, **options):
        mask = options.pop("attention_mask")
        return own(*args, attention_mask=None if mask is None else mask.clone(), **options)

    layer.forward = forward


def own_positions(model):
    """Positions counted from the start of the row, whatever is asked for."""
    rotary = model.model.rotary_emb
    own = rotary.forward
    rotary.forward = lambda x, position_ids: own(x, torch.arange(x.shape[1])[None])


def convolve(model):
    """A layer that mixes each token with the one before it."""
    model.model.layers[0].mlp.register_forward_hook(lambda _, __, out: out + 0.5 * out.roll(1, 1))


def whole_row(model):
    """A layer that adds the mean of the row."""
    model.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + args[0].mean(1, keepdim=True),))


def bias(model):
    """A layer that adds a bias to its scores."""
    layer = model.model.layers[0].self_attn
    own = layer.forward
    layer.forward = lambda *args, **options: own(*args, **options | {"position_bias": torch.ones(1, 4, 1, 1)})


def tells(model, window):
    """A layer that tells its attention another window than that of its mask, both longer than the probe."""
    layer = model.model.layers[1].self_attn
    own = layer.forward

    def forward(*args, **options):
        truly, layer.config.sliding_window = layer.config.sliding_window, window
        out = own(*args, **options)
        layer.config.sliding_window = truly
        return out

    layer.forward = forward


def silent_window(model):
    tells(model, None)


def another_window(model):
    tells(model, 70)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ignore_mask, "1 of its 2 layers"),
        (copy_mask, "does not hand down"),
        (own_positions, "differ from those of each sequence alone"),
        (convolve, "differ from those of each sequence alone"),
        (whole_row, "differ from those of each sequence alone"),
        (bias, "adds a bias"),
        (silent_window, "keep their sliding window to themselves"),
        (another_window, "tell a sliding window that is not that"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planted_faults_are_seen_and_the_model_is_put_back(fault, says, dtype, caplog):
    model = tiny.tiny("mistral", sliding_window=60, dtype=dtype)
    fault(model)
    with caplog.at_level(logging.WARNING, "boresight.engine.packing"):
        assert TokenLogProbs(model).layout == "padded"
    assert says in caplog.text
    assert model.config._attn_implementation == "sdpa"


def test_a_mask_that_is_lost_later_raises():
    """A model that passed, and is changed afterwards so that its layers get a copy of the mask."""
    model = tiny.tiny()
    module = TokenLogProbs(model)
    copy_mask(model)
    with pytest.raises(CannotPack, match="does not hand down the attention mask"):
        logprobs(module, mixed(), PAD)


# What is left of it in the model


@pytest.mark.parametrize("family", PACKED)
def test_padded_batches_and_generation_are_what_they_were(family):
    model, untouched = fresh(family)
    assert TokenLogProbs(model).layout == "shared"
    assert model.config._attn_implementation.startswith("boresight-")
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    with torch.no_grad():
        for given_mask in (mask, None):
            ours = model(input_ids=ids, attention_mask=given_mask).logits
            assert torch.equal(ours, untouched(input_ids=ids, attention_mask=given_mask).logits)
        options = {"max_new_tokens": 6, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        ours, theirs = (m.generate(input_ids=ids, attention_mask=mask, **options) for m in (model, untouched))
    assert torch.equal(ours.sequences, theirs.sequences)
    assert all(torch.equal(a, b) for a, b in zip(ours.scores, theirs.scores, strict=True))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt-oss"])
def test_samples_are_what_they_were_also_after_training_steps(family):
    model, untouched = fresh(family)
    logprobs(TokenLogProbs(model), mixed(), PAD).values.sum().backward()
    ours, theirs = (sample(m, Letters(), some_prompts(), max_new_tokens=8) for m in (model, untouched))
    assert [(s.text, s.logprob_sum) for s in ours] == [(s.text, s.logprob_sum) for s in theirs]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt-oss"])
def test_what_is_saved_names_no_attention_of_ours(family, tmp_path):
    import transformers as tf

    model = tiny.tiny(family)
    sequences = mixed()
    ours = logprobs(TokenLogProbs(model), sequences, PAD).values
    model.save_pretrained(tmp_path)
    assert "boresight" not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model.config.model_type
    loaded = tf.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not loaded.config._attn_implementation.startswith("boresight")
    assert_close(alone(loaded, sequences), ours.detach())


def test_a_model_made_anew_from_its_configuration_or_copied_works():
    import transformers as tf

    model, untouched = fresh("llama")
    sequences = mixed()
    TokenLogProbs(model)
    again = tf.AutoModelForCausalLM.from_config(model.config).eval()
    again.load_state_dict(model.state_dict())
    for other in (again, copy.deepcopy(model)):
        assert_close(logprobs(TokenLogProbs(other), sequences, PAD).values, alone(untouched, sequences))
        assert_close(alone(other, sequences), alone(untouched, sequences))


def test_looking_at_the_model_leaves_no_trace():
    model = tiny.tiny().train()
    model.model.layers[0].eval()
    state, flags = torch.random.get_rng_state(), [m.training for m in model.modules()]
    weights = {n: p.clone() for n, p in model.named_parameters()}
    assert TokenLogProbs(model).layout == "shared"
    assert flags == [m.training for m in model.modules()]
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(weights[n], p) and p.grad is None for n, p in model.named_parameters())


# What is saved


def seen(module: TokenLogProbs, sequences: list[Tokens]) -> int:
    """Tokens that the first layer of the trunk is given."""
    count: list[int] = []
    layer = module.model.model.layers[0]
    handle = layer.register_forward_pre_hook(lambda _, args: count.append(args[0].shape[:2].numel()))
    with torch.no_grad():
        logprobs(module, sequences, PAD)
    handle.remove()
    return sum(count)


def test_the_trunk_sees_each_prompt_once_and_no_padding():
    """4 prompts of 30, 8 responses of 10 that part at once: 4 * (30 + 8 * 9) tokens instead of 4 * 8 * 40."""
    sequences: list[Tokens] = []
    for p in range(4):
        sequences += behind([p + 3] * 30, *([k + 10] * 10 for k in range(8)))
    module = TokenLogProbs(tiny.tiny())
    assert seen(module, sequences) == 4 * (30 + 8 * 9) == pack(sequences).input_ids.numel()
    module.layout = "packed"
    assert seen(module, sequences) == 4 * 8 * 39
    module.layout = "padded"
    assert seen(module, sequences) == 4 * 8 * 40
