"""Log-probs in every layout against the padded oracle, over model families, precisions, adapters, ragged extremes.

Nothing is shared by these sequences; `test_engine_packed.py` is about what is.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, disable_dropout, logprobs, pad, plain_logprobs, token_values
from boresight.engine.headform import is_plain
from boresight.errors import InputError

LENGTHS = [(3, 5), (7, 1), (1, 9), (4, 0), (12, 2), (2, 2)]
PAD = 0
LAYOUTS = ("shared", "padded")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def by_hand(model, sequence: Tokens) -> torch.Tensor:
    """One unpadded sequence: no attention mask, no batch, log-softmax in float64, token by token."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(sequence.ids.astype(np.int64))[None]).logits[0].double()
    where = np.nonzero(sequence.mask)[0]
    return torch.tensor(
        [float(logits[t - 1, int(sequence.ids[t])] - torch.logsumexp(logits[t - 1], 0)) for t in where]
    ).double()


def gradients(model, values: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype)
    (values * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, truth, tolerance):
    """Each parameter's gradient within `tolerance` of the norm of the whole gradient."""
    assert ours.keys() == truth.keys()
    whole = torch.stack([g.double().norm() for g in truth.values()]).norm()
    for name, g in truth.items():
        assert (ours[name].double() - g.double()).norm() <= tolerance * whole, name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_oracle_is_the_model_on_each_sequence_alone(family):
    model, sequences = tiny.tiny(family), tiny.sequences(LENGTHS)
    with torch.no_grad():
        values = plain_logprobs(model, sequences, PAD)
    assert values.count == len(LENGTHS)
    for i, sequence in enumerate(sequences):
        ours = values.values[values.owner == i]
        torch.testing.assert_close(ours.double(), by_hand(model, sequence), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_oracle_float32_values_and_every_gradient(family):
    model, sequences = tiny.tiny(family), tiny.sequences(LENGTHS)
    truth = plain_logprobs(model, sequences, PAD)
    expected = gradients(model, truth.values)
    module = TokenLogProbs(model, tile=100)
    assert not module.form.own
    for layout in {module.layout, "padded"}:
        module.layout = layout
        ours = logprobs(module, sequences, PAD)
        torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours.owner, truth.owner)
        assert ours.count == truth.count
        assert_same_gradients(gradients(model, ours.values), expected, 1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_oracle_float64_values_and_every_gradient(family):
    # transformers' eager sliding-window attention turns fp64's lowest number into -inf, and padding rows into NaN
    lengths = [(9, 3), (11, 1), (1, 11)] if family == "gemma2" else LENGTHS
    model, sequences = tiny.tiny(family, dtype=torch.float64), tiny.sequences(lengths)
    if "moe" in family or family == "mixtral":
        model.set_experts_implementation("eager")  # the grouped product has no fp64
    truth = plain_logprobs(model, sequences, PAD)
    expected = gradients(model, truth.values)
    # These families add up the gradients of their norms in fp32, whose order is that of the tokens.
    exact = 1e-7 if family in ("gemma2", "gemma3", "cohere") else 1e-10
    module = TokenLogProbs(model, tile=50)
    for layout in {module.layout, "padded"}:
        module.layout = layout
        ours = logprobs(module, sequences, PAD)
        assert ours.values.dtype == truth.values.dtype == torch.float64
        torch.testing.assert_close(ours.values, truth.values, rtol=1e-10, atol=1e-10)
        assert_same_gradients(gradients(model, ours.values), expected, exact)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_no_further_from_float32_than_the_oracle_in_bfloat16(family, autocast):
    sequences = tiny.sequences([(5, 20)] * 4 + LENGTHS)
    model = tiny.tiny(family)
    with torch.no_grad():
        truth = plain_logprobs(model, sequences, PAD).values
        if not autocast:
            model.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours = logprobs(TokenLogProbs(model, tile=300, layout="padded"), sequences, PAD).values
            half = plain_logprobs(model, sequences, PAD).values
    assert ours.dtype == torch.float32
    assert (ours - half).norm() <= 1.1 * (half - truth).norm()
    assert (ours - truth).norm() <= 1.1 * (half - truth).norm()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batch_of_one_equals_batch(family):
    model, sequences = tiny.tiny(family), tiny.sequences(LENGTHS)
    module = TokenLogProbs(model)
    with torch.no_grad():
        for layout in {module.layout, "padded"}:
            module.layout = layout
            batch = logprobs(module, sequences, PAD)
            for i, sequence in enumerate(sequences):
                alone = logprobs(module, [sequence], PAD).values
                torch.testing.assert_close(batch.values[batch.owner == i], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [
    {},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": "all-linear", "use_dora": True},
    {"modules_to_save": ["lm_head"]},
    {"target_modules": ["q_proj"], "trainable_token_indices": [5, 9]},
])  # fmt: skip
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite"])
@each_layout
def test_lora_equals_oracle_lm_head_included(family, settings, layout):
    """Pitfall 16: adapters on the lm_head are ignored by fused heads."""
    model, sequences = tiny.lora(tiny.tiny(family), **settings), tiny.sequences(LENGTHS)
    if "modules_to_save" in settings:
        for name, p in model.named_parameters():
            if "modules_to_save" in name:
                p.data.mul_(1.5)
    module = TokenLogProbs(model, tile=300, layout=layout)
    ours, truth = logprobs(module, sequences, PAD), plain_logprobs(model, sequences, PAD)
    torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, ours.values), gradients(model, truth.values), 1e-5)
    with torch.no_grad(), model.disable_adapter():
        assert (plain_logprobs(model, sequences, PAD).values - truth.values).abs().max() > 1e-2  # the adapter acts
        torch.testing.assert_close(
            logprobs(TokenLogProbs(model, layout=layout), sequences, PAD).values,
            plain_logprobs(model, sequences, PAD).values,
            rtol=1e-5,
            atol=1e-5,
        )


