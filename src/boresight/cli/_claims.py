"""How results of claims look on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from boresight.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from boresight.lab.claimrun import Result

WIDE = 130
"""Columns from which a table leaves the words of claims room."""


def show(results: Sequence[Result]) -> None:
    """A table of results, or on a narrow terminal a block of lines for each, and how many there are of each verdict."""
    if output.console().width >= WIDE:
        _table(results)
    else:
        for r in results:
            _block(r)
    for r in results:
        if r.error:
            output.say(f"{r.key} raised {r.error}", "red")
        elif r.verdict == "broken":
            output.say(
                f"{r.key} is broken: its control holds, so that it finds differences where there are none", "red"
            )
    counts = Counter(r.verdict for r in results)
    total = sum(r.seconds for r in results)
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    output.say(f"{len(results)} claims: {told}; {total:.0f} s of computing.", "dim")


def _table(results: Sequence[Result]) -> None:
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    shown.add_column("claim", overflow="fold", ratio=3)
    shown.add_column("treatment", overflow="fold", ratio=1)
    shown.add_column("baseline", overflow="fold", ratio=1)
    shown.add_column("effect, 95% interval", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("control", overflow="fold", min_width=9)
    for number in ("seeds", "s"):
        shown.add_column(number, justify="right", no_wrap=True)
    for k, r in enumerate(results):
        shown.add_row(
            _joined([output.plain(r.key, "bold"), output.plain(r.says)]),
            output.plain(r.treatment),
            output.plain(r.baseline),
            _joined(
                [line for j in r.judged for line in (output.plain(f"{j.outcome}: {j.expects}", "dim"), _effect(j))]
            ),
            output.plain(r.verdict),
            output.plain(_control(r), "red" if _control(r) == "holds" else "none"),
            str(r.seeds),
            f"{r.seconds:.0f}",
            end_section=k + 1 < len(results),
        )
    output.show(shown)


def _block(r: Result) -> None:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    told = f"  control: {_control(r)} · {r.seeds} seeds · {r.seconds:.0f} s"
    head = Text.assemble(output.plain(r.key, "bold"), "  ", output.plain(r.verdict), (told, "dim"))
    exact = r.judged and r.judged[0].expects.startswith("within")
    arms = f"altered for the control: {r.baseline}" if exact else f"{r.treatment} against {r.baseline}"
    lines = [output.plain(r.says), output.plain(arms, "dim")]
    for j in r.judged:
        lines.append(Text.assemble(output.plain(f"{j.outcome}, {j.expects}: "), _effect(j), " "))
    output.show(Group(head, *(Padding(line, (0, 0, 0, 2)) for line in lines), Text("")))


def _control(r: Result) -> str:
    return str(r.control.get("verdict", "-"))


def _effect(j: Any) -> Text:
    if j.expects.startswith("within"):
        return output.plain(f"{j.effect:.3g}", output.COLOURS.get(j.verdict, ""))
    shown = f"{j.effect:+.3g} [{j.low:+.3g}, {j.high:+.3g}]"
    return output.plain(shown, output.COLOURS.get(j.verdict, ""))


def _joined(lines: list[Text]) -> Text:
    from rich.text import Text

    return Text("\n").join(lines)
