"""`score` against the plain way: one text at a time through the saved model in float64, no batches, no store."""

from __future__ import annotations

import json
import math
import multiprocessing as mp
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import boresight as bs
import killing
import tiny
from boresight.cli import main
from boresight.errors import InputError, RunError
from boresight.training import judge as judge_module
from boresight.training import score as score_module
from boresight.training.score import score
from words import WORDS, sentence


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("score")


@pytest.fixture(scope="module")
def base(folder) -> Path:
    from boresight.lab.tiny import make_model

    return make_model([" ".join(WORDS)] * 8, folder / "base", vocab=300, hidden=32, layers=2, heads=2, seed=0)


@pytest.fixture(scope="module")
def other(base, folder) -> Path:
    """The same architecture and tokenizer, other weights."""
    from boresight.lab.tiny import make_model

    return make_model([" ".join(WORDS)] * 8, folder / "other", vocab=300, hidden=32, layers=2, heads=2, seed=1)


@pytest.fixture(scope="module")
def adapter(base, folder) -> Path:
    model = tiny.lora(AutoModelForCausalLM.from_pretrained(base), task_type="CAUSAL_LM")
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder / "adapter")
    shutil.copy(base / "tokenizer.json", folder / "adapter")
    shutil.copy(base / "tokenizer_config.json", folder / "adapter")
    shutil.copy(base / "chat_template.jinja", folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="module")
def reward(base, folder) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "reward")
    return folder / "reward"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()]


def some_pairs(count: int = 12) -> list[dict]:
    rng = np.random.default_rng(0)
    return [{"prompt": f"{i} {sentence(rng)}", "chosen": sentence(rng, 5), "rejected": sentence(rng)}
            for i in range(count)]  # fmt: skip


def ids_of(tokenizer, prompt: str, response: str) -> tuple[list[int], int]:
    """Ids of the conversation up to the end of its last turn, and how many of them come before the response."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    text = text[: text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)]
    before = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(before)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = tokenizer(before, add_special_tokens=False)["input_ids"]
    assert ids[: len(start)] == start
    return ids, len(start)


def plain(model: Path, prompt: str, response: str, weights=None) -> list[float]:
    """Log-probs of the response's tokens: one sequence, float64, the model's own logits."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    weights = weights or AutoModelForCausalLM.from_pretrained(model).double().eval()
    ids, start = ids_of(tokenizer, prompt, response)
    with torch.no_grad():
        table = torch.log_softmax(weights(torch.tensor([ids])).logits[0].double(), -1)
    return [float(table[i - 1, ids[i]]) for i in range(start, len(ids))]


def close(value: float | None, truth: float) -> None:
    assert value == pytest.approx(truth, rel=2e-5, abs=2e-5)


