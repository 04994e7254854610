from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from boresight.errors import InputError, RunError
from boresight.training.sample import (
    Sample,
    end_tokens,
    nucleus,
    repetition,
    sample,
    surprisal,
    text_statistics,
)
from tiny import VOCABULARY, tiny


class Letters:
    """The least a tokenizer must be: ids to text, an EOS and, if asked for, a pad."""

    eos_token_id = 2

    def __init__(self, pad: int | None = None) -> None:
        self.pad_token_id = pad

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return " ".join(str(i) for i in ids if not (skip_special_tokens and i == 2))


def some_prompts(count: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, size=n).astype(np.int32) for n in rng.integers(1, 14, size=count)]


@torch.no_grad()
def alone(model: Any, prompt: np.ndarray, steps: int, pick: Any) -> tuple[list[int], float]:
    """No cache, no padding, no batch: the whole text through the model for each token. `pick(logp, step)` -> id."""
    ids, total = [int(i) for i in prompt], 0.0
    for step in range(steps):
        logp = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().log_softmax(-1)
        token = pick(logp, step)
        total += float(logp[token])
        ids.append(token)
        if token == 2:
            break
    return ids[len(prompt) :], total


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gpt-neox", "opt", "gemma2", "mixtral"])
@pytest.mark.parametrize("pad", [None, 0, 2])
def test_greedy_in_a_batch_is_greedy_alone(family: str, pad: int | None) -> None:
    """Left padding, mask and positions are right for learned and rotary positions and sliding windows alike."""
    model, prompts = tiny(family), some_prompts()
    found = sample(model, Letters(pad), prompts, greedy=True, max_new_tokens=8, batch_size=5)
    for prompt, one in zip(prompts, found, strict=True):
        ids, total = alone(model, prompt, 8, lambda logp, _: int(logp.argmax()))
        assert one.ids.tolist() == ids
        assert one.ids.dtype == np.int32
        assert one.logprob_sum == pytest.approx(total, abs=1e-3)
        assert one.length == len(ids)
        assert one.ends == (ids[-1] == 2)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_each_prompt_has_its_own_stream(batch_size: int) -> None:
    """Neither the batch size nor the neighbours change what is drawn, at a temperature and with a nucleus too."""
    model, prompts = tiny(), some_prompts(7)
    options: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 3, "max_new_tokens": 6}
    whole = sample(model, Letters(), prompts, batch_size=16, **options)
    parts = sample(model, Letters(), prompts, batch_size=batch_size, **options)
    first = sample(model, Letters(), prompts[:2], **options)
    assert [s.ids.tolist() for s in parts] == [s.ids.tolist() for s in whole]
    assert [s.ids.tolist() for s in first] == [s.ids.tolist() for s in whole[:2]]
    assert [s.logprob_sum for s in parts] == pytest.approx([s.logprob_sum for s in whole], abs=1e-4)


def test_the_seed_decides_and_equal_prompts_differ() -> None:
    model, prompts = tiny(), [np.array([5, 6, 7], np.int32)] * 4
    drawn = {seed: [s.ids.tolist() for s in sample(model, Letters(), prompts, seed=seed)] for seed in (0, 1)}
    again = [s.ids.tolist() for s in sample(model, Letters(), prompts, seed=0)]
    assert drawn[0] == again
    assert drawn[0] != drawn[1]
    assert len({tuple(ids) for ids in drawn[0]}) == 4


