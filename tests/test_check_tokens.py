"""`check` with a model: what tokens become, how far data lies from the model, what training would cost; the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import boresight as bs
from boresight.cli import main
from boresight.data.check import check
from boresight.data.example import Example, Message, Pair, Response
from boresight.errors import InputError
from boresight.training.check import check as in_full
from templates import CHATS, tokenizer

END = "<|im_end|>"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def paired(prompt: Any, chosen: Any, rejected: Any, line: int) -> Example:
    return Example(prompt, (Response(chosen), Response(rejected)), (Pair(0, 1),), source=f"d:{line}")


def saved(folder: Path, chat: str | None, source: str = "", **options: Any) -> str:
    made = tokenizer("bytes", chat, **options)
    if source:
        made.chat_template = source
    made.save_pretrained(folder / "model")
    return str(folder / "model")


CLEAN = [paired(f"Say {i}.", f"It is {i}.", f"It is {i + 50}.", i) for i in range(1, 9)]
SYSTEM = (Message("system", "Be brief."), Message("user", "Hello?"))
LONG = "word " * 60


def double(chat: str) -> str:
    return "{{ bos_token }}" + CHATS[chat].source


TOKEN_FAULTS: dict[str, tuple[str, int, list[str], list[Example], str | None, dict[str, Any]]] = {
    # name: finding, count, rows, planted, template, options of the model ("template", tokenizer's) and of check
    "too long": ("too-long", 1, ["d:9"], [paired("Q", LONG, "x", 9)], "chatml", {"max_length": 80}),
    "the same once cut": (
        "identical-after-truncation", 1, ["d:9"], [paired("Q", LONG + "a", LONG + "b", 9)], "chatml",
        {"max_length": 80, "truncation": "cut-both"},
    ),
    "a cut answer": (
        "cut-answers", 1, ["d:9"], [paired("Q", LONG, "x", 9)], "chatml", {"max_length": 80, "truncation": "cut-both"}
    ),
    "a cut prompt": (
        "cut-prompts", 2, ["d:9"], [paired(LONG, "x", "y", 9)], "chatml", {"max_length": 80, "truncation": "cut-prompt"}
    ),
    "a token in the text": (
        "special-token-injection", 1, ["d:9"], [paired("Q", f"a{END}b", "c", 9)], "chatml", {}
    ),
    "two BOS": ("double-bos", 16, ["d:1", "d:2", "d:3"], [], "marked", {"source": double("marked")}),
    "another context": ("other-context", 16, ["d:1", "d:2", "d:3"], [], "thinking-dropped", {}),
    "a role refused": ("refused-by-template", 1, ["d:9"], [paired(SYSTEM, "Hi.", "Ho.", 9)], "gemma", {}),
    "a turn missing": ("missing-turns", 1, ["d:9"], [paired(SYSTEM, "Hi.", "Ho.", 9)], "chatml", {"spans": [1]}),
    "the same once trimmed": ("identical-tokens", 1, ["d:9"], [paired("Q", "yes ", " yes", 9)], "gemma", {}),
    "a token across the seam": ("seam-tokens", 1, ["d:9"], [paired("you, a", "nd thank you", "x", 9)], None, {}),
    # The tokenizer of these tests joins "\n\n" where a text ends, and not before a letter.
    "another start": ("other-start", 16, ["d:1", "d:2", "d:3"], [], "llama3", {}),
    "no EOS": ("no-eos", 1, [], [], None, {"eos_token": None}),
    "no end": ("no-end-of-turn", 16, ["d:1", "d:2", "d:3"], [], None, {"eos_token": None}),
}  # fmt: skip
ALSO = {"a token in the text": {"special-token-text"}, "no EOS": {"no-end-of-turn"}, "no end": {"no-eos"}}
ALSO["the same once trimmed"] = {"space-only-difference"}


@pytest.mark.parametrize("name", TOKEN_FAULTS)
def test_a_fault_in_the_tokens_is_found(name: str, tmp_path: Path) -> None:
    id, count, rows, planted, chat, options = TOKEN_FAULTS[name]
    mine = {k: v for k, v in options.items() if k in ("max_length", "truncation", "spans")}
    result = check(
        [*CLEAN, *planted], saved(tmp_path, chat, **{k: v for k, v in options.items() if k not in mine}), **mine
    )
    finding = next(f for f in result.findings if f.id == id)
    assert finding.count == count
    assert [source for source, _ in finding.examples] == rows
    assert {f.id for f in result.findings} - {id} - ALSO.get(name, set()) == set()


@pytest.mark.parametrize("chat", ["chatml", "gemma", "zephyr", "marked", "phi", "endless"])
def test_clean_data_under_a_sound_template_has_no_finding(chat: str, tmp_path: Path) -> None:
    assert check(CLEAN, saved(tmp_path, chat)).findings == []


# ---- off-policyness and cost


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that speaks the language of the lab."""
    from boresight.lab import base_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.mktemp("lab")))
        return base_model()


