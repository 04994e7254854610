"""One planted fault for each line of the step-zero proof: the right line fails first, and names the cause."""

from __future__ import annotations

import json
import textwrap
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import boresight.engine.padded as padded
import boresight.training.job as job_module
import boresight.training.material as material
import boresight.training.prepare as prepare_module
import boresight.training.references as references
import tiny
from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, disable_dropout, pad
from boresight.engine.scores import ResponseScores
from boresight.engine.shards import read_shard, write_shard
from boresight.errors import RunError
from boresight.objectives import LogProbs
from proofs import Altered, failing, job_of, lines_of, save_family, write_prefs


@pytest.fixture(scope="module")
def prefs(tmp_path_factory):
    return write_prefs(tmp_path_factory.mktemp("data") / "prefs.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("base") / "model", initializer_range=0.05)


@pytest.fixture(scope="module")
def trained_adapter(base, prefs, tmp_path_factory):
    """A folder with an adapter whose weights have moved."""
    folder = tmp_path_factory.mktemp("adapter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BORESIGHT_CACHE", str(folder / "cache"))
        job = job_of(base, prefs, adapter="lora", lora_rank=2)
    tiny.train(job.model)
    job.model.save_pretrained(folder)
    job.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def first_failure(job, **options) -> tuple[str, str]:
    """(the first line that fails, the cause in words)."""
    lines = lines_of(job, **options)
    names = failing(lines)
    assert names, "nothing fails"
    return names[0], lines[names[0]].words


def test_control_nothing_fails(base, prefs):
    assert not failing(lines_of(job_of(base, prefs)))


# ---- dropout


def test_dropout_on_in_the_reference(base, prefs, monkeypatch):
    monkeypatch.setattr(prepare_module, "disable_dropout", lambda model: 0)
    monkeypatch.setattr(padded, "evaluating", lambda module: nullcontext())
    job = job_of(base, prefs)  # the reference has spoken, in training mode
    disable_dropout(job.model)
    name, words = first_failure(job)
    assert name == "no dropout"
    assert "dropout is on in the reference" in words


def test_dropout_on_in_the_policy(base, prefs, monkeypatch):
    monkeypatch.setattr(prepare_module, "disable_dropout", lambda model: 0)
    name, words = first_failure(job_of(base, prefs))
    assert name == "no dropout"
    assert "dropout is on in the policy" in words
    assert "attention_dropout=0.1" in words


# ---- tokenizer


def test_another_tokenizer_beside_the_model(base, prefs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = "<|unknown|>"  # another token of the same vocabulary
    tokenizer.save_pretrained(tmp_path / "model")
    name, words = first_failure(job_of(tmp_path / "model", prefs, template="plain"))
    assert name == "ids agree"
    assert "another tokenizer" in words
    assert "EOS is 1 '<|unknown|>' for the tokenizer and 3 '<|end|>' for the model" in words


def test_rows_of_another_tokenizer(base, prefs):
    from boresight.data.render import Renderer
    from boresight.data.rows import make_rows
    from boresight.lab.tiny import byte_tokenizer

    job = job_of(base, prefs, method="simpo")
    other = byte_tokenizer(["quite another text about ships and shoes and sealing wax"] * 8, 290)
    job.rows = make_rows(job.examples, Renderer(other), kind="pairs")
    name, words = first_failure(job)
    assert name == "ids agree"
    assert "another tokenizer?" in words
    assert "of 48 rows are not what this one makes of the data" in words


def test_a_few_rows_that_were_altered(base, prefs):
    job = job_of(base, prefs, method="simpo")

    def other_word(t: Tokens) -> Tokens:
        ids = t.ids.copy()
        ids[6] = ids[6] + 1 if ids[6] > 5 else ids[6]  # inside the prompt, where mask and ends do not look
        return Tokens(ids, t.mask, t.ends)

    job.rows = Altered(job.rows, other_word)
    lines = lines_of(job)
    assert "rows as rendered" in failing(lines)
    assert "not what this tokenizer and template make of the data" in lines["rows as rendered"].words


def test_ids_that_mean_something_else_show_in_a_model_that_was_trained(base, prefs):
    job = job_of(base, prefs, method="sft")
    optimizer = torch.optim.Adam(job.model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        losses, _ = job.losses([job.rows[i] for i in range(8)])
        (losses.sum() / 80).backward()
        optimizer.step()
    assert lines_of(job)["texts are known"].residual < 4
    shuffled = np.r_[0:5, 5 + np.random.default_rng(0).permutation(len(job.tokenizer) - 5)]
    with torch.no_grad():
        for weight in (job.model.get_input_embeddings().weight, job.model.get_output_embeddings().weight):
            weight.copy_(weight[shuffled])
    line = lines_of(job)["texts are known"]
    assert line.verdict == "not applicable"
    assert "another model's tokenizer" in line.words


# ---- rows


@pytest.mark.parametrize("by", [-1, 1])
def test_a_mask_that_is_shifted_by_one_token(by, base, prefs, monkeypatch):
    import boresight.data.render as render

    found = render.response_mask
    monkeypatch.setattr(render, "response_mask", lambda *a: (np.roll(found(*a)[0], by), found(*a)[1]))
    name, words = first_failure(job_of(base, prefs))
    assert name == "mask"
    assert "off by 1 tokens" in words


def test_a_mask_that_ends_early(base, prefs):
    job = job_of(base, prefs, method="simpo")

    def shorter(t: Tokens) -> Tokens:
        mask = t.mask.copy()
        mask[np.flatnonzero(mask)[-4:-1]] = False
        return Tokens(t.ids, mask, t.ends)

    job.rows = Altered(job.rows, shorter)
    name, words = first_failure(job)
    assert name == "mask"
    assert "it ends before" in words


def test_double_bos_by_the_template(base, prefs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "model")
    name, words = first_failure(job_of(tmp_path / "model", prefs))
    assert name == "BOS at most once"
    assert "2 BOS at the beginning" in words


def test_double_bos_in_the_rows(base, prefs):
    job = job_of(base, prefs, method="simpo")
    bos = job.tokenizer.bos_token_id
    job.rows = Altered(job.rows, lambda t: Tokens(np.r_[bos, t.ids].astype(np.int32), np.r_[False, t.mask], t.ends))
    assert first_failure(job)[0] == "BOS at most once"


def test_end_of_turn_missing(base, prefs):
    job = job_of(base, prefs, method="sft")
    job.rows = Altered(job.rows, lambda t: Tokens(t.ids[:-1], t.mask[:-1], True))
    name, words = first_failure(job)
    assert name == "one end"
    assert "missing" in words


def test_end_of_turn_twice(base, prefs):
    job = job_of(base, prefs, method="sft")
    job.rows = Altered(job.rows, lambda t: Tokens(np.r_[t.ids, t.ids[-1:]], np.r_[t.mask, True], True))
    name, words = first_failure(job)
    assert name == "one end"
    assert "more than once" in words


def test_a_response_that_is_declared_cut_needs_no_end(base, prefs):
    job = job_of(base, prefs, method="sft")
    job.rows = Altered(job.rows, lambda t: Tokens(t.ids[:-1], t.mask[:-1], False))
    lines = lines_of(job)
    assert lines["one end"].verdict == "holds"
    assert "nothing teaches the model to stop" in lines["one end"].words


# ---- weights, adapters, what is trained


@pytest.mark.parametrize("method", ["simpo", "dpo", "bt-reward", "sft"])
def test_nan_in_a_weight_is_named(method, base, prefs):
    job = job_of(base, prefs, method=method)
    with torch.no_grad():
        job.model.model.layers[1].mlp.up_proj.weight[3, 5] = float("nan")
    name, words = first_failure(job)
    assert name == "weights are numbers"
    assert "model.layers.1.mlp.up_proj.weight" in words


def test_nan_where_no_row_of_the_sample_looks(base, prefs):
    job = job_of(base, prefs)
    used = {int(i) for row in job.rows for t in row.sequences for i in t.ids}
    with torch.no_grad():
        job.model.get_input_embeddings().weight[max(set(range(len(job.tokenizer))) - used)] = float("inf")
    lines = lines_of(job)
    assert failing(lines) == ["weights are numbers"]
    assert "model.embed_tokens.weight" in lines["weights are numbers"].words


def test_an_adapter_that_the_policy_ignores(trained_adapter, prefs, monkeypatch):
    forward = TokenLogProbs.forward

    def without(self, *batch, **options):
        with self.model.disable_adapter():
            return forward(self, *batch, **options)

    monkeypatch.setattr(TokenLogProbs, "forward", without)
    name, words = first_failure(job_of(trained_adapter, prefs, adapter="lora", reference="start"))
    assert name == "production"
    assert "the adapter is ignored" in words


def test_a_new_adapter_that_is_ignored(base, prefs, monkeypatch):
    forward = TokenLogProbs.forward

    def without(self, *batch, **options):
        with self.model.disable_adapter():
            return forward(self, *batch, **options)

    monkeypatch.setattr(TokenLogProbs, "forward", without)
    name, words = first_failure(job_of(base, prefs, adapter="lora", lora_rank=2))
    assert name == "gradient reaches"
    assert "lora_B" in words
    assert "the adapter is ignored" in words


def test_an_adapter_that_is_switched_off(trained_adapter, prefs):
    job = job_of(trained_adapter, prefs, adapter="lora", method="simpo")
    flags = [p.requires_grad for p in job.model.parameters()]
    job.model.base_model.disable_adapter_layers()
    for parameter, flag in zip(job.model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    name, words = first_failure(job)
    assert name == "adapter at work"
    assert "switched off" in words


def test_an_adapter_that_was_not_loaded_as_it_was_saved(trained_adapter, prefs, monkeypatch):
    load = material.load

    def forgetful(*arguments, **options):
        loaded = load(*arguments, **options)
        with torch.no_grad():  # as when its keys do not fit: the new, empty adapter stays in place
            for key, parameter in loaded.model.named_parameters():
                if "lora_B" in key:
                    parameter.zero_()
        return loaded

    monkeypatch.setattr(material, "load", forgetful)
    name, words = first_failure(job_of(trained_adapter, prefs, adapter="lora", reference="start"))
    assert name == "adapter as saved"
    assert "lora_B" in words


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_frozen_parameters(adapter, base, prefs):
    job = job_of(base, prefs, adapter=adapter)
    wanted = "layers.1.self_attn.q_proj.weight" if adapter == "none" else "layers.1.self_attn.q_proj.lora_B"
    for key, parameter in job.model.named_parameters():
        if wanted in key:
            parameter.requires_grad_(False)
    name, words = first_failure(job)
    assert name == "trainable"
    assert wanted in words
    assert "frozen" in words


def test_a_base_that_is_not_frozen_under_its_adapter(base, prefs):
    job = job_of(base, prefs, adapter="lora")
    next(p for n, p in job.model.named_parameters() if "embed_tokens" in n).requires_grad_(True)
    name, words = first_failure(job)
    assert name == "trainable"
    assert "should be frozen" in words


def test_a_parameter_that_the_optimizer_lacks(base, prefs):
    job = job_of(base, prefs)
    job.optimizer.param_groups[0]["params"].pop()
    name, words = first_failure(job)
    assert name == "trainable"
    assert "lm_head.weight" in words
    assert "not in the optimizer" in words


def test_a_layer_that_is_cut_off(base, prefs):
    job = job_of(base, prefs)
    job.model.model.layers[1].register_forward_pre_hook(lambda module, inputs: (inputs[0].detach(), *inputs[1:]))
    name, words = first_failure(job)
    assert name == "gradient reaches"
    assert "model.embed_tokens.weight" in words


# ---- the reference


def test_a_reference_from_another_checkpoint(base, prefs, tmp_path, monkeypatch):
    other = save_family("llama", tmp_path / "other", seed=7, initializer_range=0.05)
    resolve = references.resolve_reference
    monkeypatch.setattr(references, "resolve_reference", lambda choice, *a, **o: resolve(str(other), *a, **o))
    name, words = first_failure(job_of(base, prefs, reference="start"))
    assert name == "policy = reference"
    assert "another checkpoint" in words


def test_a_reference_without_the_adapter_that_the_policy_starts_with(trained_adapter, prefs, monkeypatch):
    resolve = references.resolve_reference
    monkeypatch.setattr(references, "resolve_reference", lambda choice, *a, **o: resolve("base", *a, **o))
    name, words = first_failure(job_of(trained_adapter, prefs, adapter="lora", reference="start"))
    assert name == "policy = reference"
    assert "base without the adapter" in words


def test_another_reference_that_is_declared_is_no_fault(base, prefs, tmp_path):
    other = save_family("llama", tmp_path / "other", seed=7, initializer_range=0.05)
    lines = lines_of(job_of(base, prefs, reference=str(other)))
    assert not failing(lines)
    assert "not equal, as declared" in lines["policy = reference"].words


def test_a_stale_store(base, prefs):
    job = job_of(base, prefs)
    for path in job.store.path.glob("*.safetensors"):  # whole and well-formed, but not what the model says
        shard = read_shard(path)
        values = np.array(shard.values) + np.float32(0.01)
        keys = [k.ljust(16, b"\0") for k in shard.keys.tolist()]
        path.unlink()
        write_shard(path.parent, {k: values[shard.offsets[i] : shard.offsets[i + 1]] for i, k in enumerate(keys)})
    name, words = first_failure(job_of(base, prefs))
    assert name == "stored reference"
    assert "stale or were altered" in words


# ---- paths


@pytest.fixture
def pad_is_eos(base, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.pad_token_id = model.config.eos_token_id
    model.save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_pad_is_eos_does_no_harm_and_is_said(pad_is_eos, prefs):
    lines = lines_of(job_of(pad_is_eos, prefs))
    assert not failing(lines)
    assert "pad is EOS" in lines["ids agree"].words


def test_pad_is_eos_with_an_attention_mask_made_from_it(pad_is_eos, prefs, monkeypatch):
    def careless(module, sequences, pad_id, device=None):
        batch = pad(sequences, pad_id)
        seen = (batch.input_ids != pad_id).long()
        return LogProbs(module(batch.input_ids, seen, batch.predictor, batch.targets), batch.owner, batch.count)

    monkeypatch.setattr(job_module, "logprobs", careless)
    name, words = first_failure(job_of(pad_is_eos, prefs))
    assert name == "production"
    assert "the mask is made from the pad id" in words


def test_pad_is_eos_with_a_response_mask_made_from_it(pad_is_eos, prefs, monkeypatch):
    def careless(module, sequences, pad_id, device=None):
        batch = pad(sequences, pad_id)
        keep = batch.targets != pad_id
        values = module(batch.input_ids, batch.attention_mask, batch.predictor[keep], batch.targets[keep])
        return LogProbs(values, batch.owner[keep], batch.count)

    monkeypatch.setattr(job_module, "logprobs", careless)
    lines = lines_of(job_of(pad_is_eos, prefs, method="sft"))
    assert failing(lines)[0] == "production"
    assert "response tokens are missing" in lines["production"].words


@pytest.mark.parametrize("family", ["cohere", "granite"])
def test_a_head_that_is_scaled_twice(family, prefs, tmp_path, monkeypatch):
    found = padded.recognise
    monkeypatch.setattr(padded, "recognise", lambda model: replace(found(model), scale=found(model).scale ** 2))
    name, words = first_failure(job_of(save_family(family, tmp_path / "model"), prefs))
    assert name == "production"
    assert "multiplied by 0.25 once more: the head is scaled twice" in words


def test_a_score_head_that_is_scaled(base, prefs, monkeypatch):
    forward = ResponseScores.forward
    monkeypatch.setattr(ResponseScores, "forward", lambda self, *batch: 3 * forward(self, *batch))
    name, words = first_failure(job_of(base, prefs, method="bt-reward"))
    assert name == "production"
    assert "3 times the model's own" in words


def test_a_reward_model_whose_pad_is_eos(base, prefs):
    job = job_of(base, prefs, method="bt-reward")
    job.model.config.pad_token_id = job.pad_id = job.tokenizer.eos_token_id
    name, words = first_failure(job)
    assert name == "padded"
    assert "pad = EOS" in words


def test_values_that_depend_on_the_micro_batch(base, prefs, monkeypatch):
    forward = TokenLogProbs.forward
    monkeypatch.setattr(padded, "choose", lambda model: "padded")

    def careless(self, *batch, fused=None, **named):
        if fused is not None:
            return forward(self, *batch, fused=fused, **named)
        ids = batch[0] if batch else named["input_ids"]
        return forward(self, *batch, **named) * (1 + 0.1 * (len(ids) == 1))

    monkeypatch.setattr(TokenLogProbs, "forward", careless)
    lines = lines_of(job_of(base, prefs))
    assert failing(lines)[0] == "one at a time"


@pytest.mark.parametrize("fault", ["positions", "groups"])
def test_a_response_that_does_not_see_its_own_prompt_in_a_packed_row(fault, base, prefs, monkeypatch):
    """Positions that go on through the row, or a rejected response that sees the chosen one."""
    pack = padded.pack

    def careless(sequences, **options):
        row = pack(sequences, **options)
        if fault == "positions":
            return replace(row, position_ids=torch.arange(row.input_ids.shape[1]).unsqueeze(0))
        return replace(row, groups=tuple(g._replace(branches=(sum(g.branches),)) for g in row.groups))

    job = job_of(base, prefs)
    monkeypatch.setattr(padded, "pack", careless)
    name, words = first_failure(job)
    assert name == "production"
    assert "not those of the model's own logits" in words


# ---- the loss


@pytest.fixture
def own_objective(tmp_path, monkeypatch):
    def write(name: str, body: str, options: str = "") -> str:
        module = f"own_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(
            "import boresight as bs\nimport torch\n"
            f"@bs.objective('{name}'{options})\n"
            f"def loss(pairs: bs.PairLogProbs) -> torch.Tensor:\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        )
        return f"{module}.loss"

    monkeypatch.chdir(tmp_path)
    return write


def test_an_objective_that_couples_rows(own_objective, base, prefs):
    method = own_objective("centred", "m = pairs.policy.margin()\nreturn -(m - m.detach().mean()).sigmoid()")
    name, words = first_failure(job_of(base, prefs, method=method))
    assert name == "rows by themselves"
    assert "couples rows" in words


def test_an_objective_whose_values_agree_and_gradients_do_not(own_objective, base, prefs):
    body = "m = pairs.policy.margin()\nreturn m.detach() + (m - m.detach()) * m.numel()"
    assert first_failure(job_of(base, prefs, method=own_objective("steep", body)))[0] == "rows by themselves"


def test_an_objective_that_is_not_finite(own_objective, base, prefs):
    name, words = first_failure(job_of(base, prefs, method=own_objective("burst", "return pairs.policy.margin() / 0")))
    assert name == "rows by themselves"
    assert "not finite" in words
    assert "prefs.jsonl:" in words


def test_a_closed_form_that_is_not_the_loss(own_objective, base, prefs):
    method = own_objective(
        "off-by-two", "return torch.nn.functional.softplus(-pairs.policy.margin())", ", at_zero=lambda: 2.0"
    )
    name, words = first_failure(job_of(base, prefs, method=method))
    assert name == "loss at zero margin"
    assert "0.6931" in words


def test_a_batch_whose_sides_are_exchanged(base, prefs, monkeypatch):
    """At the start the loss is log 2 either way; a little away from zero margin it tells."""
    assemble = job_module.assemble

    def exchanged(objective, rows, policy, *rest):
        batch = assemble(objective, rows, policy, *rest)
        for side in (batch.policy, batch.reference):
            chosen, rejected = side.chosen, side.rejected
            object.__setattr__(side, "chosen", rejected)
            object.__setattr__(side, "rejected", chosen)
        return batch

    monkeypatch.setattr(job_module, "assemble", exchanged)
    assert first_failure(job_of(base, prefs))[0] == "loss"


def test_a_gradient_that_is_lost_in_the_head(base, prefs, monkeypatch):
    def half(hidden, *rest, **options):
        return compute(hidden * 0.5 + hidden.detach() * 0.5, *rest, **options)

    compute = padded.fused_loss
    monkeypatch.setattr(padded, "fused_loss", half)
    assert first_failure(job_of(base, prefs))[0] == "gradient"


def test_a_row_whose_loss_is_lost_on_the_way_through_the_head(base, prefs, monkeypatch):
    def forgetful(hidden, weight, targets, groups, loss_of, **options):
        return compute(hidden, weight, targets, groups, lambda g, v: loss_of(g, v) * (g > 0), **options)

    compute = padded.fused_loss
    monkeypatch.setattr(padded, "fused_loss", forgetful)
    assert first_failure(job_of(base, prefs))[0] == "gradient"


def test_what_a_failed_proof_leaves_behind(base, prefs, tmp_path, monkeypatch):
    import boresight as bs

    words = {"method": "dpo", "model": base, "data": prefs, "out": tmp_path / "run", "quiet": True, "samples": 0}
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "disable_dropout", lambda model: 0)
        with pytest.raises(RunError) as stopped:
            bs.train(**words, max_steps=2)
    assert stopped.value.exit_code == 1
    assert "no dropout" in stopped.value.what
    assert "disable_dropout" in stopped.value.mend
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["state"] == "stopped by the proof"
    assert {"name", "residual", "tolerance", "verdict", "words"} == set(facts["proof"][0])
    assert next(line["name"] for line in facts["proof"] if line["verdict"] == "fails") == "no dropout"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["recipe.yaml", "run.json"]
    run = bs.train(**words, max_steps=0)  # mended: the same folder serves
    assert run.steps == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["state"] == "proof only"
    assert not any(line["verdict"] == "fails" for line in facts["proof"])
    assert not run.model.exists()
    run = bs.train(**words, max_steps=1, proof="off")
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["state"] == "finished"
    assert [line["verdict"] for line in facts["proof"]] == ["skipped"]
    assert run.model.exists()


def test_a_proof_changes_nothing_of_the_run(base, prefs, tmp_path):
    import boresight as bs

    found = []
    for choice in ("on", "off"):
        run = bs.train(
            method="dpo",
            model=base,
            data=prefs,
            out=tmp_path / choice,
            proof=choice,
            max_steps=3,
            quiet=True,
            samples=2,
        )
        found.append(load_file(run.model / "model.safetensors"))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_the_words_of_the_recipe(tmp_path):
    from boresight.training.recipe import Recipe

    (tmp_path / "r.yaml").write_text("method: dpo\nmodel: m\ndata: d\nout: o\nproof: off\n")  # YAML reads a boolean
    recipe = Recipe.read(tmp_path / "r.yaml")
    assert recipe.proof == "off"
    (tmp_path / "again.yaml").write_text(recipe.dump())
    assert Recipe.read(tmp_path / "again.yaml").proof == "off"
    assert Recipe.read(method="dpo", model="m", data="d", out="o").proof == "on"
