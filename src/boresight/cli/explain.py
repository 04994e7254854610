"""`boresight explain`: what do these preferences prefer?"""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:
[bold]boresight explain prefs.jsonl[/bold]
[bold]boresight explain prefs.jsonl --words --show 4 --html explain.html[/bold]
[bold]boresight explain human_votes.csv gpt4_votes.csv --by file[/bold]
[bold]boresight explain votes.jsonl --by annotator --json[/bold]
[bold]boresight explain prefs.jsonl --concepts concepts.txt --judge my_judges.ask[/bold]"""


def explain(
    data: Annotated[list[str], typer.Argument(help="Preferences, ranks or votes: files, folders, or hub names.")],
    by: Annotated[
        str | None, typer.Option(help="Set apart by: domain, annotator, group, user, prompt or file.")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Also which words go with preferred responses.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Pairs to show, with what decided them.")] = 0,
    pairs: Annotated[str | None, typer.Option(help="Write what decided each pair here, as JSON lines.")] = None,
    concepts: Annotated[str | None, typer.Option(help="A file of concepts, one a line: NAME: what is meant.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="module.function(question, prompt, first, second) -> 1, 0, -1: judges concepts.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the bootstrap over prompts; 0 for none.")] = 200,
    html: Annotated[str | None, typer.Option(help="Write the result here too, as one page.")] = None,
    format: Annotated[str | None, typer.Option(help="Form of the data, if it is not to be told from its rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each file.")] = None,
    seed: Annotated[int, typer.Option(help="Decides folds, bootstrap and turned pairs.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Say what preferences prefer, by features of the responses that are computed here and by nothing else.

    A regression on the differences of some thirty features (length, lists, hedges, overlap with the prompt, ...), with
    intervals, held-out log-loss beside that of length alone and of chance, and the features that decided each pair.
    What is said in sentences is corrected for everything that was looked at. With --by also what is shared and what is
    special; with --concepts and --judge also what a judge of yours says of each pair. docs/explain.md explains it all.
    """
    from boresight.cli import _explain, output
    from boresight.errors import InputError
    from boresight.judging.concepts_ask import read_concepts
    from boresight.judging.explain import explain as run
    from boresight.report.explanation import write_page

    if (concepts is None) != (judge is None):
        raise InputError("--concepts and --judge go together", mend="give both, or neither")
    with output.progress("examples looked at", None, quiet=quiet or json) as advance:
        found = run(
            data,
            by=by,
            concepts=read_concepts(concepts) if concepts else (),
            judge=_explain.judge(judge) if judge else None,
            with_words=words,
            show=show,
            rounds=rounds,
            format=format,
            limit=limit,
            seed=seed,
            advance=advance,
        )
    written = []
    if pairs:
        _explain.write_pairs(found, pairs)
        written.append(f"{pairs}: what decided each of {len(found.pairs):,} pairs")
    if html:
        write_page(found.told, html)
        written.append(f"{html}: this result as a page")
    if json:
        output.emit_json(found)
    else:
        _explain.show(found.told)
        for line in written:
            output.say(line)