def test_pairs_equal_the_plain_way_with_a_reference(base, other, tmp_path):
    rows = some_pairs()
    data, out = jsonl(tmp_path / "prefs.jsonl", rows), tmp_path / "scores.jsonl"
    found = score(data, base, reference=other, beta=0.3, per_token=True, out=out, quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    models = [AutoModelForCausalLM.from_pretrained(m).double().eval() for m in (base, other)]
    lines = read_lines(out)
    assert [x["index"] for x in lines] == list(range(len(rows)))
    assert [x["source"] for x in lines] == [f"prefs.jsonl:{i + 1}" for i in range(len(rows))]
    table = {side: [] for side in ("chosen", "rejected")}
    for row, line in zip(rows, lines, strict=True):
        for side, given in zip(("chosen", "rejected"), line["responses"], strict=True):
            ours, theirs = (plain(base, row["prompt"], row[side], m) for m in models)
            close(given["logprob"], sum(ours))
            close(given["mean"], sum(ours) / len(ours))
            close(given["perplexity"], math.exp(-sum(ours) / len(ours)))
            close(given["reference"], sum(theirs))
            close(given["ratio"], sum(ours) - sum(theirs))
            close(given["reward"], 0.3 * (sum(ours) - sum(theirs)))
            assert given["logprobs"] == pytest.approx(ours, rel=1e-4, abs=1e-5)
            assert given["reference_logprobs"] == pytest.approx(theirs, rel=1e-4, abs=1e-5)
            assert (given["tokens"], given["ends"], given["cut"], given["cut_prompt"]) == (len(ours), True, 0, 0)
            ids, start = ids_of(tokenizer, row["prompt"], row[side])
            assert given["token_ids"] == ids[start:]
            assert "".join(given["pieces"]) == row[side] + tokenizer.eos_token
            table[side].append((sum(ours), sum(ours) / len(ours), sum(ours) - sum(theirs), len(ours)))
    chosen, rejected = np.array(table["chosen"]), np.array(table["rejected"])
    for k, name in enumerate(
        ("accuracy (log-prob)", "accuracy (mean log-prob)", "accuracy (log-ratio)", "longer wins")
    ):
        right = np.where(chosen[:, k] == rejected[:, k], 0.5, chosen[:, k] > rejected[:, k])
        assert found[name].value == pytest.approx(right.mean()), name
        assert (found[name].n, found[name].low < found[name].value < found[name].high) == (len(rows), True)
    both = np.concatenate([chosen, rejected])
    assert found["mean log-prob"].value == pytest.approx(both[:, 1].mean(), abs=1e-4)
    assert found["perplexity"].value == pytest.approx(np.exp(-both[:, 1].mean()), rel=1e-4)
    assert found["log-prob"].value == pytest.approx(both[:, 0].mean(), rel=1e-5)
    assert found["reward"].value == pytest.approx(0.3 * both[:, 2].mean(), abs=1e-4)
    assert found["tokens"].value == both[:, 3].mean()
    assert (found.examples, found.responses, found.tokens) == (len(rows), 2 * len(rows), both[:, 3].sum())
    # A mean's interval takes the two responses of a prompt together.
    pairwise = (chosen[:, 0] + rejected[:, 0]) / 2
    from scipy.stats import t

    half = t.ppf(0.975, len(rows) - 1) * pairwise.std(ddof=1) / math.sqrt(len(rows))
    assert found["log-prob"].high - found["log-prob"].value == pytest.approx(half, rel=1e-4)


LISTS = {
    "prompt": "the old dogs",
    "responses": ["run", "sat on a mat", "saw the ball in my garden"],
    "scores": [1, 3, 2],
}
FORMS = {
    "explicit prompt": ({"prompt": "the cat", "chosen": "sat on a mat", "rejected": "run"},
                        [("the cat", "sat on a mat"), ("the cat", "run")]),
    "list": (LISTS, [("the old dogs", r) for r in LISTS["responses"]]),
    "label": ({"prompt": "one red", "completion": "ball", "label": False}, [("one red", "ball")]),
    "demonstration": ({"prompt": "my", "completion": "old house"}, [("my", "old house")]),
    "messages": ({"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "small dogs"}]},
                 [("two", "small dogs")]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data(form, base, tmp_path):
    row, texts = FORMS[form]
    found = score(jsonl(tmp_path / "d.jsonl", [row, row]), base, quiet=True)
    assert [r["index"] for r in found.rows] == [0, 1]
    for line in found.rows:
        assert [r["response"] for r in line["responses"]] == list(range(len(texts)))
        for given, (prompt, response) in zip(line["responses"], texts, strict=True):
            close(given["logprob"], sum(plain(base, prompt, response)))
            assert set(given) == {"response", "tokens", "ends", "cut", "cut_prompt", "logprob", "mean", "perplexity"}


def test_pairs_of_a_list_count_by_prompt(base, tmp_path):
    """Three pairs of one list all agree: that is one prompt's word, not three."""
    found = score(jsonl(tmp_path / "d.jsonl", [LISTS] * 4), base, quiet=True)
    accuracy = found["longer wins"]  # 2nd > 3rd > 1st by its scores; by length 3rd > 2nd > 1st
    assert (accuracy.n, accuracy.value) == (12, pytest.approx(2 / 3))
    assert accuracy.high - accuracy.low > 0.3


def test_a_reward_model(reward, tmp_path):
    rows = some_pairs(6)
    found = score(jsonl(tmp_path / "d.jsonl", rows), reward, quiet=True)
    assert found.kind == "score"
    model = AutoModelForSequenceClassification.from_pretrained(reward).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(reward)
    right = []
    for row, line in zip(rows, found.rows, strict=True):
        truth = []
        for side in ("chosen", "rejected"):
            ids, start = ids_of(tokenizer, row["prompt"], row[side])
            with torch.no_grad():
                truth.append((float(model(torch.tensor([ids])).logits[0, 0]), len(ids) - start))
        for given, (value, length) in zip(line["responses"], truth, strict=True):
            close(given["score"], value)
            assert given["tokens"] == length
        right.append(truth[0][0] > truth[1][0])
    assert found["accuracy (score)"].value == pytest.approx(np.mean(right))
    for word, value in {"reference": "x", "beta": 0.1, "per_token": True}.items():
        with pytest.raises(InputError, match=f"reward model: {word}"):
            score(tmp_path / "d.jsonl", reward, quiet=True, **{word: value})


def test_an_adapter_and_what_lies_under_it(base, adapter, tmp_path):
    from peft import PeftModel

    rows = some_pairs(4)
    data = jsonl(tmp_path / "d.jsonl", rows)
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).double().eval()
    by_name = score(data, adapter, reference=base, quiet=True)
    by_word = score(data, adapter, reference="base", quiet=True, store=tmp_path / "fresh")
    put_on = score(data, base, adapter=adapter, reference="base", quiet=True, store=tmp_path / "third")
    assert by_name.rows == by_word.rows == put_on.rows
    for row, line in zip(rows, by_name.rows, strict=True):
        for side, given in zip(("chosen", "rejected"), line["responses"], strict=True):
            close(given["logprob"], sum(plain(base, row["prompt"], row[side], whole)))
            close(given["reference"], sum(plain(base, row["prompt"], row[side])))
    against_other = score(data, base, reference=adapter, quiet=True)
    assert [r["ratio"] for x in against_other.rows for r in x["responses"]] == pytest.approx(
        [-r["ratio"] for x in by_name.rows for r in x["responses"]], abs=1e-5
    )


def test_a_run_knows_its_template_and_reference(base, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(8))
    run = bs.train(
        method="dpo", model=base, data=data, out=tmp_path / "run", template="plain", max_steps=2, batch=4, samples=0,
        trackers="none", lr=1e-2, quiet=True, store=str(tmp_path / "store"),
    )  # fmt: skip
    found = score(data, run.folder, quiet=True, store=tmp_path / "store")
    explicit = score(data, run.folder / "model", reference=base, template="plain", quiet=True)
    assert found.rows == explicit.rows
    assert any(abs(r["ratio"]) > 1e-3 for x in found.rows for r in x["responses"])
    evaluation = bs.evaluate(run.folder, data, samples=0, quiet=True)
    assert found["accuracy (log-ratio)"].value == evaluation["implicit-reward accuracy"].value
    assert found["accuracy (log-prob)"].value == evaluation["accuracy (log-prob)"].value
    assert "ratio" not in score(data, run.folder, reference="none", quiet=True).rows[0]["responses"][0]


def test_what_cannot_be_scored_keeps_its_place(base, tmp_path):
    long = " ".join(WORDS * 9)
    examples = [
        bs.Example("the", (bs.Response("cat sat"), bs.Response("   "))),
        bs.Example("the", (bs.Response(long), bs.Response("mat"))),
        bs.Example(long, (bs.Response("mat"),)),
    ]
    found = score(examples[:2], base, max_length=60, quiet=True)
    assert [[r.get("left_out") for r in x["responses"]] for x in found.rows] == [
        [None, "empty-response"],
        ["too-long", None],
    ]
    assert found.left_out == {"empty-response": 1, "too-long": 1}
    assert (found.responses, found["tokens"].n) == (4, 2)
    cut = score(examples[1:2], base, max_length=60, truncation="cut-both", quiet=True).rows[0]["responses"][0]
    assert (cut["ends"], cut["cut"] > 0) == (False, True)
    found = score(examples[2:], base, max_length=60, truncation="cut-prompt", quiet=True)
    (only,) = found.rows[0]["responses"]
    assert (only["ends"], only["cut"], only["cut_prompt"] > 0) == (True, 0, True)


def test_no_more_tokens_than_the_model_takes(tmp_path, base):
    model = tmp_path / "short"
    shutil.copytree(base, model)
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 24}
    (model / "config.json").write_text(json.dumps(config))
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "the", "chosen": " ".join(WORDS), "rejected": "mat"}])
    found = score(data, model, max_length=500, quiet=True)
    assert [r.get("left_out") for r in found.rows[0]["responses"]] == ["too-long", None]