def test_lora_put_on_after_the_module_was_made_is_seen():
    model, sequences = tiny.tiny(), tiny.sequences(LENGTHS)
    module = TokenLogProbs(model)
    tiny.lora(model, target_modules=["lm_head"])
    torch.testing.assert_close(
        logprobs(module, sequences, PAD).values, plain_logprobs(model, sequences, PAD).values, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("adapter", [False, True])
@each_layout
def test_gradient_checkpointing_in_training_mode(adapter, layout):
    model, sequences = tiny.tiny(), tiny.sequences(LENGTHS)
    if adapter:
        model = tiny.lora(model)
        model.enable_input_require_grads()
    disable_dropout(model)
    truth = gradients(model, plain_logprobs(model, sequences, PAD).values)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    module = TokenLogProbs(model, layout=layout)
    assert_same_gradients(gradients(model, logprobs(module, sequences, PAD).values), truth, 1e-5)


def hook_head(model):
    model.lm_head.register_forward_hook(lambda module, args, output: output * 2)


def twist(model):
    own = type(model).forward

    def forward(self, *args, **kwargs):
        out = own(self, *args, **kwargs)
        out.logits = out.logits + out.logits.new_tensor([0.3] * 50 + [0.0] * (tiny.VOCABULARY - 50))
        return out

    model.__class__ = type("Twisted", (type(model),), {"forward": forward})


def double(model):
    own = type(model).forward

    def forward(self, *args, **kwargs):
        out = own(self, *args, **kwargs)
        out.logits = out.logits * 2
        return out

    model.__class__ = type("Doubled", (type(model),), {"forward": forward})


@pytest.mark.parametrize(("change", "says"), [(hook_head, False), (twist, True), (double, True)])
@each_layout
def test_heads_of_another_kind_are_recognised_and_right(change, says, layout, caplog):
    """What the configuration does not tell is found by measuring, and said in one line."""
    model, sequences = tiny.tiny(), tiny.sequences(LENGTHS)
    change(model)
    with caplog.at_level(logging.WARNING, "boresight"):
        module = TokenLogProbs(model, tile=300, layout=layout)
    assert module.form.own == says
    assert len(caplog.records) == int(says)
    ours, truth = logprobs(module, sequences, PAD), plain_logprobs(model, sequences, PAD)
    torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, ours.values), gradients(model, truth.values), 1e-5)
    empty = logprobs(module, [], PAD)
    assert empty.values.shape == (0,)
    empty.values.sum().backward()


def test_a_plain_head_is_used_directly_and_others_are_not():
    model = tiny.tiny()
    assert is_plain(model.lm_head)
    assert not is_plain(tiny.lora(model, target_modules=["lm_head"]).get_base_model().lm_head)


def test_looking_at_the_head_leaves_no_trace():
    model = tiny.tiny().train()
    model.model.layers[0].eval()
    state = torch.random.get_rng_state()
    flags = [m.training for m in model.modules()]
    TokenLogProbs(model)
    assert flags == [m.training for m in model.modules()]
    assert torch.equal(state, torch.random.get_rng_state())
    assert not model.lm_head._forward_hooks


