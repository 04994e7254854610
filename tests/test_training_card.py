from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from boresight.training.card import model_card
from boresight.training.recipe import Recipe


def facts(**recipe: Any) -> dict[str, Any]:
    words = {"method": "dpo", "model": "org/base-1b", "data": "/home/alice/prefs.jsonl", "out": "run", "beta": 0.05}
    read = Recipe.read(**(words | recipe))
    return {
        "state": "finished",
        "method": read.objective.id,
        "paper": read.objective.paper,
        "recipe": read.model_dump(),
        "settings": [{"name": s.name, "value": s.value, "source": s.source} for s in read.settings()],
        "reference": "0f1e2d",
        "data": {"fingerprint": "abc123", "source": "/home/alice/prefs.jsonl", "read": 3136, "skipped": 2, "partial": 0,
                 "problems": [{"found": "a private text"}] * 2},
        "rows": {"fingerprint": "def456", "made": 3100, "dropped": {"too-long": 36}},
        "metrics": {"eval_accuracy": 0.573, "eval_loss": float("nan"), "lr": 1.5e-7},
        "alarms": ["step 40: samples do not end."],
        "versions": {"torch": "2.13.0", "boresight": "0.1.0"},
        "seed": 7,
        "steps": 98,
    }  # fmt: skip


def front(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    head, body = card[4:].split("\n---\n", 1)
    assert not body.startswith("---")
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def code(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.S)[1]  # type: ignore[index]


def test_it_says_what_it_must() -> None:
    card = model_card(facts())
    for wanted in (
        "org/base-1b", "`dpo`", "Rafailov et al. 2023, eq. 7", "log sigmoid(beta * h)", "`abc123`", "`3136`",
        "`def456`",
        "`dropped.too-long` | `36`", "`beta` | `0.05` | given", "`0.573`", "`nan`", "held out", "`2.13.0`", "Seed: `7`",
        "Steps: `98`", "Not declared", "Nothing was tested for safety", "step 40: samples do not end.", "`0f1e2d`",
    ):  # fmt: skip
        assert wanted in card, wanted
    assert model_card(facts()) == card


def test_data_is_counted_without_its_own_text() -> None:
    card = model_card(facts())
    assert "| examples | `skipped` | `2` |" in card
    assert "partial" not in card
    assert "problems" not in card
    assert "private text" not in card


def test_every_setting_has_its_source() -> None:
    run = facts()
    card = model_card(run)
    for setting in run["settings"]:
        if setting["value"] is not None:
            assert re.search(rf"^\| `{setting['name']}` \| .+ \| .+ \|$", card, re.M), setting


@pytest.mark.parametrize(
    ("recipe", "library", "pipeline", "relation", "auto"),
    [
        ({}, "transformers", "text-generation", "finetune", "AutoModelForCausalLM"),
        ({"adapter": "lora"}, "peft", "text-generation", "adapter", "AutoPeftModelForCausalLM"),
        ({"method": "bt-reward", "beta": None}, "transformers", "text-classification", "finetune",
         "AutoModelForSequenceClassification"),
        ({"method": "bt-reward", "beta": None, "adapter": "lora"}, "peft", "text-classification", "adapter",
         "AutoPeftModelForSequenceClassification"),
    ],
)  # fmt: skip
def test_front_matter_and_loading_follow_what_was_trained(
    recipe: dict[str, Any], library: str, pipeline: str, relation: str, auto: str
) -> None:
    if "beta" in recipe:
        words = {k: v for k, v in recipe.items() if k != "beta"} | {"model": "org/base-1b", "data": "d", "out": "o"}
        read = Recipe.read(**words)
        run = facts() | {"method": "bt-reward", "recipe": read.model_dump()}
    else:
        run = facts(**recipe)
    card = model_card(run)
    head = front(card)
    assert head["library_name"] == library
    assert head["pipeline_tag"] == pipeline
    assert head["base_model"] == "org/base-1b"
    assert head["base_model_relation"] == relation
    assert head["license"] == "unknown"
    assert {"boresight", run["method"]} <= set(head["tags"])
    compile(code(card), "card", "exec")
    assert f"{auto}.from_pretrained(folder" in code(card)
    assert ("adapter_config.json" in card) == (library == "peft")


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_loading_code_loads_the_checkpoint(adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from tiny import tiny

    base, folder = tmp_path / "base", tmp_path / "checkpoint"
    model = tiny("llama")
    model.save_pretrained(base)
    if adapter == "lora":
        model = type(model).from_pretrained(base)
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.5)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    (folder / "README.md").write_text(model_card(facts(adapter=adapter)), encoding="utf-8")
    monkeypatch.chdir(folder)
    loaded: dict[str, Any] = {}
    exec(code((folder / "README.md").read_text(encoding="utf-8")), loaded)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(loaded["model"].eval()(ids).logits, model.eval()(ids).logits)
    assert loaded["tokenizer"]("a")["input_ids"] == [1]


def test_a_local_model_is_no_hub_name_and_its_path_stays_private(tmp_path: Path) -> None:
    local = tmp_path / "secret-place" / "my-model"
    card = model_card(facts(model=str(local)))
    assert "base_model" not in front(card)
    assert "my-model" in card
    for private in ("secret-place", str(tmp_path), "/home/alice", "alice"):
        assert private not in card, private
    assert "a private text" not in card


def test_a_folder_here_that_looks_like_a_hub_name_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert front(model_card(facts(model="runs/base", data="owner/prefs")))["base_model"] == "runs/base"
    assert front(model_card(facts(data="owner/prefs")))["datasets"] == ["owner/prefs"]
    (tmp_path / "runs" / "base").mkdir(parents=True)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "prefs").write_text("")
    head = front(model_card(facts(model="runs/base", data="owner/prefs")))
    assert "base_model" not in head
    assert "datasets" not in head


