"""`boresight check`: look at data before training on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

EXAMPLES = (
    "Examples\n[bold]boresight check prefs.jsonl[/bold]\n"
    "[bold]boresight check prefs.jsonl --model my-model --show 3[/bold]\n"
    "[bold]boresight check train.jsonl --against test.jsonl --html check.html[/bold]\n"
    "[bold]boresight check prefs.jsonl --fix clean.jsonl[/bold]\n"
    "[bold]boresight check prefs.jsonl --model my-model --method dpo --off-policy 64[/bold]"
)


def check(
    data: Annotated[str, typer.Argument(help="A file, a saved datasets folder, or a hub name.")],
    model: Annotated[str | None, typer.Option(help="Model whose tokenizer and template are used.")] = None,
    against: Annotated[str | None, typer.Option(help="Another split: prompts that are in both are found.")] = None,
    method: Annotated[str | None, typer.Option(help="Method to estimate time and memory for (needs --model).")] = None,
    off_policy: Annotated[
        int, typer.Option(min=0, help="Examples to compare with the model's own samples (needs --model).")
    ] = 0,
    show: Annotated[int, typer.Option(min=0, help="Rows to show, what is trained on in colour.")] = 0,
    fix: Annotated[str | None, typer.Option(help="Write a cleaned copy here, and a record of each change.")] = None,
    html: Annotated[str | None, typer.Option(help="Write the result here too, as one page.")] = None,
    template: Annotated[str, typer.Option(help="auto, chat or plain.")] = "auto",
    spans: Annotated[str, typer.Option(help="Assistant turns that are trained on: last or all.")] = "last",
    max_length: Annotated[int | None, typer.Option(min=2, help="Most tokens of prompt and response.")] = None,
    truncation: Annotated[str, typer.Option(help="Rows that are longer: drop, cut-prompt or cut-both.")] = "drop",
    format: Annotated[str | None, typer.Option(help="Form of the data, if it is not to be told from its rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the data.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    fail_on: Annotated[str, typer.Option(help="Leave with 1 from: error, warning or note.")] = "warning",
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Find what will go wrong with data, row by row, before anything is trained on it.

    Each finding says how severe it is, how many rows it concerns and the first three of them, what it will do to
    training, and the mend; docs/check.md explains them all. With --model also what the template, the masks and
    truncation make of the data. Leaves with 0 if nothing was found, 1 if there are warnings or errors (see --fail-on),
    2 if the data or an option cannot be used.
    """
    from boresight.cli import output
    from boresight.data.checks import SEVERITIES
    from boresight.data.write import write_page
    from boresight.errors import InputError, nearest
    from boresight.training.check import check as look
    from boresight.training.reporter import Reached

    if fail_on not in SEVERITIES:
        raise InputError(f"fail-on {fail_on!r} is unknown", mend=nearest(fail_on, SEVERITIES))
    choices: dict[str, Any] = {"template": template, "spans": spans, "truncation": truncation, "format": format}
    choices |= {"against": against, "method": method, "off_policy": off_policy, "strict": strict, "limit": limit}
    with output.progress("examples looked at", None, quiet=json) as advance:
        progress = Reached(advance)
        found = look(data, model=model, show=show, max_length=max_length, progress=progress, **choices)
    written: list[str] = []
    if html:
        write_page(found.html(), html)
        written.append(f"{html}: this result as a page")
    fixed = found.fix(fix) if fix else None
    if json:
        output.emit_json(found.to_dict() | ({"fixed": fixed.to_dict()} if fixed else {}))
    else:
        output.show(found.painted())
        for line in [*written, *(fixed.lines() if fixed else [])]:
            output.say(line)
    raise typer.Exit(1 if found.failed(fail_on) else 0)
