"""Models with an encoder and a decoder, from end to end; held against transformers' own call with labels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from peft import AutoPeftModelForSeq2SeqLM
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import boresight as bs
from boresight.engine.seq2seq import Seq2SeqLogProbs
from boresight.errors import InputError
from boresight.lab.tiny import make_model
from boresight.report.write import report
from boresight.training.live import with_states
from boresight.training.microbatch import ready
from boresight.training.sample import sample
from proofs import failing, job_of, lines_of, write_prefs
from words import WORDS

ARCHS = ("t5", "bart")


def slow(value):
    """A parameter for which test_train tests the same loop, and quicker."""
    return pytest.param(value, marks=pytest.mark.slow)


SMALL = {"batch": 4, "samples": 0, "trackers": "none", "log_every": 1, "quiet": True, "lr": 1e-3}
PAIRS = [
    {"prompt": "the red ball", "chosen": "a cat sat", "rejected": "two dogs run"},
    {"prompt": "my old house", "chosen": "two dogs run", "rejected": "a cat sat"},
    {"prompt": "one warm garden", "chosen": "the mat", "rejected": "on and after"},
    {"prompt": "saw in", "chosen": "on and after", "rejected": "the mat"},
]
"""Whichever of two answers is better depends on the prompt alone: who does not read it ranks half of them wrong."""


def put(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=ARCHS)
def base(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base") / request.param
    return make_model([" ".join(WORDS)] * 8, path, arch=request.param, vocab=300, hidden=32, layers=2, heads=2)


@pytest.fixture(scope="module")
def prefs(tmp_path_factory) -> Path:
    return write_prefs(tmp_path_factory.mktemp("data") / "prefs.jsonl")


@pytest.fixture
def few(tmp_path) -> Path:
    return put(tmp_path / "few.jsonl", PAIRS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def go(base: Path, data: Path, out: Path, **words):
    return bs.train(**{**SMALL, "method": "dpo", "model": base, "data": data, "out": out, **words})


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if "time" not in k and "second" not in k} for line in lines(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "model").glob("*model.safetensors")))


class Plain:
    """A saved model as its user has it: log-probs from the loss that transformers itself returns, in float64."""

    def __init__(self, folder: Path, model=None) -> None:
        self.model = (model or AutoModelForSeq2SeqLM.from_pretrained(folder)).double().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def __call__(self, prompt: str, response: str) -> tuple[torch.Tensor, int]:
        """The sum of the response's log-probs, and its tokens."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        labels = self.tokenizer(text_target=response, return_tensors="pt").input_ids
        return -self.model(input_ids=ids, labels=labels).loss * labels.numel(), labels.numel()

    @torch.no_grad()
    def margins(self, rows: list[dict], mean: bool = False) -> list[float]:
        """Log-prob of the chosen less that of the rejected response; mean: of their tokens' averages."""
        sides = [[self(row["prompt"], row[side]) for side in ("chosen", "rejected")] for row in rows]
        each = [[float(value) / (count if mean else 1) for value, count in side] for side in sides]
        return [chosen - rejected for chosen, rejected in each]


def test_first_step_is_what_transformers_computes(base, few, tmp_path):
    """Loss and gradient norm of step one."""
    go(base, few, tmp_path / "simpo", method="simpo", beta=0.7, gamma_beta_ratio=0.3, max_steps=1)
    plain, total = Plain(base), torch.zeros((), dtype=torch.float64)
    for row in PAIRS:
        (a, n), (b, m) = plain(row["prompt"], row["chosen"]), plain(row["prompt"], row["rejected"])
        total = total + torch.nn.functional.softplus(-0.7 * (a / n - b / m - 0.3)) / 4
    total.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in plain.model.parameters() if p.grad is not None))
    first = lines(tmp_path / "simpo")[0]
    assert first["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_sft_starts_at_the_models_own_loss(base, tmp_path):
    rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in PAIRS]
    go(base, put(tmp_path / "sft.jsonl", rows), tmp_path / "sft", method="sft", max_steps=1)
    with torch.no_grad():
        made = [Plain(base)(row["prompt"], row["response"]) for row in rows]
    expected = -sum(float(value) for value, _ in made) / sum(n for _, n in made)
    assert lines(tmp_path / "sft")[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "closed"), [("dpo", np.log(2)), ("ipo", 25.0), ("kto", 0.5)])
def test_others_start_at_their_closed_form(base, few, tmp_path, method, closed):
    """-log sigmoid(0); (0 - 1 / (2 beta))^2 at beta = .1; 1 - sigmoid(0)."""
    words = {"beta": 0.1} if method == "ipo" else {}
    go(base, few, tmp_path / "run", method=method, max_steps=1, batch=8 if method == "kto" else 4, **words)
    assert lines(tmp_path / "run")[0]["loss"] == pytest.approx(closed, rel=1e-4)


