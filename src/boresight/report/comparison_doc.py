"""A comparison as Markdown, for a page of documentation that says in words what was done and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boresight.errors import InputError
from boresight.report.comparison import STATED, facts, figure, pictures, present, shown, svg
from boresight.report.words import duration
from boresight.training.folder import write_whole

BEGIN, END = "<!-- boresight compare: begin -->", "<!-- boresight compare: end -->"
"""What stands between these lines is made anew each time. In a page on several comparisons each has its own, with the
name of its folder: `<!-- boresight compare NAME: begin -->`."""


def write_doc(told: Mapping[str, Any], path: str | Path, name: str = "") -> Path:
    """Put tables and pictures into a Markdown file, between its marks; the pictures go to `images` beside it.

    name: of the comparison, for its marks and pictures. Raises InputError if it cannot be written, or a mark is
    missing.
    """
    target = Path(path)
    images = {f"compare-{name or 'all'}-{kind}.svg": p for kind, p in pictures(told).items()}
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        text = fill(before, told, name, {f"images/{file}": p.title for file, p in images.items()})
        for file, picture in images.items():
            (target.parent / "images").mkdir(parents=True, exist_ok=True)
            write_whole(target.parent / "images" / file, svg(picture))
        write_whole(target, text)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}", mend="give another file") from None
    return target


def fill(text: str, told: Mapping[str, Any], name: str = "", images: Mapping[str, str] | None = None) -> str:
    """The text with the tables between its marks; at its end, with marks, where it has none.

    name: of the comparison; its own marks are filled where the text has them. images: titles of pictures by their
    place. Raises InputError if there is a beginning without an end, or the other way round.
    """
    begin, end = (mark.replace("compare:", f"compare {name}:") for mark in (BEGIN, END))
    if not name or (begin not in text and end not in text):
        begin, end = BEGIN, END
    if (begin in text) != (end in text):
        raise InputError("one of the two marks for the tables is missing", mend=f"put {begin} and {end} on lines")
    body = f"{begin}\n\n{markdown(told, images)}\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{body}\n".lstrip()
    head, rest = text.split(begin, 1)
    return head + body + rest.split(end, 1)[1]


def markdown(told: Mapping[str, Any], images: Mapping[str, str] | None = None) -> str:
    """Facts, statements, the table of arms, pictures, differences and cost."""
    keys = present(told)
    kinds = told["kinds"]
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts(told) if name != "versions"]
    lines += ["", "**What can be said** (after Holm's correction for all of it together):", ""]
    lines += [f"- {_cell(s['words'])}" for s in told["statements"]] or ["- nothing: there is one method only."]
    lines += [
        "",
        "**Figures**, mean over seeds [95% interval over seeds and prompts] standard deviation over seeds:",
        "",
    ]
    lines += [f"| method | {' | '.join(kinds[k]['title'] for k in keys)} |", f"| --- |{' ---: |' * len(keys)}"]
    start = [figure(told["start"][k]["value"], k) if told["start"].get(k) else "-" for k in keys]
    lines.append(f"| *before training* | {' | '.join(start)} |")
    for a in told["arms"]:
        cells = [shown(told, a, k) for k in keys]
        words = [
            " ".join(w for w in (_strong(c.value, c.best), c.interval, c.seeds.removeprefix("sd ")) if w) for c in cells
        ]
        name = f"{_cell(a['label'])}{' †' if a['label'] in told['frontier'] else ''}"
        lines.append(f"| {name} | {' | '.join(words)} |")
    lines += ["", f"† no other has both less KL and more {kinds[told['worth']]['title']}. Bold: the highest.", ""]
    lines += [line for place, title in (images or {}).items() for line in (f"![{_cell(title)}]({place})", "")]
    lines += _differences(told)
    lines += [
        "**Cost**, median over runs:",
        "",
        "| method | training | peak memory above the start |",
        "| --- | ---: | ---: |",
    ]
    for a in told["arms"]:
        seconds = duration(a["seconds"]["median"]) if a["seconds"] else "-"
        peak = f"{a['peak_bytes']['median'] / 1e6:,.0f} MB" if a["peak_bytes"] else "-"
        lines.append(f"| {_cell(a['label'])} | {seconds} | {peak} |")
    return "\n".join(lines) + "\n"


def _differences(told: Mapping[str, Any]) -> list[str]:
    found = told["differences"]
    if not found:
        return []
    keys = [k for k in STATED if any(d["figure"] == k for d in found)]
    titles = [told["kinds"][k]["title"] + (", %" if k == "length" else "") for k in keys]
    lines = [
        f"**Differences from {_cell(found[0]['baseline'])}** [95% interval]; bold where Holm's p is at most .05:",
        "",
    ]
    if told["picked"]:
        lines += [
            "Each method at the setting picked on one half of the held-out prompts, compared on the other half.",
            "",
        ]
    lines += [f"| method | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(keys)}"]
    for arm in dict.fromkeys(d["arm"] for d in found):
        mine = {d["figure"]: d for d in found if d["arm"] == arm}
        lines.append(f"| {_cell(arm)} | {' | '.join(_difference(mine.get(k)) for k in keys)} |")
    return [*lines, ""]


def _difference(d: Mapping[str, Any] | None) -> str:
    if d is None:
        return "-"
    times, form = (100, "{:+.0f}") if d["figure"] == "length" else (1, "{:+.3f}")
    interval = "" if d["low"] is None else f" [{form.format(d['low'] * times)}, {form.format(d['high'] * times)}]"
    return _strong(form.format(d["value"] * times), d["different"]) + interval


def _strong(text: str, strong: bool) -> str:
    return f"**{text}**" if strong else text


def _cell(text: str) -> str:
    """Text in a cell or a line of a list: no markup, no HTML, on one line."""
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(str(text).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
