"""`boresight score`: what a model gives every response of a data set."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = (
    "Examples\n[bold]boresight score prefs.jsonl --model my-model[/bold]\n"
    "[bold]boresight score prefs.jsonl --model run --beta 0.1 --out rewards.jsonl[/bold]\n"
    "[bold]boresight score lists.jsonl --model my-model --reference base-model --per-token[/bold]\n"
    "[bold]boresight score prefs.jsonl --model my-reward-model --json[/bold]"
)


def score(
    data: Annotated[str, typer.Argument(help="A file, a saved datasets folder, or a hub name.")],
    model: Annotated[str, typer.Option(help="A model, a reward model, or the folder of an adapter or run.")],
    reference: Annotated[
        str | None, typer.Option(help="Model to compare with; base, none; a run knows its own.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder of an adapter to put on the model.")] = None,
    beta: Annotated[float | None, typer.Option(help="Write beta * log-ratio, the implicit reward, too.")] = None,
    out: Annotated[str, typer.Option(help="File of the scores, a line for each example.")] = "scores.jsonl",
    per_token: Annotated[bool, typer.Option("--per-token", help="Write the log-prob of each token too.")] = False,
    template: Annotated[str | None, typer.Option(help="auto, chat or plain; a run knows its own.")] = None,
    spans: Annotated[str | None, typer.Option(help="Assistant turns that are scored: last or all.")] = None,
    max_length: Annotated[int | None, typer.Option(min=2, help="Most tokens of prompt and response.")] = None,
    truncation: Annotated[
        str | None, typer.Option(help="Responses that are longer: drop, cut-prompt or cut-both.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Form of the data, if it is not to be told from its rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the data.")] = None,
    micro_tokens: Annotated[int, typer.Option(min=1, help="Tokens through the model at once.")] = 8192,
    dtype: Annotated[str, typer.Option(help="fp32, or bf16 for half the memory.")] = "fp32",
    store: Annotated[
        str | None, typer.Option(help="Folder that keeps what was computed; the cache if not given.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: the summary as JSON on stdout.")] = False,
) -> None:
    """Score every response of a data set: its log-prob under a model, or what a reward model gives it.

    Any form of data will do: pairs, lists, labels, single responses. The file has one line for each example, in the
    order of the data; the summary has means and, where there are preferences, how often the preferred response stands
    higher, with 95% intervals that take the responses of one prompt together.

    What was computed is kept: after an interruption the same call goes on where it was.
    """
    from boresight.cli import output
    from boresight.training.score import score as measure

    found = measure(
        data, model, reference=reference, adapter=adapter, beta=beta, out=out, per_token=per_token, template=template,
        spans=spans, max_length=max_length, truncation=truncation, format=format, limit=limit,
        micro_tokens=micro_tokens, dtype=dtype, store=store, quiet=quiet or json,
    )  # fmt: skip
    if json:
        output.emit_json(found)
        return
    output.measures(found, digits=4)
    count = f"{found.examples:,} examples, {found.responses:,} responses, {found.tokens:,} tokens"
    for line in [*found.words, f"{found.out}: {count}"]:
        output.say(line)
