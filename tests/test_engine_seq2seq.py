"""Encoder-decoder models against transformers' own call with labels, one sequence at a time."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import transformers as tf

import tiny
from boresight.data.tokens import Tokens
from boresight.engine.dropout import disable_dropout
from boresight.engine.module import log_probs_module
from boresight.engine.padded import TokenLogProbs, inner, logprobs
from boresight.engine.seq2seq import Seq2SeqLogProbs, padded_seq2seq_logprobs, plain_seq2seq_logprobs
from boresight.engine.seq2seq_batch import lay
from boresight.errors import InputError
from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo
from test_engine_padded import assert_same_gradients, gradients

PAD = 0
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "initializer_factor": 1.0,
       "decoder_start_token_id": 0, "dropout_rate": 0.1}  # fmt: skip
_BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
         "init_std": 0.3, "decoder_start_token_id": 2, "dropout": 0.1}  # fmt: skip
FAMILIES = {
    "t5": ("T5", _T5),  # head tied to the embedding, and hidden states scaled before it
    "t5-v1.1": ("T5", _T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5", _T5),
    "bart": ("Bart", _BART),
    "bart-scaled": ("Bart", _BART | {"scale_embedding": True, "tie_word_embeddings": False}),
    "marian": ("Marian", _BART),
    "pegasus": ("Pegasus", _BART),
}


def model_of(family: str, dtype: torch.dtype = torch.float32):
    name, own = FAMILIES[family]
    config = getattr(tf, f"{name}Config")(vocab_size=97, pad_token_id=0, eos_token_id=1, bos_token_id=2, **own)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.AutoModelForSeq2SeqLM.from_config(config)
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model.to(dtype).eval()


def exact_norms(model):
    """T5's norm in the model's precision: its own rounds to fp32 on the way."""
    for module in model.modules():
        if type(module).__name__ in ("T5LayerNorm", "MT5LayerNorm"):

            def forward(x, module=module):
                return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon) * module.weight

            module.forward = forward
    return model


def fresh(family: str, dtype: torch.dtype = torch.float32):
    return model_of(family, dtype), model_of(family, dtype)


def mixed() -> list[Tokens]:
    """Prompts that are shared, of one token, of many; responses of one token, of none, equal ones."""
    random = np.random.default_rng(0)

    def draw(n: int) -> list[int]:
        return random.integers(3, 97, n).tolist()

    one, two, equal = draw(9), draw(1), draw(5)
    made = []
    parts = [(one, draw(6)), (two, equal), (one, draw(1)), (draw(4), []), (two, equal), (draw(3), [1, 0])]
    for prompt, response in [*parts, (one, draw(11))]:
        mask = [False] * len(prompt) + [True] * len(response)
        made.append(Tokens(np.array(prompt + response, np.int32), np.array(mask), True))
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_values_and_every_gradient_equal_the_call_with_labels(family, dtype, tolerance):
    model, untouched = (exact_norms(m) for m in fresh(family, dtype))
    module, sequences = Seq2SeqLogProbs(model, tile=200), mixed()
    assert not module.form.own
    ours, truth = logprobs(module, sequences, PAD), plain_seq2seq_logprobs(untouched, sequences, PAD)
    assert ours.values.dtype == dtype
    torch.testing.assert_close(ours.values, truth.values, rtol=tolerance, atol=tolerance)
    assert torch.equal(ours.owner, truth.owner)
    assert ours.count == truth.count == 7
    if family.startswith(("t5", "mt5")):
        tolerance = max(tolerance, 1e-6)  # their attention takes its softmax in fp32
    assert_same_gradients(gradients(model, ours.values), gradients(untouched, truth.values), tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_padded_oracle_is_the_one_without_padding(family):
    model = model_of(family)
    with torch.no_grad():
        padded, truth = (f(model, mixed(), 5) for f in (padded_seq2seq_logprobs, plain_seq2seq_logprobs))
    torch.testing.assert_close(padded.values, truth.values, rtol=1e-5, atol=1e-5)
    assert torch.equal(padded.owner, truth.owner)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_mean_is_transformers_loss(family):
    model, (sequence, *_) = model_of(family), mixed()
    ids = torch.from_numpy(sequence.ids).long()[None]
    with torch.no_grad():
        loss = model(input_ids=ids[:, :9], labels=ids[:, 9:]).loss
        ours = logprobs(Seq2SeqLogProbs(model), [sequence], PAD).values
    if family == "bart":  # its loss too is of the logits with their bias
        assert model.final_logits_bias.abs().max() > 0.1
    torch.testing.assert_close(-ours.mean(), loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_no_further_from_float32_than_the_model_itself(family, autocast):
    model, untouched = fresh(family)
    sequences = [*mixed(), *tiny.sequences([(5, 20)] * 4)]
    with torch.no_grad():
        truth = plain_seq2seq_logprobs(untouched, sequences, PAD).values
        if not autocast:
            model.to(torch.bfloat16)
            untouched.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours = logprobs(Seq2SeqLogProbs(model), sequences, PAD).values
            half = plain_seq2seq_logprobs(untouched, sequences, PAD).values
    assert ours.dtype == torch.float32
    assert (ours - truth).norm() <= 1.2 * (half - truth).norm()


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("targets", [["q", "q_proj"], ["q", "q_proj", "lm_head"]])
def test_lora_the_head_included(family, targets):
    options = {"target_modules": targets, "task_type": "SEQ_2_SEQ_LM"}
    model, untouched = (tiny.lora(m, **options) for m in fresh(family))
    sequences = mixed()
    ours = logprobs(Seq2SeqLogProbs(model, tile=300), sequences, PAD)
    truth = plain_seq2seq_logprobs(untouched, sequences, PAD)
    torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, ours.values), gradients(untouched, truth.values), 1e-5)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_gradient_checkpointing_in_training_mode(family):
    model, untouched = fresh(family)
    sequences = mixed()
    expected = gradients(untouched, plain_seq2seq_logprobs(untouched, sequences, PAD).values)
    disable_dropout(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    ours = gradients(model, logprobs(Seq2SeqLogProbs(model), sequences, PAD).values)
    assert_same_gradients(ours, expected, 1e-5)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_dpo_over_pairs(family):
    model, untouched = fresh(family)
    sequences = [mixed()[i] for i in (0, 2, 1, 4, 5, 6)]
    reference = LogProbs.from_sums(torch.linspace(-40, -3, 6))
    found = []
    for m, values in (
        (model, logprobs(Seq2SeqLogProbs(model), sequences, PAD)),
        (untouched, plain_seq2seq_logprobs(untouched, sequences, PAD)),
    ):
        even = torch.arange(0, 6, 2)
        sides = [PairSide(x.select(even), x.select(even + 1)) for x in (values, reference)]
        loss = dpo(PairLogProbs(*sides)).sum()
        m.zero_grad()
        loss.backward()
        found.append((float(loss.detach()), {n: p.grad.clone() for n, p in m.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_same_gradients(found[0][1], found[1][1], 1e-5)


def test_a_loss_in_parts_is_the_loss_of_its_values():
    """What `loss.total_loss` asks of the module: the summed losses of parts of the tokens, and the values."""
    model, untouched = fresh("t5")
    module = Seq2SeqLogProbs(model)
    batch = module.arrange(mixed(), PAD)
    parts = [torch.tensor([0, 3, 4]), torch.tensor([7, 5])]
    total, values = module(**batch.inputs(), fused=(parts, lambda g, v: (v.square() * (g + 1)).sum()))
    assert not values.requires_grad
    truth = plain_seq2seq_logprobs(untouched, mixed(), PAD).values
    expected = truth[parts[0]].square().sum() + 2 * truth[parts[1]].square().sum()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, truth.detach(), rtol=1e-5, atol=1e-5)
    total.backward()
    expected.backward()
    ours, theirs = ({n: p.grad for n, p in m.named_parameters()} for m in (model, untouched))
    assert_same_gradients(ours, theirs, 1e-5)


def test_the_encoder_sees_each_prompt_once_and_the_head_only_response_positions():
    model = model_of("t5")
    module, seen = Seq2SeqLogProbs(model), []
    model.encoder.register_forward_pre_hook(
        lambda _, args, options: seen.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    logits: list[int] = []
    model.lm_head.register_forward_hook(lambda _, __, out: logits.append(out.numel()))
    with torch.no_grad():
        logprobs(module, mixed(), PAD)
    assert seen == [(3, 9)]  # the prompt without a response is not read
    assert logits == [0]


def test_batch_by_hand():
    sequences = [
        Tokens(np.array([3, 4, 5, 6], np.int32), np.array([0, 0, 1, 1], bool), True),
        Tokens(np.array([7, 8, 9], np.int32), np.array([0, 1, 0], bool), True),  # what follows is not seen
        Tokens(np.array([5], np.int32), np.array([False]), True),
        Tokens(np.array([3, 4, 9], np.int32), np.array([0, 0, 1], bool), True),
    ]
    batch = lay(sequences, 50, 60)
    assert batch.prompt_ids.tolist() == [[3, 4], [7, 50]]
    assert batch.prompt_mask.tolist() == [[1, 1], [1, 0]]
    assert batch.source.tolist() == [0, 1, 0]
    assert batch.input_ids.tolist() == [[60, 5], [60, 8], [60, 9]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0], [1, 0]]
    assert batch.predictor.tolist() == [0, 1, 2, 4]
    assert batch.targets.tolist() == [5, 6, 8, 9]
    assert batch.owner.tolist() == [0, 0, 1, 3]
    assert batch.count == 4


def test_pad_is_told_by_the_mask_never_by_the_id():
    model, sequences = model_of("bart"), mixed()
    with torch.no_grad():
        values = [logprobs(Seq2SeqLogProbs(model), sequences, p).values for p in (0, 1, 50)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    torch.testing.assert_close(values[0], values[2], rtol=0, atol=0)


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("sequences", [[], [mixed()[3]]])
def test_no_response_at_all_still_reaches_every_parameter(family, sequences):
    model = model_of(family)
    values = logprobs(Seq2SeqLogProbs(model), sequences, PAD)
    assert values.count == len(sequences)
    assert values.values.shape == (0,)
    values.values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_logits_changed_in_a_way_that_is_not_known_are_the_models_own(caplog):
    model, untouched = fresh("t5")
    for m in (model, untouched):
        own = type(m).forward

        def forward(self, *args, own=own, **options):
            out = own(self, *args, **options)
            out.logits = out.logits + torch.linspace(0, 2, 97)
            return out

        m.__class__ = type("Twisted", (type(m),), {"forward": forward})
    with caplog.at_level(logging.WARNING, "boresight.engine"):
        module = Seq2SeqLogProbs(model)
    assert module.form.own
    assert len(caplog.records) == 1
    ours, truth = (f(m, mixed(), PAD) for f, m in ((logprobs, module), (plain_seq2seq_logprobs, untouched)))
    torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)


def test_a_soft_cap_and_the_head_put_back():
    config = tf.T5GemmaConfig(
        encoder=(small := tf.T5GemmaModuleConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, initializer_range=0.3, final_logit_softcapping=4.0, dropout_rate=0.0,
        )).to_dict(), decoder=small.to_dict(), vocab_size=97, tie_word_embeddings=False, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = tf.AutoModelForSeq2SeqLM.from_config(config).eval()
    truth = plain_seq2seq_logprobs(model, mixed(), PAD)
    expected = gradients(model, truth.values)
    module = Seq2SeqLogProbs(model)
    assert (module.form.own, module.form.cap) == (False, 4.0)
    ours = logprobs(module, mixed(), PAD)
    torch.testing.assert_close(ours.values, truth.values, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, ours.values), expected, 1e-5)
    assert all("forward" not in vars(m) for m in model.modules())


def test_what_cannot_be_done_is_refused():
    with pytest.raises(InputError, match="not a language model with an encoder"):
        Seq2SeqLogProbs(tiny.tiny())
    assert type(log_probs_module(tiny.tiny())) is TokenLogProbs
    assert type(log_probs_module(tiny.lora(model_of("bart"), target_modules=["q_proj"]))) is Seq2SeqLogProbs
    model = model_of("t5")
    module = Seq2SeqLogProbs(model)
    assert inner(module) is module
    assert module.layout == "padded"
    with pytest.raises(InputError, match="cannot be packed"):
        module.layout = "shared"
    with pytest.raises(InputError, match="does not begin its decoder with"):
        Seq2SeqLogProbs(tf.MBartForConditionalGeneration(tf.MBartConfig(vocab_size=97, **_BART)))
    turns = Tokens(np.arange(3, 9, dtype=np.int32), np.array([0, 1, 0, 0, 1, 1], bool), True)
    with pytest.raises(InputError, match="several spans"):
        logprobs(module, [turns], PAD)
    model.config.decoder_start_token_id = None
    model.generation_config.decoder_start_token_id = None
    with pytest.raises(InputError, match="decoder_start_token_id"):
        Seq2SeqLogProbs(model)