def bigram(table: np.ndarray) -> Any:
    """A GPT-2 whose logits for the next token are exactly the row of `table` (vocabulary, vocabulary)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = table.shape[0]
    config = GPT2Config(
        vocab_size=size, n_embd=size, n_layer=1, n_head=1, n_positions=64, eos_token_id=None, bos_token_id=None,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for p in model.parameters():
        p.data.zero_()
    model.transformer.wte.weight.data = torch.eye(size)
    # The final layer norm turns one-hot rows into rows that sum to 0; a bias makes them a basis again, and the head
    # undoes it.
    model.transformer.ln_f.weight.data.fill_(1.0)
    model.transformer.ln_f.bias.data.fill_(1.0)
    with torch.no_grad():
        hidden = model.transformer.ln_f(torch.eye(size)).double()
    model.lm_head.weight.data = torch.tensor(np.linalg.solve(hidden.numpy(), table).T).float()
    with torch.no_grad():
        made = model(torch.arange(size)[:, None]).logits[:, 0]
    assert made.numpy() == pytest.approx(table, abs=1e-4)
    return model


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.8)])
def test_draws_follow_the_tempered_and_cut_distribution(temperature: float, top_p: float) -> None:
    """Chi-square over 4,000 single draws against softmax(logits / T) cut to its nucleus, computed in float64."""
    logits = np.log(np.array([0.4, 0.25, 0.2, 0.1, 0.05]))
    model = bigram(np.tile(logits, (5, 1)))
    drawn = sample(
        model, SimpleNamespace(eos_token_id=None, pad_token_id=None, decode=lambda ids, **_: ""),
        [np.array([1], np.int32)] * 4000, max_new_tokens=1, temperature=temperature, top_p=top_p, batch_size=500,
    )  # fmt: skip
    p = np.exp(logits / temperature)
    p /= p.sum()
    kept = np.cumsum(p) - p < top_p
    p = np.where(kept, p, 0) / p[kept].sum()
    counts = np.bincount([int(s.ids[0]) for s in drawn], minlength=5)
    assert (counts[~kept] == 0).all()
    assert stats.chisquare(counts[kept], 4000 * p[kept]).pvalue > 0.001
    # Whatever the temperature, the log-prob is the model's own.
    assert [s.logprob_sum for s in drawn[:50]] == pytest.approx([logits[s.ids[0]] for s in drawn[:50]], abs=1e-5)


def test_surprisal_estimates_the_entropy_rate() -> None:
    """A Markov chain's entropy per step is known; the first token is drawn from row 1 and mixes at once."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 6)) * 1.5
    model = bigram(logits)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    row_entropy = -(p * np.log(p)).sum(1)
    where, expected = np.eye(6)[1], 0.0
    for _ in range(20):
        expected += float(where @ row_entropy) / 20
        where = where @ p
    drawn = sample(
        model, SimpleNamespace(eos_token_id=None, pad_token_id=None, decode=lambda ids, **_: ""),
        [np.array([1], np.int32)] * 400, max_new_tokens=20, batch_size=200,
    )  # fmt: skip
    rates = np.array([-s.logprob_sum / s.length for s in drawn])
    assert surprisal(drawn) == pytest.approx(rates.mean())
    assert abs(surprisal(drawn) - expected) < 4 * rates.std() / 20


def test_training_does_not_notice() -> None:
    """Global random state, modes, flags, caches and settings are as they were; gradients still flow."""
    model = tiny("llama")
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    model.generation_config.repetition_penalty = 1.3
    settings, modes = model.generation_config, [m.training for m in model.modules()]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    sample(model, Letters(), some_prompts(3), max_new_tokens=4, seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in model.modules()] == modes
    assert model.is_gradient_checkpointing
    assert model.config.use_cache is False
    assert model.generation_config is settings
    assert settings.repetition_penalty == 1.3
    model(torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_modes_come_back_after_a_failure() -> None:
    model = tiny("llama").train()
    settings = model.generation_config
    model.lm_head.weight.data[0] = math.nan
    with pytest.raises(RunError, match="not finite"):
        sample(model, Letters(), some_prompts(2))
    assert model.training
    assert model.generation_config is settings


def test_the_models_own_generation_settings_are_left_aside() -> None:
    plain, tuned = tiny("llama"), tiny("llama")
    own = {"top_k": 1, "repetition_penalty": 5.0, "temperature": 0.01, "do_sample": True, "min_new_tokens": 6}
    for name, value in own.items():
        setattr(tuned.generation_config, name, value)
    drawn = [[s.ids.tolist() for s in sample(m, Letters(), some_prompts(), max_new_tokens=6)] for m in (plain, tuned)]
    assert drawn[0] == drawn[1]


def test_an_adapter_speaks() -> None:
    """A PEFT model samples from base plus adapter; the base alone, from the base."""
    from peft import LoraConfig, get_peft_model

    base = tiny("llama")
    prompts = some_prompts(4)
    before = [s.ids.tolist() for s in sample(base, Letters(), prompts, greedy=True, max_new_tokens=6)]
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    settings = model.generation_config
    fresh = [s.ids.tolist() for s in sample(model, Letters(), prompts, greedy=True, max_new_tokens=6)]
    assert fresh == before  # lora_B is zero
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.5)
    model.train()
    moved = sample(model, Letters(), prompts, greedy=True, max_new_tokens=6)
    assert model.training
    assert model.generation_config is settings
    model.eval()
    for prompt, one in zip(prompts, moved, strict=True):
        assert one.ids.tolist() == alone(model, prompt, 6, lambda logp, _: int(logp.argmax()))[0]
    with model.disable_adapter():
        assert [s.ids.tolist() for s in sample(model, Letters(), prompts, greedy=True, max_new_tokens=6)] == before