def test_prompt_tuning_is_refused():
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(tiny.tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(InputError, match="virtual tokens"):
        TokenLogProbs(model)


def test_on_the_meta_device_the_head_is_looked_at_on_first_use():
    with torch.device("meta"):
        model = tiny.tiny()
    module = TokenLogProbs(model)
    real = tiny.tiny()
    model.to_empty(device="cpu")
    model.load_state_dict(real.state_dict())
    for ours, theirs in zip(model.buffers(), real.buffers(), strict=True):
        ours.copy_(theirs)
    sequences = tiny.sequences(LENGTHS)
    torch.testing.assert_close(
        logprobs(module, sequences, PAD).values, plain_logprobs(real, sequences, PAD).values, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("sequences", [[], tiny.sequences([(4, 0), (2, 0)])])
@each_layout
def test_no_response_tokens_at_all_still_reaches_every_parameter(sequences, layout):
    model = tiny.tiny()
    values = logprobs(TokenLogProbs(model, layout=layout), sequences, PAD)
    assert values.count == len(sequences)
    assert values.sum().shape == (len(sequences),)
    values.values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert plain_logprobs(model, sequences, PAD).values.shape == (0,)


@each_layout
def test_responses_in_several_spans(layout):
    ids = np.arange(3, 13, dtype=np.int32)
    mask = np.isin(np.arange(10), [2, 3, 7])
    model, sequence = tiny.tiny(), Tokens(ids, mask, True)
    with torch.no_grad():
        module = TokenLogProbs(model, layout=layout)
        ours = logprobs(module, [sequence, *tiny.sequences([(2, 15)])], PAD)
    torch.testing.assert_close(ours.values[:3].double(), by_hand(model, sequence), rtol=1e-5, atol=1e-5)


@each_layout
def test_pad_is_told_by_the_mask_never_by_the_id(layout):
    """Pitfall 12: pad = EOS, and EOS inside the text."""
    model = tiny.tiny()
    ids = np.array([3, 2, 5, 2, 2], np.int32)
    sequences = [Tokens(ids, np.arange(5) >= 2, True), *tiny.sequences([(6, 6)])]
    with torch.no_grad():
        module = TokenLogProbs(model, layout=layout)
        values = [logprobs(module, sequences, pad_id).values for pad_id in (0, 2, 5)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_pad_lays_out_what_the_docstring_says():
    a = Tokens(np.array([5, 6, 7], np.int32), np.array([False, True, True]), True)
    b = Tokens(np.array([8], np.int32), np.array([False]), True)
    batch = pad([a, b], 9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.predictor.tolist() == [0, 1]
    assert batch.targets.tolist() == [6, 7]
    assert batch.owner.tolist() == [0, 0]
    assert batch.count == 2
    assert pad([], 0).input_ids.shape == (0, 0)


@each_layout
@pytest.mark.parametrize("budget", [5, 70])
def test_values_in_order_with_training_flags_kept_and_progress_counted(layout, budget):
    model = tiny.tiny().train()
    model.model.norm.eval()
    flags = [m.training for m in model.modules()]
    random = np.random.default_rng(3)
    sequences = tiny.sequences([(int(p), int(r)) for p, r in random.integers(1, 15, (23, 2))] + [(3, 0)])
    done: list[int] = []
    values = token_values(TokenLogProbs(model, layout=layout), sequences, PAD, budget, done.append)
    assert sum(done) == 24
    assert flags == [m.training for m in model.modules()]
    model.eval()
    for value, sequence in zip(values, sequences, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, by_hand(model, sequence).numpy(), rtol=1e-5, atol=1e-5)
    assert token_values(TokenLogProbs(model), [], PAD, 5) == []


@each_layout
def test_pitfall_17_sums_near_minus_512_keep_their_fractions(layout):
    """In bf16 a sum near -512 moves in steps of 2 to 4 nats; a margin of 0.01 must survive bf16 weights."""
    model = tiny.tiny().to(torch.bfloat16)
    (sequence,) = tiny.sequences([(2, 85)])
    with torch.no_grad():
        ours = logprobs(TokenLogProbs(model, layout=layout), [sequence], PAD)
        logits = model(input_ids=torch.from_numpy(sequence.ids.astype(np.int64))[None]).logits[0]
    total = ours.sum()
    assert total.dtype == torch.float32
    assert -700 < float(total) < -400
    exact = torch.log_softmax(logits.double(), -1)[torch.arange(1, 86), torch.from_numpy(sequence.ids[2:]).long()].sum()
    assert abs(float(total) - float(exact)) < 1e-3
