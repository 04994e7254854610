"""Run folders for the tests of reports, written as training writes them, and what a page may consist of."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from boresight.data.rowreport import RowsReport
from boresight.data.table import ReadReport
from boresight.training.trackers import FileTracker


def facts(**more: Any) -> dict[str, Any]:
    """What run.json holds of a finished run of three looks."""
    recipe = {"method": "dpo", "model": "/home/someone/base", "data": "/home/someone/prefs.jsonl", "seed": 0}
    rows = RowsReport(examples=40, made=38, dropped={"identical": 2}, first={"identical": ["prefs.jsonl:7"]})
    return {
        "state": "finished",
        "method": "dpo",
        "paper": "Rafailov et al. 2023, eq. 7",
        "recipe": recipe | {"out": "run", "beta": 0.1, "label_smoothing": 0.0, "lr": 1e-3},
        "settings": [
            {"name": "beta", "value": 0.1, "source": "Rafailov et al. 2023, app. B"},
            {"name": "lr", "value": 1e-3, "source": "given"},
        ],
        "reference": "4ca93bb3",
        "data": {"fingerprint": "ffa0993e", **ReadReport("/home/someone/prefs.jsonl", "paired", 40).to_dict()},
        "rows": {"fingerprint": "1e03f2d7", **rows.to_dict()},
        "template": {"template": "chat", "identity": "e0862925", "end_of_turn": {"token": "<|end|>", "id": 3}},
        "versions": {"boresight": "0.1.0", "torch": "2.13.0"},
        "seed": 0,
        "steps": 30,
        "metrics": {"loss": 0.5},
        "alarms": [],
        "seconds": 14.04,
        **more,
    }


LOOKS = [
    {"step": 10, "loss": 0.69, "chosen_gain": 0.1, "rejected_gain": -0.1, "margin": 0.2, "lr": 1e-3, "grad_norm": 1.0},
    {"step": 20, "loss": 0.60, "chosen_gain": -0.2, "rejected_gain": -0.6, "margin": 0.4, "lr": 5e-4, "grad_norm": 0.9},
    {"step": 30, "loss": 0.50, "chosen_gain": -0.5, "rejected_gain": -1.5, "margin": 1.0, "lr": 1e-4, "grad_norm": 0.8},
]
TEXTS = [(0, "Name a bird.\n\n---\n\nA small grey cat."), (30, "Name a bird.\n\n---\n\nA small grey owl.")]


def make_run(
    folder: Path,
    about: Mapping[str, Any] | None = None,
    looks: Sequence[Mapping[str, float]] = LOOKS,
    texts: Mapping[str, Sequence[tuple[int, str]]] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Path:
    """A run folder. texts: tag to (step, text)."""
    tracker = FileTracker(folder)
    for look in looks:
        tracker.log(int(look["step"]), {k: v for k, v in look.items() if k != "step"})
    for tag, said in ({"sample/0": TEXTS} if texts is None else texts).items():
        for step, text in said:
            tracker.text(step, tag, text)
    tracker.close()
    (folder / "run.json").write_text(json.dumps(facts() if about is None else about), encoding="utf-8")
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    return folder


ELEMENTS = """
html head meta title style body header footer nav main section article figure figcaption h1 h2 h3 p a b i ul li dl dt dd
div span table thead tbody tr th td details summary pre del ins progress form input button svg path text circle
"""
ATTRIBUTES = """
lang charset http-equiv content name class href id viewbox width height aria-hidden d role aria-label x y cx cy r scope
colspan dir open action method type value disabled max
"""


class Page(HTMLParser):
    """A page as a browser would read it: its elements, its text, and everything in it that our templates never say."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.odd: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.marked: dict[str, list[str]] = {"del": [], "ins": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    @property
    def text(self) -> str:
        return "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        given = dict(attrs)
        if tag not in ELEMENTS.split():
            self.odd.append(f"<{tag}>")
        self.odd += [f"{tag} {name}={value}" for name, value in attrs if name not in ATTRIBUTES.split()]
        for name in ("href", "action"):
            if name in given:
                self.links.append(str(given[name]))
                if not str(given[name]).startswith(("#", "/")) or str(given[name]).startswith("//"):
                    self.odd.append(f"{tag} {name}={given[name]}")
        if tag == "meta":
            self.metas.append(given)
            self._open.pop()
        if tag == "input":
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.odd.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            self.styles.append(data)
            return
        self.words.append(data)
        if inside in self.marked:
            self.marked[inside].append(data)

    def handle_comment(self, data: str) -> None:
        self.odd.append(f"comment {data!r}")


def check_page(text: str) -> Page:
    """The page, after it was held against all that none of our pages may have."""
    page = Page(text)
    assert page.odd == []
    assert len(page.styles) == 1
    assert "url(" not in page.styles[0]
    assert "@import" not in page.styles[0]
    policies = [str(m["content"]) for m in page.metas if m.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "style-src", "base-uri", "form-action"}
    assert "unsafe" not in policies[0]
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    assert hidden == set()
    return page