def test_rows_in_memory_and_repeated_prompts(base):
    rows = [{"prompt": "the cat", "completion": c} for c in ("sat", "run", "sat")]
    found = score(rows, base, quiet=True)
    values = [x["responses"][0]["logprob"] for x in found.rows]
    assert values[0] == values[2] != values[1]
    assert bs.score is score
    assert found.computed == 2  # equal texts are computed once
    again = score(rows, base, quiet=True)
    assert (again.computed, again.rows) == (0, found.rows)


def test_any_budget_and_chunk_gives_the_same(base, tmp_path, monkeypatch):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(10))
    whole = score(data, base, quiet=True)
    monkeypatch.setattr(score_module, "_AT_ONCE", 3)
    apart = score(data, base, micro_tokens=1, store=tmp_path / "other", quiet=True)
    assert apart.computed == whole.computed
    for a, b in zip(whole.rows, apart.rows, strict=True):
        for x, y in zip(a["responses"], b["responses"], strict=True):
            assert x == pytest.approx(y, rel=1e-5)


def test_infinite_values_are_null_and_in_no_figure():
    from boresight.data.example import Example, Pair, Response
    from boresight.training.score import digits
    from boresight.training.scoresummary import Summary

    assert [digits(x) for x in (-np.inf, np.nan, np.float32(0.1))] == [None, None, 0.100000001]
    example = Example("p", (Response("a"), Response("b")), (Pair(0, 1),))
    summary = Summary("log-prob", False, None)
    whole = {"tokens": 2, "ends": True, "logprob": -2.0, "mean": -1.0}
    summary.add(example, [{"response": 0} | whole, {"response": 1} | whole | {"logprob": None, "mean": None}])
    measures, words = summary.figures()
    assert {m.name: m.interval.n for m in measures}["log-prob"] == 1
    assert not any("accuracy" in m.name for m in measures)
    assert "1 responses have a log-prob that is not finite" in words[0]


