"""How entries of the catalogue look on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from boresight.catalogue.verdicts import WORST_FIRST
from boresight.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from boresight.catalogue import Entry


WIDE = 120
"""Columns from which a table of entries leaves its titles room."""


def many(words: str, entries: list[Entry], found: int) -> None:
    """A table of entries, `found` of which there were, and how to go on."""
    if not entries:
        output.say(f"Nothing is known of {words!r}." if words else "There is no such entry.")
        return output.say("boresight methods lists every entry; fewer or other words may find one.", "dim")
    if output.console().width >= WIDE:
        rows = [(e.id, e.title, e.family, e.state, e.verdict) for e in entries]
        output.table("", ("id", "title", "family", "state", "claim"), rows, keep=("id", "family", "state", "claim"))
    else:
        for e in entries:
            output.show(_two_lines(e))
        output.say("")
    counts = Counter(e.state for e in entries)
    told = ", ".join(f"{n} {state}" for state, n in counts.items())
    more = f" of {found}" if found > len(entries) else ""
    output.say(f"{len(entries)}{more}: {told}. boresight methods show {entries[0].id} tells more.", "dim")
    return None


def _two_lines(entry: Entry) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rest = f" · {entry.family} · {entry.verdict}"
    head = Text.assemble(output.plain(entry.id, "bold"), "  ", output.plain(entry.state), (rest, "dim"))
    return Group(head, Padding(output.plain(entry.title), (0, 0, 0, 2)))


def one(entry: Entry) -> None:
    """Everything about one entry."""
    facts = entry.to_dict()
    date = f" ({facts['date']})" if facts["date"] else ""
    output.say(f"{entry.id}: {entry.title}{date}", "bold")
    if facts.get("authors"):
        output.say(facts["authors"], "dim")
    output.say(f"\n{facts['what']}\n")
    output.key_values(
        "",
        [
            ("state", entry.state),
            ("claim", facts["claim"] or "none that can be tested here"),
            ("verdict", entry.verdict),
            *([("test it", f"boresight claims {entry.id}")] if entry.verdict in WORST_FIRST else []),
            ("family", f"{entry.family}; {facts['kind']}; aligns to {facts['target']}; {facts['modality']}"),
            *((name, facts[name]) for name in ("aka", "headline") if facts.get(name)),
            *([("elsewhere", facts["peer"])] if facts["peer"] else []),
            *([("paper", f"https://arxiv.org/abs/{facts['arxiv']}")] if facts.get("arxiv") else []),
        ],
    )
    if facts["algorithm"]:
        memory = ", from memory: check it against the paper" if facts["from_memory"] else ""
        output.say(f"\nAlgorithm{memory}", "bold")
        output.say(facts["algorithm"])
    for c in facts.get("corrections", ()):
        output.say(f"Corrected: {c['field']}, which was {c['was']!r} ({c['source']})", "dim")
    if facts["method"] is not None:
        _method(facts["method"])
    if facts["recipe"] is not None:
        _recipe(facts["recipe"])
    for function in facts["functions"]:
        _function(function)


def _method(method: dict[str, Any]) -> None:
    output.say("\nAs it is implemented", "bold")
    output.say(_reflowed(method["doc"]) + "\n")
    output.key_values(
        "",
        [
            ("call", method["signature"]),
            ("file", method["file"]),
            ("equation", method["paper"] or "not given"),
            ("takes", method["takes"]),
            *(("needs", f"{name}: {meaning}") for name, meaning in method["needs"].items()),
            ("loss", f"normalised by the number of {method['per']}s in the whole batch"),
        ],
    )
    output.key_values(
        "\nDefaults, and where they come from",
        [
            *((name, h["default"], h["source"] or "no source given") for name, h in method["hyperparameters"].items()),
            ("lr", method["lr"], method["lr_source"]),
        ],
    )
    output.say("\nExample", "bold")
    output.say(method["example"], fold=False)


def _recipe(recipe: dict[str, Any]) -> None:
    output.say(f"\nAs it is implemented: a recipe that trains by {recipe['method']}", "bold")
    output.key_values("", [("file", recipe["file"])])
    output.say("")
    for line in recipe["text"].splitlines():
        output.say(line, "dim" if line.startswith("#") else "", fold=False)
    output.say("\nExample", "bold")
    output.say(recipe["example"], fold=False)


def _function(function: dict[str, Any]) -> None:
    output.say("\nAs it is implemented", "bold")
    output.say(_reflowed(function["doc"]) + "\n")
    rows = [("import", function["import"]), ("call", function["signature"]), ("file", function["file"])]
    output.key_values("", rows)


def _reflowed(doc: str) -> str:
    """A docstring with its paragraphs each on one line, to be folded anew; indented blocks stay as they are."""
    blocks = doc.split("\n\n")
    return "\n\n".join(b if "\n " in b or b.startswith(" ") else " ".join(b.split()) for b in blocks)
