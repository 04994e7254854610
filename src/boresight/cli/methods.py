"""`boresight methods`: which methods there are, and what is known of each."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = (
    "Examples\n[bold]boresight methods noisy labels[/bold]\n[bold]boresight methods --state implemented[/bold]\n"
    "[bold]boresight methods show dpo[/bold]"
)


def methods(
    words: Annotated[
        list[str] | None, typer.Argument(help="What to search for; or show and an id.", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state: implemented, planned, 'reference only'.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only this family, such as offline-pref or merging.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; 20 for a search.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout, without a limit.")] = False,
) -> None:
    """Search the methods and papers, or show one of them.

    With WORDS, the best matches first; without, every entry, what is implemented first. With show and an id, all there
    is to know of that one: what it does, its equation, its options with defaults and their sources, an example.
    """
    from boresight.catalogue import methods as find
    from boresight.catalogue import show
    from boresight.cli import _entries, output
    from boresight.errors import InputError

    words = words or []
    if words[:1] == ["show"] and len(words) <= 2:
        if len(words) == 1:
            raise InputError("show needs the id of a method or paper", mend="for example: boresight methods show dpo")
        entry = show(words[1])
        output.emit_json(entry) if json else _entries.one(entry)
        return
    found = find(" ".join(words), state=state, family=family)
    shown = found[: limit if limit is not None or json or not words else 20]
    output.emit_json(shown) if json else _entries.many(" ".join(words), shown, len(found))
