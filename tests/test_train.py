"""Runs from end to end: what a run leaves behind, that it repeats, resumes, and computes what it says."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import boresight as bs
from boresight.errors import InputError, RunError
from boresight.objectives import objectives
from boresight.training.extra import check as check_needs
from boresight.training.recipe import Recipe
from everything import every_method, words_for, write_everything
from words import WORDS, sentence

SMALL = {"batch": 8, "micro_batch": 8, "samples": 0, "trackers": "none", "log_every": 1, "quiet": True, "lr": 1e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    path = tmp_path_factory.mktemp("base") / "model"
    make_model([" ".join(WORDS)] * 8, path, vocab=300, hidden=32, layers=2, heads=2, seed=0)
    return path


@pytest.fixture(scope="module")
def prefs(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "prefs.jsonl"
    rows = [{"prompt": sentence(rng), "chosen": sentence(rng), "rejected": sentence(rng)} for _ in range(40)]
    rows = [r for r in rows if r["chosen"] != r["rejected"]]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict]:
    """The metrics without clocks."""
    return [{k: v for k, v in line.items() if "time" not in k and "second" not in k} for line in lines(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "model").glob("*model.safetensors")))


def go(base, prefs, out, **words):
    return bs.train(**{**SMALL, "method": "dpo", "model": base, "data": prefs, "out": out, **words})


def test_same_recipe_twice_gives_identical_metrics_and_weights(base, prefs, tmp_path):
    for name in ("a", "b"):
        go(base, prefs, tmp_path / name, eval_data=prefs, max_steps=4, samples=2, sample_tokens=5)
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    return write_everything(tmp_path_factory.mktemp("all") / "all.jsonl")


@pytest.mark.parametrize("method", every_method())
def test_one_batch_of_eight_is_eight_of_one(base, everything, tmp_path, method):
    words = SMALL | {"sample_tokens": 5, "method": method, "model": base, "data": everything, "max_steps": 2}
    words |= words_for(objectives()[method], base)
    del words["quiet"]
    # The proof with rows one by one is test_proof_holds.
    for micro, proof in ((8, "on"), (1, "off")):
        # A mapping is a recipe, so that a method which the package trains in stages is one run here.
        bs.train({**words, "out": tmp_path / str(micro), "micro_batch": micro, "proof": proof}, quiet=True)
    for x, y in zip(timeless(tmp_path / "8"), timeless(tmp_path / "1"), strict=True):
        assert x == pytest.approx(y, rel=2e-4, abs=2e-5)
    a, b = weights(tmp_path / "8"), weights(tmp_path / "1")
    # Adam divides by the gradient's size, so a gradient that is all rounding may move by up to lr a step.
    differences = torch.cat([(a[k] - b[k]).abs().flatten() for k in a])
    assert float((differences > 1e-5).float().mean()) < 0.01


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Pairs of one word and pairs of a hundred."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "uneven.jsonl"
    sizes = [(1, 2), (1, 2), (60, 100), (1, 100), (20, 21)] * 6
    rows = [
        {"prompt": sentence(rng, *size), "chosen": sentence(rng, *size), "rejected": f"{sentence(rng)} {i}"}
        for i, size in enumerate(sizes)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["dpo", "sft", "kto", "bt-reward"])
def test_the_result_does_not_depend_on_what_goes_through_at_once(base, uneven, tmp_path, method):
    """Budgets of less than one row, of a few, and of all; rows are dealt to other micro-batches in another order."""
    words = {"method": method, "max_steps": 3, "micro_batch": None, "eval_data": uneven, "lr": 1e-4}
    for budget in (1, 300, 100_000):
        go(base, uneven, tmp_path / str(budget), micro_tokens=budget, **words)
    whole, at_most = timeless(tmp_path / "100000"), weights(tmp_path / "100000")
    for budget in ("1", "300"):
        for x, y in zip(timeless(tmp_path / budget), whole, strict=True):
            assert x == pytest.approx(y, rel=2e-4, abs=2e-5)
        b = weights(tmp_path / budget)
        differences = torch.cat([(at_most[k] - b[k]).abs().flatten() for k in b])
        assert float((differences > 1e-5).float().mean()) < 0.01
    assert not all(torch.equal(at_most[k], b[k]) for k in b)  # they did go through in other parts


def test_a_run_of_before_there_was_micro_tokens_is_resumed(base, prefs, tmp_path):
    """Its recipe says micro_batch alone, and its checkpoint nothing of tokens."""
    from boresight.training import checkpoint

    go(base, prefs, tmp_path / "run", max_steps=4, save_every=2, keep=9, micro_batch=3)
    whole = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text("".join(x for x in recipe.read_text().splitlines(True) if not x.startswith("micro_tokens")))
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    del facts["recipe"]["micro_tokens"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    old = tmp_path / "run" / "checkpoints" / "step-00000002"
    progress = json.loads((old / "training" / "progress.json").read_text())
    assert progress.pop("micro_tokens") == 8192
    (old / "training" / "progress.json").write_text(json.dumps(progress))
    manifest = json.loads((old / checkpoint.MANIFEST).read_text())
    manifest["training/progress.json"] = checkpoint._digest(old / "training" / "progress.json")
    (old / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    bs.train(out=tmp_path / "run", resume=True, quiet=True)
    assert all(torch.equal(whole[k], v) for k, v in weights(tmp_path / "run").items())


def test_first_step_is_what_plain_code_computes(base, prefs, tmp_path):
    """The loss and gradient norm of step one against whole-logit code that shares nothing with the engine."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    go(base, prefs, tmp_path / "run", max_steps=1, batch=4, beta=0.7, lr=1e-3, method="simpo", gamma_beta_ratio=0.3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    rows = [json.loads(x) for x in prefs.read_text().splitlines()]
    order = np.random.default_rng([0, 0]).permutation(len(rows))[:4]
    total = torch.zeros((), dtype=torch.float64)
    for i in order:
        means = []
        for side in ("chosen", "rejected"):
            prompt = [{"role": "user", "content": rows[i]["prompt"]}]
            whole = [*prompt, {"role": "assistant", "content": rows[i][side]}]
            start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            text = tokenizer.apply_chat_template(whole, tokenize=False)
            assert text.startswith(start)
            text = text[: text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)]
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            n = len(tokenizer(start, add_special_tokens=False)["input_ids"])
            logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            means.append(sum(logp[t - 1, ids[t]] for t in range(n, len(ids))) / (len(ids) - n))
        total = total + torch.nn.functional.softplus(-0.7 * (means[0] - means[1] - 0.3)) / 4
    total.backward()
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters() if p.grad is not None))
    first = lines(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_dpo_starts_at_log_two_with_no_gain(base, prefs, tmp_path):
    go(base, prefs, tmp_path / "run", eval_data=prefs, max_steps=1)
    start = next(x for x in lines(tmp_path / "run") if "eval_loss" in x)
    assert start["eval_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert abs(start["eval_margin"]) < 1e-4


@pytest.mark.parametrize("words", [{}, {"adapter": "lora", "lora_rank": 2}, {"method": "kto"}])
def test_resume_is_bit_for_bit(base, prefs, tmp_path, words):
    go(base, prefs, tmp_path / "whole", max_steps=6, save_every=3, log_every=2, keep=9, **words)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    values = {**SMALL, **words, "max_steps": 6, "save_every": 3, "log_every": 2, "keep": 9}
    go(base, prefs, tmp_path / "cut", resume=True, **values)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


@pytest.mark.parametrize("method", ["beta-dpo", "bco", "spo-preference-degree", "sparsepo", "sgdpo", "typo"])
def test_resume_keeps_state_heads_and_noise(base, everything, tmp_path, method):
    """What is remembered of earlier batches, modules trained beside the model, draws by step, samples."""
    words = {"method": method, "max_steps": 4, "save_every": 2, "keep": 9, "sample_tokens": 5, "lr": 1e-2}
    go(base, everything, tmp_path / "whole", **words)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000004")
    go(base, everything, tmp_path / "cut", resume=True, **words)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    end = "checkpoints/step-00000004/training/progress.json"
    whole, cut = (json.loads((tmp_path / name / end).read_text()) for name in ("whole", "cut"))
    assert whole["state"] == cut["state"]
    known = objectives()[method]
    assert set(whole["state"]) == set(known.state)
    assert (tmp_path / "whole" / "model" / "heads.safetensors").exists() == (known.heads is not None)
    if known.state:
        assert any(whole["state"][name] != value for name, value in known.state.items())


def test_a_row_that_is_twice_in_a_batch_counts_twice(base, tmp_path):
    """Eight rows in batches of sixteen: the mean loss over a batch of everybody twice is that of everybody once."""
    data = write_everything(tmp_path / "four.jsonl", 4)
    once = go(base, data, tmp_path / "once", method="bco", batch=8, max_steps=1)
    twice = go(base, data, tmp_path / "twice", method="bco", batch=16, epochs=2, max_steps=1)
    assert once.steps == twice.steps == 1
    a, b = weights(tmp_path / "once"), weights(tmp_path / "twice")
    apart = torch.cat([(a[k] - b[k]).abs().flatten() for k in a])
    assert float((apart > 1e-5).float().mean()) < 0.01
    assert lines(tmp_path / "once")[-1]["grad_norm"] == pytest.approx(
        lines(tmp_path / "twice")[-1]["grad_norm"], rel=1e-3
    )


def test_options_that_a_method_has_no_use_for_are_refused(base, everything, tmp_path):
    with pytest.raises(InputError, match="takes no further references"):
        go(base, everything, tmp_path / "a", references="base")
    recipe = Recipe.read(method="typo", model=base, data=everything, out=tmp_path / "b")
    with pytest.raises(InputError, match="needs samples, which a model split over processes does not give"):
        check_needs(recipe, recipe.objective, divided=True)


def test_resume_needs_only_the_folder(base, prefs, tmp_path):
    go(base, prefs, tmp_path / "run", max_steps=4, save_every=2)
    before = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    run = bs.train(out=tmp_path / "run", resume=True, quiet=True)
    assert run.steps == 4
    assert all(torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


def test_a_damaged_checkpoint_is_passed_over(base, prefs, tmp_path):
    go(base, prefs, tmp_path / "run", max_steps=4, save_every=2, keep=9)
    before = weights(tmp_path / "run")
    broken = tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-7])
    bs.train(out=tmp_path / "run", resume=True, quiet=True)
    assert all(torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


def test_out_is_never_overwritten(base, prefs, tmp_path):
    go(base, prefs, tmp_path / "run", max_steps=1)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(InputError, match="holds a run"):
        go(base, prefs, tmp_path / "run", max_steps=1)
    with pytest.raises(InputError, match=r"beta=0\.1, not 0\.2"):
        go(base, prefs, tmp_path / "run", max_steps=1, beta=0.2, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not a run"):
        go(base, prefs, tmp_path / "mine", max_steps=1)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_nothing_is_written_for_input_that_cannot_be_used(base, prefs, tmp_path):
    for words in ({"data": tmp_path / "none.jsonl"}, {"model": tmp_path / "none"}, {"beta": -1.0}):
        with pytest.raises(InputError):
            bs.train(**{**SMALL, "method": "dpo", "model": base, "data": prefs, "out": tmp_path / "run", **words})
        assert not (tmp_path / "run").exists()


def test_checkpoints_load_in_plain_transformers_and_peft(base, prefs, tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    full = go(base, prefs, tmp_path / "full", max_steps=2)
    lora = go(base, prefs, tmp_path / "lora", max_steps=2, adapter="lora", lora_rank=2)
    ids = torch.tensor([AutoTokenizer.from_pretrained(full.model)("the cat sat")["input_ids"]])
    start = AutoModelForCausalLM.from_pretrained(base)(ids).logits
    for model in (
        AutoModelForCausalLM.from_pretrained(full.model),
        AutoPeftModelForCausalLM.from_pretrained(lora.model),
    ):
        with torch.no_grad():
            assert float((model.eval()(ids).logits - start).abs().max()) > 1e-4
    card = (full.model / "README.md").read_text()
    assert "Rafailov" in card


def test_a_reward_model_gives_the_same_scores_in_plain_transformers(base, prefs, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = go(base, prefs, tmp_path / "run", method="bt-reward", max_steps=6, eval_data=prefs)
    model = AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    assert model.config.pad_token_id != tokenizer.eos_token_id
    evaluation = bs.evaluate(run.folder, prefs, quiet=True)
    rows = [json.loads(x) for x in prefs.read_text().splitlines()]
    margins = []
    for row in rows:
        texts = []
        for side in ("chosen", "rejected"):
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            texts.append(text[: text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)])
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            scores = model(**batch).logits[:, 0]
        margins.append(float(scores[0] - scores[1]))
    assert evaluation["margin"].value == pytest.approx(np.mean(margins), abs=1e-5)
    assert evaluation["accuracy"].value == pytest.approx(np.mean(np.array(margins) > 0))


def test_an_objective_of_ones_own_trains_unchanged(base, prefs, tmp_path, monkeypatch):
    (tmp_path / "mymodule.py").write_text(
        textwrap.dedent('''
        from torch import Tensor
        from torch.nn.functional import softplus
        import boresight as bs

        @bs.objective("my-loss", needs=("reference",))
        def my_loss(pairs: bs.PairLogProbs, *, slope: float = 2.0) -> Tensor:
            """Logistic loss with a slope."""
            return softplus(-slope * pairs.margin())
        ''')
    )
    monkeypatch.chdir(tmp_path)
    go(base, prefs, tmp_path / "own", method="mymodule.my_loss", slope=0.1, max_steps=3)
    go(base, prefs, tmp_path / "dpo", method="dpo", beta=0.1, max_steps=3)
    a, b = weights(tmp_path / "own"), weights(tmp_path / "dpo")
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_an_objective_that_averages_is_stopped(base, prefs, tmp_path, monkeypatch):
    (tmp_path / "averaging.py").write_text(
        "import boresight as bs\nfrom torch import Tensor\n"
        "@bs.objective('averaging')\n"
        "def averaging(pairs: bs.PairLogProbs) -> Tensor:\n    return pairs.policy.margin().mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="one loss per example"):
        go(base, prefs, tmp_path / "run", method="averaging.averaging", max_steps=1)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(base, prefs, tmp_path, monkeypatch):
    (tmp_path / "burst.py").write_text(
        "import boresight as bs\nfrom torch import Tensor\n"
        "@bs.objective('burst')\n"
        "def burst(pairs: bs.PairLogProbs) -> Tensor:\n    return pairs.policy.margin() / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="not finite") as caught:
        go(base, prefs, tmp_path / "run", method="burst.burst", max_steps=1, proof="off")
    written = next((tmp_path / "run").glob("offending-rows-*.jsonl"))
    assert str(written) in caught.value.what
    assert "prefs.jsonl:" in written.read_text()


def test_pitfall_16_the_reference_of_a_trained_adapter_is_never_guessed(base, prefs, tmp_path):
    first = go(base, prefs, tmp_path / "first", method="sft", adapter="lora", lora_rank=2, max_steps=4, lr=1e-2)
    with pytest.raises(InputError, match="reference"):
        go(base, prefs, tmp_path / "guess", adapter="lora", max_steps=1, model=first.model)
    losses = {}
    for choice in ("start", "base"):
        out = tmp_path / choice
        bs.train(
            method="dpo", model=first.model, data=prefs, out=out, adapter="lora", max_steps=1, reference=choice, **SMALL
        )
        losses[choice] = lines(out)[0]["loss"]
    assert losses["start"] == pytest.approx(np.log(2), abs=1e-5)
    assert abs(losses["base"] - np.log(2)) > 1e-4  # the adapter has moved away from its base


def test_pitfall_1_the_reference_store_depends_on_weights_and_tokens_alone(base, prefs, tmp_path, monkeypatch):
    import boresight.engine.store as store

    filled = []
    fill = store.ReferenceStore.fill
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))

    def counting(self, sequences, *args, **kwargs):
        sequences = list(sequences)
        filled.append(len(self.missing(sequences)))
        return fill(self, sequences, *args, **kwargs)

    monkeypatch.setattr(store.ReferenceStore, "fill", counting)
    go(base, prefs, tmp_path / "a", max_steps=1)
    go(base, prefs, tmp_path / "b", max_steps=1, lr=1e-4, beta=0.3, seed=5)  # nothing the values depend on
    go(base, prefs, tmp_path / "c", max_steps=1, method="ipo")
    assert filled[0] > 0
    assert sum(filled[1:]) == 0
    moved = go(base, prefs, tmp_path / "d", max_steps=1)
    go(base, prefs, tmp_path / "e", max_steps=1, model=moved.model)  # other weights
    assert filled[-1] == filled[0]


def test_evaluation_agrees_with_plain_code(base, prefs, tmp_path):
    """Implicit-reward accuracy recomputed from whole logits."""
    from boresight.data.read import read
    from boresight.data.render import Renderer
    from boresight.data.rows import make_rows
    from boresight.engine.padded import plain_logprobs
    from boresight.training.load import load

    run = go(base, prefs, tmp_path / "run", max_steps=6)
    evaluation = bs.evaluate(run.folder, prefs, samples=0, quiet=True)
    policy, reference = load(str(run.model)), load(str(base))
    rows = list(make_rows(read(prefs), Renderer(policy.tokenizer), kind="pairs"))
    margins = []
    for row in rows:
        with torch.no_grad():
            after, before = (plain_logprobs(m.model, row.sequences, m.pad_id).sum() for m in (policy, reference))
        gain = after - before
        margins.append(float(gain[0] - gain[1]))
    assert evaluation["margin"].value == pytest.approx(np.mean(margins), abs=1e-4)
    assert evaluation["implicit-reward accuracy"].value == pytest.approx(np.mean(np.array(margins) > 0), abs=1e-9)


def test_the_run_folder_says_what_was_done(base, prefs, tmp_path):
    run = go(base, prefs, tmp_path / "run", max_steps=1)
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["state"] == "finished"
    assert facts["recipe"]["beta"] == 0.1
    assert facts["data"]["read"] == len(prefs.read_text().splitlines())
    assert {"boresight", "torch", "transformers"} <= set(facts["versions"])
    assert Recipe.read(run.folder / "recipe.yaml").method == "dpo"
