"""`boresight demo`: the main job on a built-in world, in a few minutes."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = "Example: [bold]boresight demo --out demo[/bold]"


def demo(
    out: Annotated[str | None, typer.Option(help="New folder for data, runs and the report; demo if left out.")] = None,
    seed: Annotated[int, typer.Option(help="Decides data, order and samples.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """From noisy, length-biased preferences to aligned models, where the true reward is known.

    Pre-trains a tiny language model (cached), lets biased annotators compare its answers, trains DPO and two rivals on
    the same pairs with the same budget, and says what came of it: gold reward, win rate, KL, length, accuracy.
    """
    from boresight.cli import output
    from boresight.lab.demo import demo as run

    found = run(out, seed=seed, quiet=quiet or json)
    if json:
        output.emit_json(found)
        return
    output.table(
        "What came of it, with 95% intervals",
        ("model", "gold reward", "win rate", "KL", "words", "accuracy", "s"),
        [
            (r.name, *(_interval(i) for i in (r.gold, r.wins, r.kl, r.words, r.accuracy)), round(r.seconds) or None)
            for r in found.results
        ],
        keep=("model", "gold reward", "win rate", "KL", "words", "accuracy"),
    )
    output.say(
        "Win rate: gold reward against the base model's answer to the same prompt. KL: to the base model, nats an "
        "answer. Accuracy: of two held-out answers the truly better one gained more log-prob over the base model.\n",
        "dim",
    )
    for line in found.sentences:
        output.say(line)
    output.say(f"report: {found.report}", "bold", fold=False)
    output.say(f"plot: {found.plot}   runs: {found.folder}   {found.seconds:.0f} s in all", "dim")


def _interval(interval: object) -> str | None:
    from boresight.training.stats import Interval

    if not isinstance(interval, Interval):
        return None
    half = max(interval.high - interval.value, interval.value - interval.low)
    return f"{interval.value:.2f}±{half:.2f}"