def test_responses_end_at_the_first_end_token_of_any_kind() -> None:
    """A table that always goes 3 -> 4 -> 5 -> 6: with 5 an end, the 6 is never spoken, pad = end or not."""
    table = np.full((7, 7), -50.0)
    for a, b in ((1, 3), (3, 4), (4, 5), (5, 6), (6, 6), (0, 0), (2, 2)):
        table[a, b] = 50.0
    model = bigram(table)
    prompts = [np.array([1], np.int32), np.array([6, 3], np.int32), np.array([6], np.int32)]
    for pad in (None, 0, 5):
        tokenizer = SimpleNamespace(eos_token_id=9, pad_token_id=pad, decode=lambda ids, **_: " ".join(map(str, ids)))
        found = sample(model, tokenizer, prompts, max_new_tokens=5, eos_ids=[2, 5])
        assert [s.text for s in found] == ["3 4 5", "4 5", "6 6 6 6 6"]
        assert [s.ends for s in found] == [True, True, False]
        assert [s.length for s in found] == [3, 2, 5]
    never = sample(model, tokenizer, prompts, max_new_tokens=4, eos_ids=[])
    assert [s.ends for s in never] == [False, False, False]


def test_end_tokens_come_from_the_model_and_the_tokenizer() -> None:
    model = tiny("llama")
    model.generation_config.eos_token_id = [7, 8]
    model.config.eos_token_id = None
    assert end_tokens(model, Letters()) == [2, 7, 8]
    assert end_tokens(SimpleNamespace(), SimpleNamespace(eos_token_id=None)) == []


def test_a_response_stops_where_the_model_has_no_position_left() -> None:
    model = tiny("gpt2")
    room = model.config.max_position_embeddings
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCABULARY, size=n).astype(np.int32) for n in (4, room - 3, room - 1)]
    found = sample(model, Letters(), prompts, max_new_tokens=10, eos_ids=[])
    assert [s.length for s in found] == [10, 3, 1]
    short = sample(model, Letters(), prompts[:1], max_new_tokens=10, eos_ids=[])
    assert short[0].ids.tolist() == found[0].ids.tolist()


def test_progress_counts_every_prompt() -> None:
    seen: list[tuple[int, int]] = []
    sample(tiny(), Letters(), some_prompts(5), batch_size=2, max_new_tokens=2, progress=lambda *n: seen.append(n))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert sample(tiny(), Letters(), []) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": math.inf}, "temperature must be positive"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"top_p": 1.1}, "top_p must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"prompts": [np.array([3], np.int32), np.array([], np.int32)]}, "prompt 1 has no tokens"),
        ({"prompts": [np.full(128, 3, np.int32)]}, "prompt 0 has 128 tokens, and the model has 128 positions"),
    ],
)
def test_unusable_options_are_named(options: dict[str, Any], words: str) -> None:
    prompts = options.pop("prompts", some_prompts(2))
    with pytest.raises(InputError, match=words):
        sample(tiny(), Letters(), prompts, **options)


def test_nucleus_by_hand() -> None:
    logp = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64).log()
    assert torch.isfinite(nucleus(logp, 1.0)).all()
    assert torch.isfinite(nucleus(logp, 0.7)).tolist() == [[True, True, False], [True, False, True]]
    assert torch.isfinite(nucleus(logp, 1e-9)).tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize(
    ("ids", "n", "share"),
    [
        ([], 4, 0.0),
        ([1, 1, 1], 4, 0.0),
        ([1, 1, 1, 1], 4, 0.0),
        ([1] * 10, 4, 6 / 7),
        ([1, 2, 3, 4] * 2, 4, 1 / 5),
        (list(range(50)), 4, 0.0),
        ([5, 6, 5, 6, 5], 2, 2 / 4),
        ([7, 7, 8], 1, 1 / 3),
    ],
)
def test_repetition_by_hand(ids: list[int], n: int, share: float) -> None:
    assert repetition(np.array(ids, np.int32), n) == pytest.approx(share)
    assert repetition(ids, n) == pytest.approx(share)


def test_repetition_needs_an_n() -> None:
    with pytest.raises(ValueError, match="n must be at least 1"):
        repetition([1, 2], 0)


def test_statistics_are_sums_over_counts() -> None:
    """Surprisal is per token over all tokens, not a mean of means; the rest is per sample."""
    one = Sample(np.array([1] * 10, np.int32), "", True, -5.0, 10)
    two = Sample(np.array([1, 2], np.int32), "", False, -7.0, 2)
    assert text_statistics([one, two]) == pytest.approx(
        {"sample_surprisal": 1.0, "sample_repetition": 3 / 7, "sample_ends": 0.5, "sample_length": 6.0}
    )
    assert text_statistics([]) == {}
    assert math.isnan(surprisal([]))
