"""`boresight compare`: methods side by side, fairly."""

from __future__ import annotations

from inspect import signature
from typing import Annotated

import typer

EXAMPLES = """Examples:
[bold]boresight compare --methods dpo,simpo,orpo --model my-model --data prefs.jsonl --out cmp lr=1e-6[/bold]
[bold]boresight compare --methods all-pairs --model m --data d.jsonl --eval-data e.jsonl --out cmp --seeds 5[/bold]
[bold]boresight compare --methods dpo,ipo --model m --data d.jsonl --out cmp --sweep beta=0.01,0.1,1[/bold]
[bold]boresight compare --out cmp[/bold]  goes on with one that was stopped"""


def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE...]", help="Options of all runs; METHOD.KEY=VALUE for one method alone."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Ids or module.function, by comma; all-pairs for all that need just pairs, less -ID."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model that every run starts from: a folder or a hub name.")] = None,
    data: Annotated[str | None, typer.Option(help="Training data: a file, a folder, or a hub name.")] = None,
    out: Annotated[str, typer.Option(help="Its folder; without methods, model and data it goes on.")] = "",
    eval_data: Annotated[str | None, typer.Option(help="Held-out pairs; a fifth of the prompts if left out.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each method at each setting; 5.")] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="OPTION=V,V,...: settings to try; several make a grid.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Method that others are compared with; the first.")] = None,
    gold: Annotated[
        str | None, typer.Option(help="module.function(prompts, responses) -> rewards; or lab, for its language.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="Held-out prompts to sample from; 64, 0 for none.")] = None,
    sample_tokens: Annotated[int | None, typer.Option(min=1, help="Longest sample in tokens; 64.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts sampled at once; 16.")] = None,
    write_doc: Annotated[
        str | None, typer.Option(help="Markdown file that takes tables and pictures between its marks.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Train methods on the same data with the same budget and seeds, and say in what they differ.

    Each method, setting and seed is an ordinary run below OUT/runs; what is finished is kept, so that a comparison
    that was stopped goes on. All are measured on held-out data: accuracy, also at equal length, gold reward where
    there is one, KL, length, likelihood, time and memory. Differences come with 95% intervals over seeds and prompts
    and are corrected for their number (Holm). OUT/compare.html shows it all, OUT/compare.json holds it. A method that
    needs what the data do not have is refused before anything is trained. It leaves with 1 if a run failed.
    """
    from boresight.cli import _compare, output
    from boresight.cli.options import parse_options
    from boresight.errors import InputError
    from boresight.report.comparison import write_page
    from boresight.report.comparison_doc import write_doc as doc
    from boresight.training.compare import compare as run

    options = parse_options(words or ())
    own = next((k for k in options if k in signature(run).parameters), None)
    if own is not None:
        flag = f"--{own.replace('_', '-')}"
        raise InputError(f"{own} is an option of the comparison, not of its runs", mend=f"write {flag} {options[own]}")
    found = run(
        methods,
        model,
        data,
        out,
        eval_data=eval_data,
        seeds=seeds,
        sweep=sweep or (),
        baseline=baseline,
        gold="boresight.lab.golden.reward" if gold == "lab" else gold,
        samples=samples,
        sample_tokens=sample_tokens,
        batch_size=batch_size,
        quiet=quiet or json,
        **options,
    )
    write_page(found.told, found.page)
    if write_doc is not None:
        doc(found.told, write_doc, found.folder.resolve().name)
    if json:
        output.emit_json(found)
    else:
        _compare.show(found)
    if found.failed:
        raise typer.Exit(1)