@pytest.mark.parametrize("method", ["dpo", slow("simpo"), "kto"])
def test_four_pairs_are_learnt(base, few, tmp_path, method):
    """A model that reads no prompt gives A over B and B over A margins that add up to nothing."""
    go(base, few, tmp_path / "run", method=method, max_steps=60, lr=3e-3, epochs=60)
    trained, before = Plain(tmp_path / "run" / "model"), Plain(base)
    margins, start = (np.array(m.margins(PAIRS, mean=method == "simpo")) for m in (trained, before))
    assert (margins - start > 0).all()
    assert margins[0] + margins[1] > 0 < margins[2] + margins[3]
    if method == "simpo":
        assert (margins > 0).all()


def test_sft_learns_what_only_the_prompt_tells(base, tmp_path):
    """Four prompts, four answers: without the prompt an answer costs log 4 nats on average, whatever is learnt."""
    rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in PAIRS]
    go(base, put(tmp_path / "sft.jsonl", rows), tmp_path / "run", method="sft", max_steps=120, epochs=120, lr=5e-3)
    trained = Plain(tmp_path / "run" / "model")
    with torch.no_grad():
        nats = [-float(trained(row["prompt"], row["response"])[0]) for row in rows]
    assert sum(nats) / 4 < np.log(4)
    for row in rows:  # and its user's own generate says the answer
        ids = trained.tokenizer(row["prompt"], return_tensors="pt").input_ids
        said = trained.model.generate(ids, max_new_tokens=12, do_sample=False)[0]
        assert trained.tokenizer.decode(said, skip_special_tokens=True).strip() == row["response"]


@pytest.mark.parametrize("words", [{}, slow({"adapter": "lora", "lora_rank": 2}), slow({"method": "kto"})])
def test_resume_is_bit_for_bit(base, prefs, tmp_path, words):
    words = {**words, "max_steps": 6, "save_every": 3, "keep": 9}
    go(base, prefs, tmp_path / "whole", **words)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    go(base, prefs, tmp_path / "cut", resume=True, **words)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


@pytest.mark.parametrize("method", ["dpo", slow("sft"), "kto"])
def test_the_result_does_not_depend_on_what_goes_through_at_once(base, prefs, tmp_path, method):
    for budget in (1, 100_000):
        go(base, prefs, tmp_path / str(budget), method=method, max_steps=3, micro_tokens=budget, lr=1e-4, batch=8)
    for x, y in zip(timeless(tmp_path / "1"), timeless(tmp_path / "100000"), strict=True):
        if x["step"] == 1:  # margins are 0 there, but for rounding, which decides what counts as correct
            x, y = ({k: v for k, v in line.items() if k != "accuracy"} for line in (x, y))
        assert x == pytest.approx(y, rel=2e-4, abs=2e-5)


METHODS = ("dpo", "ipo", "ipo-mean", "kto", "orpo", "rdpo-robust", "rso-hinge", "sft", "simpo", "slic-hinge")


@pytest.mark.parametrize("method", METHODS)
def test_the_proof_holds(base, prefs, method):
    found = lines_of(job_of(base, prefs, method=method))
    assert not failing(found), {n: (found[n].residual, found[n].words) for n in failing(found)}
    for name in ("padded", "production", "one at a time", "another pad id", "mask", "one end", "gradient", "loss"):
        assert found[name].verdict == "holds", name


WAYS = [{"dtype": "bf16"}, {"gradient_checkpointing": True}, {"adapter": "lora"}, {"dtype": "bf16", "adapter": "lora"}]


@pytest.mark.parametrize("words", [*WAYS, {"adapter": "lora", "gradient_checkpointing": True}])
def test_the_proof_holds_in_half_precision_with_checkpointing_and_adapters(base, prefs, words):
    found = lines_of(job_of(base, prefs, **words))
    assert not failing(found), {n: (found[n].residual, found[n].words) for n in failing(found)}


@pytest.mark.parametrize("family", ["Pegasus", "Marian", "MT5"])
def test_the_proof_holds_for_their_kin(family, prefs, tmp_path):
    """Pegasus and Marian have positions that are never trained."""
    lab = make_model([" ".join(WORDS)] * 8, tmp_path / "lab", arch="t5", vocab=300, hidden=32, layers=1, heads=2)
    ids = {"pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": 0}
    sides = {f"{s}_{k}": v for s in ("encoder", "decoder") for k, v in (("layers", 2), ("attention_heads", 2))}
    shape = {"d_kv": 16, "num_layers": 2, "num_heads": 2} if family == "MT5" else sides | {"encoder_ffn_dim": 48}
    size = len(AutoTokenizer.from_pretrained(lab))
    config = getattr(tf, f"{family}Config")(vocab_size=size, d_model=32, **shape, **ids)
    torch.manual_seed(0)
    model = tf.AutoModelForSeq2SeqLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(lab).save_pretrained(tmp_path / "model")
    found = lines_of(job_of(tmp_path / "model", prefs))
    assert not failing(found), {n: (found[n].residual, found[n].words) for n in failing(found)}