def test_no_response_at_all(base, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "the", "chosen": "cat sat", "rejected": "mat"}])
    found = score(data, base, max_length=2, quiet=True)
    assert [set(r) for r in found.rows[0]["responses"]] == [{"response", "left_out"}] * 2
    assert math.isnan(found["log-prob"].value)


# ---- the store and the file


def _work(folder: str, base: str, kill: int, out: str) -> None:
    """Score in a process of its own; it kills itself when the n-th shard has been written."""
    os.environ["BORESIGHT_CACHE"] = str(Path(folder) / "cache")
    torch.set_num_threads(1)
    from boresight.engine import store

    store._BLOCK_SEQUENCES, store._FLUSH_SECONDS = 4, 0.0
    score_module._AT_ONCE = 8
    real, calls = store.write_shard, 0

    def wrapped(*args):
        nonlocal calls
        calls += 1
        path = real(*args)
        if calls == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    store.write_shard = wrapped
    found = score(Path(folder) / "d.jsonl", base, out=Path(folder) / out, quiet=True)
    Path(folder, "computed.txt").write_text(str(found.computed))
    os._exit(0)


@pytest.mark.slow
def test_after_a_kill_the_same_call_goes_on_and_gives_the_same_bytes(base, tmp_path):
    jsonl(tmp_path / "d.jsonl", some_pairs(12))
    other = tmp_path / "whole"
    other.mkdir()
    shutil.copy(tmp_path / "d.jsonl", other)

    def run(folder: Path, kill: int) -> int | None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([*killing.MODULES, "boresight.training.score"])
        process = context.Process(target=_work, args=(str(folder), str(base), kill, "s.jsonl"))
        process.start()
        process.join(120)
        return process.exitcode

    assert run(other, 0) == 0
    assert run(tmp_path, 4) == -signal.SIGKILL
    assert not (tmp_path / "s.jsonl").exists()
    begun = (tmp_path / ".s.jsonl.partial").read_bytes()
    whole = (other / "s.jsonl").read_bytes()
    assert begun
    assert whole.startswith(begun)
    assert run(tmp_path, 0) == 0
    assert (tmp_path / "s.jsonl").read_bytes() == whole
    assert (int((other / "computed.txt").read_text()), int((tmp_path / "computed.txt").read_text())) == (24, 8)
    assert not list(tmp_path.glob(".s.jsonl*"))


