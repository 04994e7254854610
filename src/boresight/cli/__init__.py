"""The command line: one file per verb, without logic of its own.

A file `cli/VERB.py` that holds a function `VERB` is the verb: the function's signature gives its options, its
docstring the help, and `EXAMPLES` beside it (rich markup) the lines shown below it. Files are found, not listed. Verbs
import what they call when they are called, so that help comes at once.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

DEFECT = 70
"""Exit code of a failure that is Boresight's own fault."""
INTERRUPTED = 130
BROKEN_PIPE = 141

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0: success. 1: findings, or a failed verification. 2: input that cannot be used. 130: interrupted. 141: whoever
    read the output has gone. 70: a defect of Boresight's own. Errors go to stderr on one screen, or with --json to
    stdout as {"error": ..., "mend": ...}. With BORESIGHT_DEBUG=1 in the environment errors are raised, not printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a narrow encoding garbles a letter; it does not end a run
    try:
        code = _run(words or ["--help"])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Nothing more can be written, and Python would complain of that on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE


def _run(words: list[str]) -> int:
    import typer

    from boresight.cli import output
    from boresight.errors import BoresightError, InputError, nearest

    as_json = "--json" in words
    debug = os.environ.get("BORESIGHT_DEBUG", "") not in ("", "0")
    try:
        command = typer.main.get_command(app())
        known = getattr(command, "commands", {})
        if not words[0].startswith("-") and words[0] not in known:
            raise InputError(f"there is no verb {words[0]!r}", mend=nearest(words[0], known))
        with command.make_context("boresight", words) as context:
            command.invoke(context)
        return 0
    except typer.Exit as leave:
        return int(leave.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        output.console(err=True).print("Interrupted.")
        return INTERRUPTED
    except BoresightError as error:
        if debug:
            raise
        return output.fail(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        # How a verb was called: known by what such an error can do, as typer has its own copy of click's classes.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            near = getattr(error, "possibilities", None)
            path = " ".join(["boresight", *(w for w in words[:1] if not w.startswith("-"))])
            mend = f"did you mean {' or '.join(near)}?" if near else f"{path} --help shows how it is called"
            what = str(getattr(error, "message", "") if near else error.format_message())
            return output.fail(InputError(what.removesuffix("."), mend=mend), as_json=as_json)
        if debug:
            raise
        return output.defect(error, as_json=as_json)


def app() -> typer.Typer:
    """The whole command line as a typer application."""
    import typer
    from rich.markup import escape

    whole = typer.Typer(
        name="boresight",
        help="Align models to preferences, domains, experts and other representations.",
        epilog="To begin with\n[bold]boresight demo[/bold]\n[bold]boresight methods[/bold]\n"
        "[bold]boresight train --help[/bold]",
        add_completion=False,
        rich_markup_mode="rich",
        context_settings=SETTINGS,
    )
    # Without a callback, typer would turn a single verb into the whole program.
    whole.callback()(lambda: None)
    for name, function, examples in verbs():
        paragraphs = (inspect.getdoc(function) or "").split("\n\n")
        text = "\n\n".join(" ".join(p.split()) for p in paragraphs)
        whole.command(name.replace("_", "-"), help=escape(text), epilog=examples, context_settings=SETTINGS)(function)
    return whole


def verbs() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Name, function and examples of each verb, in alphabetical order."""
    for found in iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        function = getattr(module, found.name, None)
        if callable(function):
            yield found.name, function, getattr(module, "EXAMPLES", "")