def test_the_proof_finds_responses_behind_other_prompts(base, prefs):
    job = job_of(base, prefs)
    arrange = job.module.arrange

    def swapped(sequences, pad_id):
        batch = arrange(sequences, pad_id)
        batch.source.copy_(batch.source.flip(0))
        return batch

    job.module.arrange = swapped
    assert failing(lines_of(job))[0] == "production"


def test_the_proof_finds_an_encoder_that_sees_padding(base, prefs):
    job = job_of(base, prefs)
    arrange = job.module.arrange

    def unmasked(sequences, pad_id):
        batch = arrange(sequences, pad_id)
        batch.prompt_mask.fill_(1)
        return batch

    job.module.arrange = unmasked
    assert failing(lines_of(job))[0] == "production"


def test_an_adapter_loads_in_plain_peft_evaluates_and_scores(base, few, tmp_path):
    run = go(base, few, tmp_path / "run", adapter="lora", lora_rank=2, max_steps=8, epochs=8, lr=1e-2, eval_data=few)
    settings = json.loads((run.model / "adapter_config.json").read_text())
    assert settings["task_type"] == "SEQ_2_SEQ_LM"
    assert "AutoPeftModelForSeq2SeqLM" in (run.model / "README.md").read_text()
    before = Plain(base)
    after = Plain(run.model, AutoPeftModelForSeq2SeqLM.from_pretrained(run.model))
    gains = np.array(after.margins(PAIRS)) - np.array(before.margins(PAIRS))
    evaluation = bs.evaluate(run.folder, few, quiet=True, samples=2, sample_tokens=5)
    found = {m.name: m.interval.value for m in evaluation.measures}
    assert found["implicit-reward accuracy"] == pytest.approx(float((gains > 0).mean()))
    assert found["margin"] == pytest.approx(float(gains.mean()), abs=1e-4)
    assert found["KL"] > -5
    scores = bs.score(few, run.folder, quiet=True, per_token=True)
    with torch.no_grad():
        for row, scored in zip(PAIRS, scores.rows, strict=True):
            for side, told in zip(("chosen", "rejected"), scored["responses"], strict=True):
                value, count = after(row["prompt"], row[side])
                assert told["logprob"] == pytest.approx(float(value), abs=1e-4)
                assert told["tokens"] == count
                assert told["ratio"] == pytest.approx(float(value - before(row["prompt"], row[side])[0]), abs=1e-4)
    report([run.folder], out=tmp_path / "report.html")
    assert "encoder and decoder" in (tmp_path / "report.html").read_text()


def test_a_whole_model_says_how_to_load_it(base, few, tmp_path):
    run = go(base, few, tmp_path / "run", max_steps=1, samples=2, sample_tokens=4)
    assert "AutoModelForSeq2SeqLM.from_pretrained" in (run.model / "README.md").read_text()
    assert json.loads((run.folder / "run.json").read_text())["encoder_decoder"]
    assert (run.folder / "samples.jsonl").read_text().count("\n") >= 2
    again = go(run.model, few, tmp_path / "again", max_steps=1)  # a trained model is a model
    assert lines(again.folder)[0]["loss"] == pytest.approx(np.log(2), rel=1e-4)


def test_samples_are_those_of_one_prompt_at_a_time(base):
    """Greedy, by a plain loop without cache, padding or batch; the log-prob is the engine's."""
    plain = Plain(base)
    model = plain.model
    prompts = [np.array(plain.tokenizer(r["prompt"])["input_ids"], np.int32) for r in PAIRS]
    before = model.generation_config
    found = sample(model, plain.tokenizer, prompts, greedy=True, max_new_tokens=7)
    assert model.generation_config is before
    for prompt, one in zip(prompts, found, strict=True):
        ids, total = [int(model.config.decoder_start_token_id)], 0.0
        while len(ids) <= 7 and (len(ids) == 1 or ids[-1] != plain.tokenizer.eos_token_id):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor(prompt)[None], decoder_input_ids=torch.tensor([ids])).logits[
                    0, -1
                ]
            ids.append(int(logits.argmax()))
            total += float(logits.log_softmax(-1)[ids[-1]])
        assert one.ids.tolist() == ids[1:]
        assert one.logprob_sum == pytest.approx(total, abs=1e-4)
        assert one.ends == (ids[-1] == plain.tokenizer.eos_token_id)


