"""`boresight check`: look at data before training on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

EXAMPLES = (
    "Examples\n[bold]boresight check prefs.jsonl[/bold]\n"
    "[bold]boresight check prefs.jsonl --model my-model --show 3[/bold]\n"
    "[bold]boresight check prefs.jsonl --model my-model --max-length 1024 --truncation cut-prompt[/bold]"
)


def check(
    data: Annotated[str, typer.Argument(help="A file, a saved datasets folder, or a hub name.")],
    model: Annotated[str | None, typer.Option(help="Model whose tokenizer and template are used.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Rows to show, what is trained on in colour.")] = 0,
    template: Annotated[str, typer.Option(help="auto, chat or plain.")] = "auto",
    spans: Annotated[str, typer.Option(help="Assistant turns that are trained on: last or all.")] = "last",
    max_length: Annotated[int | None, typer.Option(min=2, help="Most tokens of prompt and response.")] = None,
    truncation: Annotated[str, typer.Option(help="Rows that are longer: drop, cut-prompt or cut-both.")] = "drop",
    format: Annotated[str | None, typer.Option(help="Form of the data, if it is not to be told from its rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the data.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Find what will go wrong with data, row by row, before anything is trained on it.

    Rows that cannot be read, pairs that say nothing or contradict each other, empty answers; and with --model what the
    template, the masks and truncation make of them. Leaves with 1 if there are findings, 0 if there are none.
    """
    from boresight.cli import output
    from boresight.data.check import check as look

    choices: dict[str, Any] = {"template": template, "spans": spans, "truncation": truncation}
    found = look(
        data,
        model=model,
        show=show,
        max_length=max_length,
        format=format,
        strict=strict,
        limit=limit,
        **choices,
    )
    output.emit_json(found) if json else output.show(found.painted())
    raise typer.Exit(1 if found.findings else 0)
