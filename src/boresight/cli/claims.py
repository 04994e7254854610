"""`boresight claims`: what papers say, tested again."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:
[bold]boresight claims rdpo-robust[/bold]
[bold]boresight claims noisy labels --seeds 16[/bold]
[bold]boresight claims --smoke --jobs 2[/bold]"""


def claims(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[ID or words...]", help="Which claims; all without.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each claim; its own number by default.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Claims at once; as many as processors by default.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Only those that take a few seconds.")] = False,
    sweep: Annotated[
        bool | None,
        typer.Option("--sweep/--no-sweep", help="Also over the knobs that decide; with --write unless said otherwise."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Record verdicts, sweeps, page and pictures.")] = False,
    source: Annotated[str | None, typer.Option("--from", help="A folder of claims of your own.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Test again what papers claim, in worlds where the truth is known, and say whether it holds.

    Each claim is run over seeds as treatment and as baseline; the difference comes with its 95% interval and makes the
    verdict: holds, does not hold, or undecided. Its control puts the baseline in the treatment's place and must not
    hold, or the claim is broken, and the exit code is 1. docs/claims.md shows the recorded verdicts.
    """
    from pathlib import Path

    from boresight.catalogue.verdicts import claims_folder
    from boresight.cli import _claims, output
    from boresight.errors import InputError
    from boresight.lab.claimfiles import load_claims, select
    from boresight.lab.claimpool import run_claims
    from boresight.lab.claimwrite import places
    from boresight.lab.claimwrite import write as record

    folder = Path(source) if source is not None else claims_folder()
    unreadable: list[InputError] = []
    known = load_claims(folder, broken=unreadable)
    if unreadable and not words:
        raise unreadable[0]
    for error in unreadable:
        output.say(f"left out: {error.what}", "yellow", err=True)
    chosen = select(known, words or [], smoke=smoke)
    few = [c.key for c in chosen if write and seeds is not None and seeds < c.seeds]
    if few:
        raise InputError(
            f"{few[0]} is recorded at its own number of seeds or more", mend="leave out --seeds or --write"
        )
    page = places(folder)[0] if write else None
    with output.progress("claims", len(chosen), quiet=json) as advance:
        # Each is recorded when it is done, so that what is broken off has not run for nothing.
        each = (lambda result: record([result], folder)) if write else None
        swept = write if sweep is None else sweep
        found = run_claims(chosen, seeds=seeds, jobs=jobs, sweep=swept, progress=advance, each=each)
    if json:
        output.emit_json({"claims": found, "page": str(page) if page else None})
    else:
        _claims.show(found)
        if page:
            output.say(f"recorded: {folder / 'results.jsonl'}; the page: {page}", "dim")
    if any(r.verdict == "broken" for r in found):
        raise typer.Exit(1)
