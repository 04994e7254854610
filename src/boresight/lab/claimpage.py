"""The page of claims in Markdown, made of their records and nothing else, so that it can be made again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from boresight.catalogue import rows
from boresight.catalogue.verdicts import WORST_FIRST
from boresight.lab.claims import HOW, overall

Record = Mapping[str, Any]

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_CODE = re.compile(r"(`[^`\n]+`)")
_LIST = re.compile(r"^(\s*)([-+#>=]|\d+[.)])")


def page(records: Sequence[Record], images: str) -> str:
    """The page about all records. images: where the pictures are, from the page, such as `images/claims`."""
    ordered = sorted(records, key=lambda r: (r["id"], r["part"]))
    papers = [(id, list(group)) for id, group in groupby(ordered, key=lambda r: str(r["id"]))]
    verdicts = [overall([r["verdict"] for r in group]) for _, group in papers]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in reversed(WORST_FIRST) if v in verdicts)
    lines = [
        "# Claims, tested again",
        "",
        "What papers say of their methods, as experiments in worlds where the truth is known. This page is made by",
        "`boresight claims --write`; `boresight claims ID` runs one again.",
        "",
        f"{len(papers)} papers, {len(ordered)} claims. By paper, where the worst of its claims counts: {counts}.",
        "",
        "## How a verdict is made",
        "",
        HOW.strip(),
        "",
        "## All claims",
        "",
        "| paper | claim | verdict | control | seeds |",
        "| --- | --- | --- | --- | ---: |",
        *(_summary(r) for r in ordered),
        "",
    ]
    for id, group in papers:
        lines += _paper(id, group, images)
    return "\n".join(lines).rstrip() + "\n"


def picture(record: Record) -> str:
    """The name of a claim's picture."""
    return f"{record['id']}.{record['part']}.svg" if record["part"] else f"{record['id']}.svg"


def _summary(r: Record) -> str:
    key = f"{r['id']}/{r['part']}" if r["part"] else r["id"]
    return f"| [{key}](#{r['id']}) | {_cell(r['says'])} | **{r['verdict']}** | {_control(r)} | {r['seeds']} |"


def _control(r: Record) -> str:
    return str(r["control"].get("verdict", "-"))


def _paper(id: str, group: Sequence[Record], images: str) -> list[str]:
    lines = [f"## {id}", ""]
    row = rows().get(id)
    if row is not None:
        title = _escaped(str(row["title"]))
        lines += [f"[{title}](https://arxiv.org/abs/{row['arxiv']})" if row.get("arxiv") else f"*{title}*", ""]
    for r in group:
        lines += [f"### {r['part']}", ""] if r["part"] else []
        lines += _claim(r, images)
    return lines


def _claim(r: Record, images: str) -> list[str]:
    lines = [f"**{r['verdict'].capitalize()}:** {_escaped(r['says'])}", "", _prose(r["doc"]), ""]
    if r["error"]:
        return [*lines, f"It raised {_escaped(r['error'])}", ""]
    lines += [f"![{_escaped(r['says'])}]({images}/{picture(r)})", ""]
    exact = r["control"]["tries"][0]["offset"] == 0
    if exact:
        lines += ["| expected | largest residual | verdict |", "| --- | ---: | --- |"]
        lines += [f"| {_cell(j['expects'])} | {_number(j['effect'])} | {j['verdict']} |" for j in r["judged"]]
        altered = r["control"]["tries"][0]["judged"][0]
        said = f"Control, {_escaped(r['baseline'])}: the largest residual is {_number(altered['effect'])}"
        lines += ["", f"{said}, which {altered['verdict']}. {r['seeds']} seeds.", ""]
        return lines
    lines += [
        f"Treatment: {_escaped(r['treatment'])}. Baseline: {_escaped(r['baseline'])}. {r['seeds']} seeds.",
        "",
        "| outcome | expected | treatment - baseline, 95% interval | verdict | control |",
        "| --- | --- | --- | --- | --- |",
    ]
    for j, c in zip(r["judged"], r["control"]["tries"][0]["judged"], strict=True):
        cells = (_cell(j["outcome"]), j["expects"], _effect(j), j["verdict"], _effect(c))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _of_control(r["control"]), ""]
    for knob, swept in r["sweep"].items():
        lines += _sweep(knob, swept)
    return lines


def _of_control(control: Mapping[str, Any]) -> str:
    tries = ", ".join(f"{t['verdict']} at seed + {t['offset']}" for t in control["tries"])
    return f"Control as a whole: {control['verdict']}" + (f" ({tries})." if len(control["tries"]) > 1 else ".")


def _sweep(knob: str, swept: Mapping[str, Any]) -> list[str]:
    names = [f"{_cell(j['outcome'])}: {j['expects']}" for j in swept["points"][0]["judged"]]
    lines = [f"| {_cell(knob)} | {' | '.join(names)} |", f"| ---: |{' --- |' * len(names)}"]
    for point in swept["points"]:
        value = _cell(_number(point["value"]) if isinstance(point["value"], float) else str(point["value"]))
        shown = f"**{value}**" if point["value"] == swept["default"] else value
        cells = [f"{_effect(j)} {j['verdict']}" for j in point["judged"]]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return [*lines, ""]


def _effect(j: Mapping[str, Any]) -> str:
    return f"{_signed(j['effect'])} [{_signed(j['low'])}, {_signed(j['high'])}]"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _prose(doc: str) -> str:
    """A docstring, each paragraph escaped; indented blocks are shown as they stand."""
    blocks = [b for b in doc.split("\n\n") if b.strip()]
    return "\n\n".join(_fenced(b) if all(x.startswith("    ") for x in b.split("\n")) else _lines(b) for b in blocks)


def _fenced(block: str) -> str:
    # Four blanks make a block of code in Markdown as they do here; nothing in it can end it.
    return block


def _lines(block: str) -> str:
    return "\n".join(_escaped(line) for line in block.split("\n"))


def _escaped(text: str) -> str:
    """Text as it is to be read: no markup, no HTML; what stands between backticks on one line stays code."""
    pieces = _CODE.split(" ".join(text.split("\n")))
    return "".join(p if k % 2 else _plain(p, first=not k) for k, p in enumerate(pieces))


def _plain(text: str, *, first: bool) -> str:
    text = _SPECIAL.sub(r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LIST.sub(lambda m: f"{m[1]}{m[2][:-1]}\\{m[2][-1]}", text) if first else text


def _cell(text: str) -> str:
    """Text in a cell of a table, where a bar ends the cell even within code."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(p.replace("|", "\\|") if k % 2 else _plain(p, first=False) for k, p in enumerate(pieces))