NASTY = "x\n---\nlicense: mit\n# H <script>alert(1)</script> | a `b` ``c`` [l](javascript:x) ![i](y) *e* _e_ ~~s~~ $m$"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append(tag)


def test_text_from_the_run_never_becomes_markup() -> None:
    """Rendered by a CommonMark parser with tables and raw HTML on: nothing but the card's own elements comes out."""
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py, which rich brings, renders the card")
    run = facts()
    clean = model_card(run)
    run |= {"method": "no-such-" + NASTY, "paper": NASTY, "alarms": [NASTY], "versions": {NASTY: NASTY}}
    run["recipe"] |= {"model": NASTY, "data": NASTY, "eval_data": NASTY}
    run["settings"] = [{"name": NASTY, "value": NASTY, "source": NASTY}]
    run["data"] = {NASTY: NASTY}
    run["metrics"] = {NASTY: 1.0}
    card = model_card(run)
    head = front(card)
    assert head["license"] == "unknown"
    assert set(head) == {"library_name", "license", "pipeline_tag", "tags"}

    def tags(text: str) -> set[str]:
        parser = Tags()
        renderer = markdown.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        parser.feed(renderer.render(text.split("\n---\n", 1)[1]))
        return set(parser.found)

    assert tags(card) <= tags(clean)
    body = card.split("\n---\n", 1)[1]
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert {line.count("|") - line.count("\\|") for line in rows} == {3, 4}  # two and three columns
    assert sum(line.startswith("#") for line in body.splitlines()) == sum(
        line.startswith("#") for line in clean.splitlines()
    )


def test_keys_are_taken_out() -> None:
    run = facts()
    run["recipe"]["hf_token"] = "plain-secret"
    run["settings"].append({"name": "note", "value": "hf_" + "a1" * 16, "source": "given"})
    card = model_card(run)
    assert "plain-secret" not in card
    assert "a1a1" not in card


def test_what_is_not_known_is_said() -> None:
    card = model_card({})
    assert card.count("Not recorded.") == 4
    assert "not recorded" in card
    assert front(card)["tags"] == ["boresight", "unknown method"]


def test_a_checkpoint_under_way_says_so() -> None:
    assert "under way" in model_card(facts() | {"state": "running"})
    assert "under way" not in model_card(facts())
