"""`boresight report`: one page about any number of runs."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = (
    "Examples\n[bold]boresight report run[/bold]\n"
    "[bold]boresight report dpo-0 dpo-1 dpo-2 ipo-0 --out compare.html[/bold]"
)


def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, or folders that hold runs.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The file; an earlier report is replaced.")] = "report.html",
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Write one self-contained HTML page about runs: opens offline, runs no script, asks for nothing.

    What was run, data, proof, curves, samples before and after, alarms; of several runs also the methods side by side
    with intervals and cost. Runs that differ in their seed alone are taken together.
    """
    from boresight.cli import output
    from boresight.report import report as write

    done = write(runs, out)
    if json:
        output.emit_json(done)
        return
    many = f"{len(done.runs)} runs" if len(done.runs) > 1 else "1 run"
    output.say(f"{done.path}: {many}, {max(1, done.size // 1000):,} kB", "bold")
    if done.shortened:
        output.say("So many runs leave less room for each: fewer points, samples and alarms are shown.", "yellow")
