"""`boresight version`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = "Example\n[bold]boresight version --json[/bold]"


def version(json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False) -> None:
    """The versions of Boresight and of what it stands on, for a bug report."""
    from boresight.cli import output
    from boresight.versions import versions

    found = versions()
    if json:
        output.emit_json(found)
    else:
        output.key_values("", found.items())