def test_weights_in_bf16_have_a_store_of_their_own(base):
    rows = some_pairs(4)
    whole, half = (score(rows, base, dtype=dtype, quiet=True) for dtype in ("fp32", "bf16"))
    assert half.computed == whole.computed == 8
    for a, b in zip(whole.rows, half.rows, strict=True):
        for x, y in zip(a["responses"], b["responses"], strict=True):
            assert x["mean"] == pytest.approx(y["mean"], abs=0.05)  # nats; bf16 holds 8 bits


def test_what_training_computed_is_found(base, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(8))
    bs.train(method="dpo", model=base, data=data, out=tmp_path / "run", max_steps=1, batch=4, samples=0,
             trackers="none", quiet=True)  # fmt: skip
    assert score(data, base, quiet=True).computed == 0


def test_an_altered_store_is_found_out(base, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(4))
    score(data, base, quiet=True, store=tmp_path / "store")
    from boresight.engine.shards import read_shard, write_shard

    path = next((tmp_path / "store").rglob("shard-*"))
    shard = read_shard(path)
    ends = shard.offsets.tolist()
    moved = {bytes(k).ljust(16, b"\0"): shard.values[a:b] + 0.5
             for k, a, b in zip(shard.keys, ends, ends[1:], strict=False)}  # fmt: skip
    write_shard(path.parent, moved)
    path.unlink()
    with pytest.raises(RunError, match="stale"):
        score(data, base, quiet=True, store=tmp_path / "store")


def test_a_file_is_never_overwritten(base, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(3))
    out = tmp_path / "new" / "scores.jsonl"
    (tmp_path / "new").mkdir()
    out.with_name(".scores.jsonl.partial").write_text("what a killed process left, longer than what comes" * 100)
    score(data, base, out=out, quiet=True)
    assert len(read_lines(out)) == 3
    before = out.read_bytes()
    with pytest.raises(InputError, match="exists"):
        score(data, base, out=out, quiet=True)
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="jsonl"):
        score(data, base, out=tmp_path / "scores.txt", quiet=True)


