"""`boresight methods`: which methods there are, what is known of each, and which suit a data set."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = (
    "Examples\n[bold]boresight methods noisy labels[/bold]\n[bold]boresight methods --state implemented[/bold]\n"
    "[bold]boresight methods show dpo[/bold]\n[bold]boresight methods --for prefs.jsonl --model my-model[/bold]"
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
    data: Annotated[
        str | None, typer.Option("--for", help="Data to choose for: which methods suit it, and why.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --for: also how far the data is from what this model writes.")
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="The rules by which --for chooses, with their sources.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout, without a limit.")] = False,
) -> None:
    """Search the methods and papers, show one of them, or choose for your data.

    With WORDS, the best matches first; without, every entry, what is implemented first. With show and an id, all there
    is to know of that one: what it does, its equation, its options with defaults and their sources, an example. With
    --for, methods that suit the data, each with the rule that speaks for it, and those that cannot run on it.
    """
    from boresight.catalogue import methods as find
    from boresight.catalogue import show
    from boresight.cli import _choice, _entries, output
    from boresight.errors import InputError

    words = words or []
    if rules:
        output.emit_json(_choice.table()) if json else _choice.rules()
        return
    if data is not None:
        if words or state or family:
            raise InputError("--for goes with no words, state or family", mend="boresight methods --for DATA")
        from boresight.training.choose import choose

        with output.progress("looking at the data", None, quiet=json) as advance:
            found_for = choose(data, model, progress=lambda now, of: advance(0, f"{now} of {of}"))
        output.emit_json(found_for) if json else _choice.show(data, found_for, limit)
        return
    if model is not None:
        raise InputError("--model goes with --for DATA", mend="boresight methods --for DATA --model MODEL")
    if words[:1] == ["show"] and len(words) <= 2:
        if len(words) == 1:
            raise InputError("show needs the id of a method or paper", mend="for example: boresight methods show dpo")
        entry = show(words[1])
        output.emit_json(entry) if json else _entries.one(entry)
        return
    found = find(" ".join(words), state=state, family=family)
    shown = found[: limit if limit is not None or json or not words else 20]
    output.emit_json(shown) if json else _entries.many(" ".join(words), shown, len(found))