def test_check_measures_how_far_off_the_policy_data_is(base, few):
    told = bs.check(few, base, method="dpo", off_policy=4).facts
    assert told["off_policy"]["rows"] == 4
    plain = Plain(base)
    with torch.no_grad():
        made = [plain(r["prompt"], r[side]) for r in PAIRS for side in ("chosen", "rejected")]
    expected = np.mean([float(value) / n for value, n in made])
    assert told["off_policy"]["responses"]["value"] == pytest.approx(expected, abs=1e-4)
    assert told["cost"]["parameters"] == sum(p.numel() for p in plain.model.parameters())


@pytest.mark.parametrize("words", [{}, {"adapter": "lora", "lora_rank": 2}])
def test_states_and_divergences_equal_those_of_full_logits(base, few, tmp_path, words) -> None:
    """The decoder's, through a head with a bias of its own behind it where the model has one (BART)."""
    folder = shutil.copytree(base, tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    if hasattr(model, "final_logits_bias"):
        generator = torch.Generator().manual_seed(1)
        model.final_logits_bias = torch.randn(model.final_logits_bias.shape, generator=generator)
        model.save_pretrained(folder)
    job = job_of(folder, few, method="sparsepo", **words)
    needs = ("reference", "hidden", "reference_hidden", "token_kl", "reference_kl", "entropy")
    job.objective = replace(job.objective, needs=needs)
    torch.manual_seed(0)
    with torch.no_grad():  # away from the reference
        for p in job.model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    micro = ready(job.objective, job.kept, [job.rows[i] for i in range(3)])
    found = with_states(job, micro, {})
    plain: dict[str, list[torch.Tensor]] = {}

    def once(model, tokens) -> tuple[torch.Tensor, torch.Tensor]:
        ids, where = torch.from_numpy(tokens.ids).long()[None], np.flatnonzero(tokens.mask)
        first, given = int(where[0]), []
        handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        made = model(input_ids=ids[:, :first], labels=ids[:, first : first + where.size])
        handle.remove()
        return made.logits[0].double().log_softmax(-1), given[0][0]

    for tokens in micro.tokens:
        p, ours = once(job.model, tokens)
        with torch.no_grad(), job.live.switch():
            q, theirs = once(job.live.module.model, tokens)
        one = {
            "hidden": ours,
            "reference_hidden": theirs,
            "entropy": -(p.exp() * p).sum(-1),
            "token_kl": (p.exp() * (p - q)).sum(-1),
            "reference_kl": (q.exp() * (q - p)).sum(-1),
        }
        for name, value in one.items():
            plain.setdefault(name, []).append(value)
    for name, pieces in plain.items():
        torch.testing.assert_close(found.token(name).double(), torch.cat(pieces).double(), rtol=5e-4, atol=5e-5)
    assert float(found.token("token_kl").detach().min()) > 0
    trained = [p for p in job.model.parameters() if p.requires_grad]
    a = torch.autograd.grad(found.token("token_kl").sum(), trained, allow_unused=True)
    b = torch.autograd.grad(torch.cat(plain["token_kl"]).sum(), trained, allow_unused=True)
    scale = max(float(y.abs().max()) for y in b if y is not None)
    for x, y in zip(a, b, strict=True):
        if y is not None:
            torch.testing.assert_close(x, y.to(x.dtype), rtol=2e-3, atol=1e-3 * scale)


def test_a_method_of_hidden_states_is_trained(base, few, tmp_path) -> None:
    assert not failing(lines_of(job_of(base, few, method="tdpo")))
    go(base, few, tmp_path / "run", method="tdpo", max_steps=2)
    assert len(lines(tmp_path / "run")) >= 2


def test_what_cannot_be_trained_is_refused(base, few, tmp_path):
    with pytest.raises(InputError, match="cannot be a reward model here"):
        go(base, few, tmp_path / "run", method="bt-reward")
    with pytest.raises(InputError, match="answers once"):
        go(base, few, tmp_path / "run", spans="all")
    assert not (tmp_path / "run").exists()


def test_real_pairs(base, real_data, tmp_path):
    """Conversations of several turns as transcripts; the proof, three steps, and DPO's start."""
    data = next((real_data / "hh-helpful").glob("*test*.jsonl*"))
    go(base, data, tmp_path / "run", limit=40, max_length=400, truncation="cut-prompt", max_steps=3, lr=1e-4)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["template"]["template"] == "encoder and decoder"
    assert all(line["verdict"] != "fails" for line in facts["proof"])
    assert lines(tmp_path / "run")[0]["loss"] == pytest.approx(np.log(2), rel=1e-4)


def test_the_module_is_the_one_for_the_model(base, prefs):
    assert isinstance(job_of(base, prefs).module, Seq2SeqLogProbs)
