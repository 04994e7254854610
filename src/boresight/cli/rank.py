"""`boresight rank`: systems in order of what votes say of them."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:
[bold]boresight rank votes.jsonl[/bold]
[bold]boresight rank votes.csv --by judge --html arena.html[/bold]
[bold]boresight rank human_votes.csv gpt4_votes.csv gpt3_votes.csv[/bold]  rankings of each, and how they agree
[bold]boresight rank votes.jsonl --against my-model[/bold]  each system less this one"""


def rank(
    votes: Annotated[
        list[str], typer.Argument(help="Votes between named systems: files, saved datasets folders, hub names.")
    ],
    by: Annotated[str | None, typer.Option(help="A ranking for each judge, annotator or domain as well.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A system that all are compared with; else each with the next.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the bootstrap; 0 for errors by formula alone.")] = 1000,
    cluster: Annotated[str, typer.Option(help="What is drawn in the bootstrap: prompt, item or vote.")] = "prompt",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    show: Annotated[int, typer.Option(min=1, help="Systems to list; the page and JSON have all.")] = 30,
    html: Annotated[str | None, typer.Option(help="Write the result here too, as one page.")] = None,
    format: Annotated[str | None, typer.Option(help="Form of the data, if it is not to be told from its rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the data.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Rank systems by pairwise votes, and say how far the order can be believed.

    Bradley-Terry strengths on the scale of Elo with 95% intervals that take the votes on one prompt together; the
    order by Elo, Newman, PageRank, win rate and eigenvector beside it; what the first place, length and style weigh,
    and the ranking with them held equal; judges that stand out and how far they agree; which systems are told apart,
    and how many more votes would tell the rest. Votes that cannot be used are counted; systems that votes do not
    connect, or that never lost or never won, are named. Several sources, or --by, give several rankings and their
    correlations. docs/rank.md explains every figure.
    """
    from boresight.cli import _rank, output
    from boresight.data.write import write_page
    from boresight.judging.rank import rank as run
    from boresight.report.arena import arena_page

    found = run(
        votes, by=by, rounds=rounds, cluster=cluster, against=against, format=format, limit=limit, seed=seed
    )  # fmt: skip
    if html:
        write_page(arena_page(found.told), html)
    if json:
        output.emit_json(found)
    else:
        _rank.show(found.told, show, against)
        if html:
            output.say(f"page: {html}", "bold", fold=False)
