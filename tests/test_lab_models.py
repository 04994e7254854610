"""The lab's tiny models: real, the same every time, and sampled as their distribution says."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Qwen3ForCausalLM

from boresight.data.render import Renderer
from boresight.data.tokens import Tokens
from boresight.engine.padded import plain_logprobs
from boresight.errors import InputError
from boresight.lab import pretrain, words
from boresight.lab.gold import parse
from boresight.lab.language import Knobs, LanguageWorld
from boresight.lab.measures import measure, response_log_probs, sampled_kl
from boresight.lab.preferences import ModelSampler
from boresight.lab.pretrain import base_model
from boresight.lab.tiny import END, make_model, new_model, save, save_aside, word_tokenizer
from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo

WORLD = LanguageWorld()
TALK = [{"role": "system", "content": "brief"}, {"role": "user", "content": "sort fox bear"}]
RENDERED = "<|begin|><|start|>system\nbrief<|end|>\n<|start|>user\nsort fox bear<|end|>\n<|start|>assistant\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(pretrain, "STEPS", 4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return base_model("llama")


@pytest.fixture(scope="module")
def untrained():
    """A random model whose distributions are far from uniform."""
    tokenizer = word_tokenizer()
    model = new_model("qwen", len(tokenizer), hidden=32, layers=2, heads=4, seed=3)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4 if weights.ndim > 1 else 1)
    return model, tokenizer


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


# Tokenizer and template


def test_text_of_the_language_survives_the_tokenizer():
    tokenizer = word_tokenizer()
    for prompt, response in LanguageWorld(Knobs(groups=("brief", "neat"))).corpus(300, 0):
        for text in (prompt.text, response):
            ids = tokenizer(text)["input_ids"]
            assert len(ids) == len(text.split())
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text == tokenizer.decode(ids, skip_special_tokens=True)
    offsets = tokenizer("sort  fox", return_offsets_mapping=True)["offset_mapping"]
    assert offsets == [(0, 4), (6, 9)]


def test_special_tokens_are_distinct_and_the_end_of_turn_is_the_eos():
    tokenizer = word_tokenizer()
    ids = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert len(set(ids)) == 4
    assert tokenizer.eos_token == END
    assert len(tokenizer) <= 100
    assert set(words.VOCABULARY) <= set(tokenizer.get_vocab())


def test_the_chat_template_is_written_out_as_stated():
    tokenizer = word_tokenizer()
    assert tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False) == RENDERED
    whole = [*TALK, {"role": "assistant", "content": "bear , fox ."}]
    assert tokenizer.apply_chat_template(whole, tokenize=False) == f"{RENDERED}bear , fox .<|end|>"


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_the_production_renderer_trains_on_the_answer_and_its_end(kind, tmp_path):
    if kind == "words":
        tokenizer = word_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(make_model(["sort fox bear"], tmp_path / "m", vocab=300, hidden=16))
    prompt = parse("sort fox bear")
    tokens = Renderer(tokenizer).tokens(prompt.messages, "bear , fox .")
    assert isinstance(tokens, Tokens)
    assert tokens.ends
    answer = tokenizer.decode(tokens.ids[tokens.mask])
    assert answer.replace(" ", "") == "bear,fox.<|end|>"
    assert tokens.ids.tolist().count(tokenizer.bos_token_id) == 1
    # The lab's own pre-training saw the same tokens.
    (ids, start), *_ = pretrain.tokenise(tokenizer, [(prompt, "bear , fox .")])
    if kind == "words":
        assert ids == tokens.ids.tolist()
        assert start == int(tokens.mask.argmax())


# Models on disk


@pytest.mark.parametrize(("arch", "kind"), [("llama", LlamaForCausalLM), ("qwen", Qwen3ForCausalLM)])
def test_a_saved_model_comes_back_the_same(arch, kind, tmp_path):
    tokenizer = word_tokenizer()
    model = new_model(arch, len(tokenizer), hidden=32, layers=2, heads=4, seed=1)
    save(model, tokenizer, tmp_path / "m")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert isinstance(again, kind)
    ids = torch.tensor([tokenizer.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert again.generation_config.eos_token_id == tokenizer.eos_token_id
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tied == (arch == "qwen")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert reloaded.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False) == RENDERED
    assert reloaded.decode(reloaded("bear , fox .")["input_ids"]) == "bear , fox ."


@pytest.mark.parametrize("arch", ["llama", "qwen"])
def test_two_pretrainings_are_bit_identical(arch, few_steps, tmp_path, monkeypatch):
    first = base_model(arch)
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "another"))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    torch.rand(17)
    try:
        before = torch.get_rng_state()
        second = base_model(arch)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert first != second
    assert first.name == second.name
    assert weights_of(first) == weights_of(second)
    assert weights_of(base_model(arch, seed=1)) != weights_of(first)


def test_the_cache_is_told_apart_by_what_shapes_the_corpus(few_steps):
    steps = []
    first = base_model(knobs=Knobs(), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    noisy = Knobs(label_noise=0.3, length_bias=1.0, temperature=1.0, off_policy=0.5, conflict=0.5)
    assert base_model(knobs=noisy, progress=lambda done, total: pytest.fail("trained again")) == first
    others = [Knobs(carelessness=0.1), Knobs(domains=("farm",)), Knobs(groups=("neat",))]
    assert len({first, *(base_model(knobs=k) for k in others)}) == 4
    assert base_model(knobs=Knobs(groups=("neat",), group_told=False)) == first


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "config.json").write_text("{")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        save_aside(tmp_path / "deep" / "m", fail)
    assert list((tmp_path / "deep").iterdir()) == []


def test_the_faster_of_two_processes_wins(tmp_path):
    def slow(folder):
        (folder / "config.json").write_text("late")
        save_aside(tmp_path / "m", lambda other: (other / "config.json").write_text("early"))

    assert save_aside(tmp_path / "m", slow) == tmp_path / "m"
    assert (tmp_path / "m" / "config.json").read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_unusable_options_are_named(tmp_path):
    with pytest.raises(InputError, match="did you mean llama"):
        base_model("lama")
    with pytest.raises(InputError, match="did you mean tiny"):
        base_model(size="tinny")
    with pytest.raises(InputError, match="heads 3"):
        make_model(["a"], tmp_path / "m", vocab=300, hidden=16, heads=3)
    with pytest.raises(InputError, match="vocab is 10"):
        make_model(["a"], tmp_path / "m", vocab=10)
    assert not list(tmp_path.glob("*m*"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        make_model(["a"], tmp_path / "full")


# Models for real text


def test_a_model_for_any_text(tmp_path):
    texts = ["How do I bake bread?\n\nMix flour, water - and wait. " * 3, "Ünïcode: 漢字 🙂  two  spaces\ttab"] * 5
    folder = make_model(texts, tmp_path / "m", vocab=320, hidden=32, layers=1, heads=2, seed=5)
    again = make_model(iter(texts), tmp_path / "n", vocab=320, hidden=32, layers=1, heads=2, seed=5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size <= 320
    for text in (*texts, " leading", "trailing \n", "", "żółw don 't ."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    talk = [{"role": "user", "content": texts[1]}]
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids) == f"<|begin|><|start|>user\n{texts[1]}<|end|>\n<|start|>assistant\n"
    assert weights_of(folder) == weights_of(again)
    assert (folder / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()


# Sampling


def test_greedy_answers_are_those_of_a_plain_loop_without_padding(untrained):
    model, tokenizer = untrained
    prompts = WORLD.prompts(12, 0)
    assert len({len(p.text.split()) for p in prompts}) > 2
    answers = ModelSampler(model, tokenizer, temperature=0, max_new_tokens=6, batch=5)(prompts, 0, 2)
    for prompt, (first, second) in zip(prompts, answers, strict=True):
        ((ids, start),) = pretrain.tokenise(tokenizer, [(prompt, "")])
        ids = ids[:start]
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert first == second == tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize(("temperature", "shift"), [(1.0, {}), (0.5, {}), (1.0, {"very": 3.0, "fox": -2.0})])
def test_words_are_drawn_with_the_probabilities_of_the_model(untrained, temperature, shift):
    model, tokenizer = untrained
    prompts, n = [parse("sort fox bear"), parse("list three farm things without hen")], 4000
    sampler = ModelSampler(model, tokenizer, temperature=temperature, max_new_tokens=1, shift=shift)
    for prompt, texts in zip(prompts, sampler(prompts, 0, n), strict=True):
        ((ids, start),) = pretrain.tokenise(tokenizer, [(prompt, "")])
        with torch.no_grad():
            logits = model(torch.tensor([ids[:start]])).logits[0, -1].double()
        for word, logit in shift.items():
            logits[tokenizer.convert_tokens_to_ids(word)] += logit
        probabilities = (logits / temperature).softmax(-1)
        seen = Counter(texts)
        for word in ("very", "fox", *(tokenizer.decode([i]) for i in probabilities.topk(5).indices.tolist())):
            if word not in tokenizer.all_special_tokens:
                p = float(probabilities[tokenizer.convert_tokens_to_ids(word)])
                assert seen[word] / n == pytest.approx(p, abs=4 * sqrt(p * (1 - p) / n) + 1e-3)


def test_sampling_depends_on_the_seed_alone(untrained):
    sampler, prompts = ModelSampler(*untrained), WORLD.prompts(20, 0)
    state = torch.get_rng_state()
    first = sampler(prompts, 5, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert sampler(prompts, 5, 3) == first != sampler(prompts, 6, 3)
    assert [len(texts) for texts in first] == [3] * 20
    assert sampler([], 0, 2) == []


def test_response_log_probs_are_the_engines_and_the_kl_to_oneself_is_zero(untrained):
    model, tokenizer = untrained
    pairs = WORLD.corpus(20, 2)
    prompts, texts = [p for p, _ in pairs], [t for _, t in pairs]
    found = response_log_probs(model, tokenizer, prompts, texts, batch=7)
    tokens = [Renderer(tokenizer).tokens(p.messages, t) for p, t in pairs]
    with torch.no_grad():
        assert found == pytest.approx(plain_logprobs(model, tokens, tokenizer.pad_token_id).sum(), rel=1e-5)
    assert sampled_kl(model, model, tokenizer, prompts, [[t] for t in texts]).mean == 0


# The base model is worth aligning


def test_the_base_model_speaks_the_language_and_leaves_headroom(base):
    sampled = measure(WORLD, ModelSampler(base))
    assert sampled.reward.mean - sampled.reward.half > 0.4
    assert sampled.reward.mean + sampled.reward.half < 0.62
    greedy = measure(WORLD, ModelSampler(base, temperature=0), n_samples=1)
    assert greedy.reward.mean > sampled.reward.mean + 0.15


def test_dpo_on_clean_preferences_raises_gold_reward(base):
    sampler = ModelSampler(base)
    examples = WORLD.preferences(sampler, 400, 0)
    renderer = Renderer(sampler.tokenizer)
    chosen, rejected = (
        [renderer.tokens(e.prompt, e.responses[getattr(e.pairs[0], side)].text) for e in examples]
        for side in ("chosen", "rejected")
    )

    def sides(rows: list[int]) -> PairSide:
        both = plain_logprobs(sampler.model, [chosen[i] for i in rows] + [rejected[i] for i in rows], 0)
        n = len(rows)
        return PairSide(both.select(torch.arange(n)), both.select(torch.arange(n, 2 * n)))

    before = measure(WORLD, sampler, seed=1)
    with torch.no_grad():
        reference = sides(list(range(400)))
    adam, rng = torch.optim.Adam(sampler.model.parameters(), lr=3e-4), Random(0)
    for _ in range(60):
        rows = rng.sample(range(400), 48)
        where = torch.tensor(rows)
        behind = PairSide(reference.chosen.select(where), reference.rejected.select(where))
        loss = dpo(PairLogProbs(sides(rows), behind), beta=0.1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    after = measure(WORLD, sampler, seed=1)
    assert isinstance(reference.chosen, LogProbs)
    assert after.reward.mean - after.reward.half > before.reward.mean + before.reward.half + 0.03