def test_two_at_once_and_an_error_on_the_way(base, tmp_path, monkeypatch):
    from boresight.training.scorefile import ScoreFile

    data, out = jsonl(tmp_path / "d.jsonl", some_pairs(3)), tmp_path / "s.jsonl"
    with ScoreFile(out) as held:
        held.add({"a": 1})
        with pytest.raises(InputError, match="another process"):
            score(data, base, out=out, quiet=True)
    assert read_lines(out) == [{"a": 1}]
    out.unlink()

    def broken(*args):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(judge_module, "token_values", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        score(data, base, out=out, quiet=True)
    assert sorted(p.name for p in tmp_path.iterdir() if "s.jsonl" in p.name) == []


# ---- the command


@pytest.fixture
def run(monkeypatch, tmp_path, capsys) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["score", *map(str, words)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_the_command(run, base, other, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(5))
    code, out, err = run(data, "--model", base, "--reference", other, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["measures"]["accuracy (log-ratio)"]["n"] == 5
    assert (found["out"], found["responses"], found["kind"]) == ("scores.jsonl", 10, "log-prob")
    assert len(read_lines(tmp_path / "scores.jsonl")) == 5
    assert "rows" not in found
    code, out, err = run(data, "--model", base)
    assert (code, out) == (2, "")
    assert "exists" in err
    code, out, _ = run(data, "--model", base, "--out", "again.jsonl", "--limit", "2")
    assert code == 0
    assert "mean log-prob" in out
    assert "again.jsonl" in out


def test_input_that_cannot_be_used(run, base, reward, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", some_pairs(2))
    plain_folder = tmp_path / "empty"
    plain_folder.mkdir()
    damaged, foreign = tmp_path / "damaged", tmp_path / "foreign"
    for folder, text in ((damaged, "{"), (foreign, "[1]")):
        (folder / "model").mkdir(parents=True)
        (folder / "run.json").write_text(text)
    cases = {
        "no such file": ((tmp_path / "no.jsonl", "--model", base), "no.jsonl"),
        "no such model": ((data, "--model", tmp_path / "no"), "/no"),
        "no model": ((data, "--model", plain_folder), "empty"),
        "a damaged run": ((data, "--model", damaged), "run.json"),
        "no run": ((data, "--model", foreign), "run.json"),
        "no model given": ((data,), "--model"),
        "beta alone": ((data, "--model", base, "--beta", "0.1"), "reference"),
        "a negative beta": ((data, "--model", base, "--reference", base, "--beta", "-1"), "beta"),
        "dtype": ((data, "--model", base, "--dtype", "int8"), "int8"),
        "base without adapter": ((data, "--model", base, "--reference", "base"), "adapter"),
        "reward as reference": ((data, "--model", base, "--reference", reward), "reward model"),
        "no adapter": ((data, "--model", base, "--adapter", plain_folder), "adapter"),
        "template": ((data, "--model", base, "--template", "odd"), "odd"),
    }
    for name, (words, says) in cases.items():
        code, out, err = run(*words)
        assert (code, out) == (2, ""), name
        assert says in "".join(err.split()).replace("rewardmodel", "reward model"), name
    assert sorted(p.name for p in tmp_path.iterdir() if "scores" in p.name) == []


def test_models_of_the_wrong_kind(run, base, tmp_path):
    import transformers as tf

    data = jsonl(tmp_path / "d.jsonl", some_pairs(2))
    t5 = tf.T5ForSequenceClassification(
        tf.T5Config(vocab_size=300, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, num_labels=1)
    )
    two = tf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    for name, model in {"t5": t5, "two": two}.items():
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / name)
        code, _, err = run(data, "--model", tmp_path / name)
        assert code == 2, name
        assert f"/{name}" in "".join(err.split())


def test_another_tokenizer_is_no_reference(base, tmp_path):
    from boresight.lab.tiny import make_model

    strange = make_model(["zebra quagga"] * 8, tmp_path / "m", vocab=270, hidden=32, layers=1, heads=2)
    with pytest.raises(InputError, match="tokenizer"):
        score(some_pairs(2), base, reference=strange, quiet=True)
