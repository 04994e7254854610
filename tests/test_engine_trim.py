"""The last layer's feed-forward part is computed where something is predicted, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, logprobs, plain_logprobs
from boresight.engine.layout import pack
from boresight.engine.trim import trimmed

PAD = 0


def pair(prompt: int, chosen: int, rejected: int) -> list[Tokens]:
    random = np.random.default_rng(prompt)
    head = random.integers(3, tiny.VOCABULARY, prompt)
    made = []
    for length in (chosen, rejected):
        ids = np.concatenate([head, random.integers(3, tiny.VOCABULARY, length)]).astype(np.int32)
        made.append(Tokens(ids, np.arange(len(ids)) >= prompt, True))
    return made


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt-neox", "phi"])
def test_only_what_predicts_goes_through_it(family):
    model, sequences = tiny.tiny(family), [*pair(20, 3, 5), *pair(9, 1, 2)]
    module, seen = TokenLogProbs(model), []
    assert module.trim is not None
    first = next(m for m in model.modules() if type(m) is type(module.trim))
    own, other = (
        part.register_forward_hook(lambda _, given, made, n=n: seen.append((n, given[0].shape[1], made.shape[1])))
        for n, part in enumerate((first, module.trim))
    )
    inside = []
    linear = next(m for m in module.trim.modules() if isinstance(m, torch.nn.Linear))
    linear.register_forward_hook(
        lambda _, given, made: inside.append(given[0].reshape(-1, given[0].shape[-1]).shape[0])
    )
    ours = logprobs(module, sequences, PAD)
    own.remove()
    other.remove()
    # By hand: the trunk lays 20 + 2 + 4 and 9 + 0 + 1 tokens; 3 + 5 - 1 and 1 + 2 - 1 places predict, the last token
    # of each prompt twice.
    assert seen == [(0, 36, 36), (1, 36, 36)]
    assert inside == [9]
    torch.testing.assert_close(ours.values, plain_logprobs(model, sequences, PAD).values, rtol=1e-5, atol=1e-5)


def test_a_model_that_is_recomputed_is_whole():
    model = tiny.tiny("llama")
    module = TokenLogProbs(model).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inside = []
    assert module.trim is not None
    module.trim.up_proj.register_forward_hook(lambda _, given, made: inside.append(given[0].shape[1]))
    values = logprobs(module, pair(20, 3, 5), PAD).values
    values.sum().backward()
    assert set(inside) == {26}
    assert len(inside) == 2  # once forward, once in the backward pass


def test_opt_has_no_such_part_and_padded_batches_are_whole():
    assert TokenLogProbs(tiny.tiny("opt")).trim is None
    assert TokenLogProbs(tiny.tiny("llama"), layout="padded").trim is None


def test_what_cannot_be_trimmed_is_found_out(monkeypatch):
    """A part whose tokens look at each other may not be given some of them only."""
    model = tiny.tiny("llama")
    own = type(model.model.layers[-1].mlp).forward
    monkeypatch.setattr(
        type(model.model.layers[-1].mlp), "forward", lambda self, x: own(self, x) + x.mean(1, keepdim=True)
    )
    assert TokenLogProbs(model, layout="packed").trim is None


def test_the_part_is_left_as_it_was():
    model = tiny.tiny("llama")
    part, row = model.model.layers[-1].mlp, torch.randn(1, 6, 32)
    whole = part(row)
    with trimmed(part, torch.tensor([1, 4])):
        less = part(row)
    assert "forward" not in vars(part)
    assert torch.equal(part(row), whole)
    torch.testing.assert_close(less[:, [1, 4]], whole[:, [1, 4]], rtol=1e-4, atol=1e-5)
    assert not less[:, [0, 2, 3, 5]].any()


def test_needed_places_are_each_predictor_once():
    batch = pack(pair(20, 3, 5))
    assert batch.needed.tolist() == sorted(set(batch.predictor.tolist()))
    assert batch.needed.numel() == 7
