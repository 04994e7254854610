"""Scores of reward models: the last real token by the mask, whatever the pad id is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import ResponseScores, pad
from boresight.engine.scores import score_values, scores
from boresight.errors import InputError

LENGTHS = [(3, 5), (7, 1), (1, 9), (4, 0), (12, 2)]
FAMILIES = [f for f in tiny.FAMILIES if f not in ("cohere", "granite", "opt")]  # no such class for the first two


def alone(model, sequence) -> float:
    """The score by transformers of one unpadded sequence."""
    ids = torch.from_numpy(sequence.ids).long()[None]
    return float(model(input_ids=ids).logits[0, 0])


@pytest.mark.parametrize("family", [*FAMILIES, "opt"])
def test_equals_transformers_where_pad_is_not_in_the_text(family):
    model, sequences = tiny.tiny_reward(family), tiny.sequences(LENGTHS)
    batch = pad(sequences, 0)
    with torch.no_grad():
        ours = ResponseScores(model)(batch.input_ids, batch.attention_mask)
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert ours.shape == (5,)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_pitfall_12_pad_is_eos_and_eos_ends_the_text(family):
    model, sequences = tiny.tiny_reward(family), tiny.sequences(LENGTHS)
    for sequence in sequences:
        sequence.ids[-1] = 2
    batch = pad(sequences, 2)
    with torch.no_grad():
        truth = torch.tensor([alone(model, s) for s in sequences])
        model.config.pad_token_id = 2
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
        ours = ResponseScores(model)(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)
    assert (theirs - truth).abs().max() > 1e-2  # the pitfall is there


@pytest.mark.parametrize("family", [*FAMILIES, "opt"])
def test_every_layout_equals_transformers_on_each_alone(family):
    """Prompts that are shared, a sequence that begins another, equal ones, and one without a response."""
    model, sequences = tiny.tiny_reward(family), tiny.sequences(LENGTHS)
    long, other = sequences[4], sequences[0]
    sequences += [
        Tokens(long.ids[:13], long.mask[:13], True),
        Tokens(np.concatenate([long.ids[:12], other.ids]), np.arange(20) >= 12, True),
        Tokens(other.ids, other.mask, True),
    ]
    with torch.no_grad():
        truth = torch.tensor([alone(model, s) for s in sequences])
        module = ResponseScores(model)
        for layout in {module.layout, "packed" if module.layout == "shared" else "padded", "padded"}:
            module.layout = layout
            torch.testing.assert_close(scores(module, sequences, 0), truth, rtol=1e-5, atol=1e-5)
            for budget in (1, 30, 1000):
                values = score_values(module, sequences, 0, budget)
                np.testing.assert_allclose(values, truth.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_alone_equals_in_a_batch(family):
    module, sequences = ResponseScores(tiny.tiny_reward(family)), tiny.sequences(LENGTHS)
    batch = pad(sequences, 0)
    with torch.no_grad():
        together = module(batch.input_ids, batch.attention_mask)
        for i, sequence in enumerate(sequences):
            one = pad([sequence], 0)
            torch.testing.assert_close(
                module(one.input_ids, one.attention_mask), together[i : i + 1], rtol=1e-5, atol=1e-5
            )


def test_left_padding_reads_the_last_token_too():
    module = ResponseScores(tiny.tiny_reward())
    ids = torch.tensor([[5, 6, 7]])
    left, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        torch.testing.assert_close(module(left, mask), module(ids, torch.ones_like(ids)), rtol=1e-4, atol=1e-4)


def test_gradients_equal_transformers_also_under_lora():
    model = tiny.lora(tiny.tiny_reward(), task_type="SEQ_CLS")
    batch = pad(tiny.sequences(LENGTHS), 0)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    found = []
    for values in (
        ResponseScores(model)(batch.input_ids, batch.attention_mask),
        scores(ResponseScores(model), tiny.sequences(LENGTHS), 0),
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0],
    ):
        model.zero_grad(set_to_none=True)
        (values * weights).sum().backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert any("score" in name for name in found[0])
    for name, g in found[2].items():
        torch.testing.assert_close(found[0][name], g, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1][name], g, rtol=1e-4, atol=1e-5)


def test_encoders_answer_for_themselves():
    import transformers as tf

    config = tf.BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=1
    )
    model = tf.BertForSequenceClassification(config).eval()
    batch = pad(tiny.sequences(LENGTHS), 0)
    with torch.no_grad():
        ours = ResponseScores(model)(batch.input_ids, batch.attention_mask)
        torch.testing.assert_close(
            ours, torch.tensor([alone(model, s) for s in tiny.sequences(LENGTHS)]), rtol=1e-5, atol=1e-5
        )


def test_what_is_not_a_reward_model_is_refused():
    with pytest.raises(InputError, match="3 labels"):
        ResponseScores(tiny.tiny_reward(num_labels=3))
    import transformers as tf

    config = tf.T5Config(vocab_size=97, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, num_labels=1)
    with pytest.raises(InputError, match="no `score` head"):
        ResponseScores(tf.T5ForSequenceClassification(config))


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_no_sequences_in_any_layout(layout):
    module = ResponseScores(tiny.tiny_reward())
    module.layout = layout
    values = scores(module, [], 0)
    assert values.shape == (0,)
    values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
    assert score_values(module, [], 0).shape == (0,)


def test_no_sequences():
    model = tiny.tiny_reward()
    batch = pad([], 0)
    values = ResponseScores(model)(batch.input_ids, batch.attention_mask)
    assert values.shape == (0,)
    values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
