"""`boresight train`: a run, from a recipe or from words."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:
[bold]boresight train --method dpo --model my-model --data prefs.jsonl --out run beta=0.05 lr=1e-6[/bold]
[bold]boresight train recipe.yaml seed=1[/bold]
[bold]boresight train --resume --out run[/bold]"""


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE.yaml] [KEY=VALUE...]", help="A recipe, and options on top of it."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Objective: an id, or module.function of your own; or the id of a recipe.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to train: a folder or a hub name.")] = None,
    data: Annotated[str | None, typer.Option(help="Training data: a file, a folder, or a hub name.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Held-out data, looked at during the run.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run; never overwritten.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Train a model by any method and leave it in OUT/model, loadable by plain transformers or peft.

    Options are key=value words: max_steps, epochs, batch (over all devices), micro_tokens, lr, seed, dtype, adapter
    (lora), eval_every, save_every and more, and the method's own, such as beta. Every value that is used is printed
    at the start, with where it comes from. Then the run proves itself on a few of your rows, in seconds: a line that
    fails stops it (exit code 1) with the cause and the mend. max_steps=0 is this proof alone; proof=off leaves it out.
    """
    from boresight.catalogue.shipped import recipe_method
    from boresight.catalogue.shipped import recipes as shipped
    from boresight.cli import output
    from boresight.cli.options import parse_options
    from boresight.errors import InputError
    from boresight.training.distributed import is_main
    from boresight.training.train import train as run

    words = words or []
    recipes = [w for w in words if "=" not in w]
    if len(recipes) > 1:
        raise InputError(f"{recipes[1]!r} is a second recipe", mend="give one recipe; options are key=value words")
    options = parse_options(w for w in words if "=" in w)
    named = {"method": method, "model": model, "data": data, "eval_data": eval_data, "out": out}
    for key, value in named.items():
        if value is not None and key in options:
            raise InputError(f"{key} is given twice: --{key.replace('_', '-')} and {key}=", mend="give it once")
    options |= {k: v for k, v in named.items() if v is not None}
    path = shipped().get(str(options.get("method"))) if not recipes else None
    if path is not None and not (quiet or json):
        output.say(f"{path.stem} is a recipe that trains by {recipe_method(path)}: {path}", "dim", err=True)
    done = run(recipes[0] if recipes else None, resume=resume, quiet=quiet or json, **options)
    if not is_main():
        return  # of many processes one speaks
    if json:
        output.emit_json(done)
        return
    if not done.steps:
        proof = "its proof is above" if not quiet else f"its proof is in {done.folder / 'run.json'}"
        output.say(f"{done.method}: nothing was trained (max_steps=0); {proof}", "bold")
        return
    output.say(f"{done.method}: {done.steps} steps in {done.seconds:.0f} s; the model is in {done.model}", "bold")
    output.key_values("", sorted(done.metrics.items()))
    for alarm in done.alarms:
        output.say(alarm, "yellow")
    output.say(f"next: boresight evaluate {done.folder} --data HELD-OUT", "dim")
