"""`boresight view`: the reports of a folder of runs in a browser, live while they train."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = "Example: [bold]boresight view runs --port 8000[/bold]"


def view(
    folder: Annotated[str, typer.Argument(help="A run, or a folder that holds runs.")] = ".",
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="For machines: the address as JSON on stdout.")] = False,
) -> None:
    """Serve the reports of a folder of runs to this machine alone, read anew while they train.

    Listens on 127.0.0.1 and nowhere else. Ctrl-C ends it.
    """
    from boresight.cli import output
    from boresight.report import view as serve

    def ready(url: str) -> None:
        if json:
            return output.emit_json({"url": url})
        output.say(url, "bold", fold=False)
        return output.say("for this machine only; Ctrl-C ends it", "dim", err=True)

    serve(folder, port=port, ready=ready)