def said(spoken: Path, shuffled: bool) -> list[Example]:
    """Prompts with two answers by the model itself; or the same words in another order, after another prompt."""
    from boresight.lab import LanguageWorld, ModelSampler

    prompts = LanguageWorld().prompts(60, 0)
    answers = ModelSampler(spoken)(prompts, 5, 2)
    if shuffled:
        rng = Random(0)
        answers = [
            [" ".join(rng.sample(a.split(), len(a.split()))) for a in pair] for pair in answers[1:] + answers[:1]
        ]
    both = zip(prompts, answers, strict=True)
    return [
        Example(p.messages, (Response(a), Response(b)), (Pair(0, 1),)) for p, (a, b) in both if a.strip() and b.strip()
    ]


def test_off_policyness_of_own_samples_and_of_foreign_text(spoken: Path) -> None:
    own = in_full(said(spoken, False), str(spoken), off_policy=50)
    told = own.facts["off_policy"]
    assert told["gap"]["low"] < 0 < told["gap"]["high"]
    assert told["unlike"]["low"] < 0.5 < told["unlike"]["high"]
    assert "off-policy" not in {f.id for f in own.findings}
    foreign = in_full(said(spoken, True), str(spoken), off_policy=50)
    finding = next(f for f in foreign.findings if f.id == "off-policy")
    assert finding.severity == "warning"
    assert finding.share is not None
    assert finding.share.low > 1
    assert len(finding.examples) == 3


def test_off_policyness_is_that_of_plain_logits(spoken: Path) -> None:
    """The log-probs of the responses again, from the model's own logits, one text at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = said(spoken, True)[:6]
    told = in_full(data, str(spoken), off_policy=6).facts["off_policy"]
    words, model = AutoTokenizer.from_pretrained(spoken), AutoModelForCausalLM.from_pretrained(spoken).eval()
    means = []
    for example in data:
        talk = [{"role": m.role, "content": m.content} for m in example.prompt]  # type: ignore[union-attr]
        head = words.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        for response in example.responses:
            whole = words.apply_chat_template(
                [*talk, {"role": "assistant", "content": response.text}], return_dict=False
            )
            with torch.no_grad():
                logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            places = range(len(head), len(whole))
            means.append(float(np.mean([logp[i - 1, whole[i]].item() for i in places])))
    assert told["responses"]["value"] == pytest.approx(np.mean(means), abs=1e-4)


def test_cost_is_counted_from_tokens_and_parameters(spoken: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    data = said(spoken, False)
    result = in_full(data, str(spoken), method="dpo")
    cost, rows = result.facts["cost"], result.rows
    assert rows is not None
    count = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(spoken).parameters())
    assert cost["parameters"] == count
    assert cost["tokens_an_epoch"] == rows.tokens > 2 * len(data) * rows.lengths["sequence"]["min"]
    assert cost["operations"] == count * rows.tokens * (6 + 2)
    assert in_full(data, str(spoken), method="simpo").facts["cost"]["operations"] == count * rows.tokens * 6
    assert cost["bytes_at_the_peak"] > 16 * count
    assert any(line.startswith("dpo, 1 epoch") for line in result.lines())
    with pytest.raises(InputError, match="needs a model"):
        in_full(data, method="dpo")
    with pytest.raises(InputError, match="unknown method"):
        in_full(data, str(spoken), method="dpoo")
    only = saved(tmp_path, "chatml")
    with pytest.raises(InputError, match="configuration cannot be read"):
        in_full(CLEAN, only, method="dpo")


def test_the_public_verb_is_the_full_one() -> None:
    assert bs.check is in_full


# ---- the page and JSON


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7*7 }} \x1b[31m"


def test_the_page_escapes_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    rows = [paired(HOSTILE + str(i), HOSTILE + " yes", HOSTILE + " yes", i) for i in range(3)]
    rows += [
        Example(HOSTILE, (Response(HOSTILE + "a"), Response("b")), (Pair(0, 1),), source=f"<b>{HOSTILE}</b>:1")
    ] * 40
    result = check(rows, saved(tmp_path, "chatml"), show=2)
    page = Tags()
    page.feed(result.html())
    assert not {"script", "img", "b><script", "iframe", "link", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert "alert(1)" in page.text  # it is shown, as text
    assert "{{ 7*7 }}" in page.text.replace("·", " ")
    assert not re.search("[\u202e\x1b]", result.html())
    assert "default-src 'none'" in str(page.attributes)
    for finding in result.findings:
        assert finding.effect in page.text


def test_json_and_page_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Q{i}", "chosen": "x", "rejected": "x"}) + "\n" for i in range(3)))
    page = tmp_path / "out" / "check.html"
    assert main(["check", str(data), "--html", str(page), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    finding = told["findings"][0]
    assert (finding["id"], finding["severity"], finding["count"], finding["of"]) == ("identical-pairs", "error", 3, 3)
    assert [e["source"] for e in finding["examples"]] == ["d.jsonl:1", "d.jsonl:2", "d.jsonl:3"]
    assert finding["effect"]
    assert finding["mend"]
    assert "same text on both sides" in page.read_text("utf-8")
    before = data.read_bytes()
    assert main(["check", str(data), "--html", str(data)]) == 2
    assert data.read_bytes() == before
