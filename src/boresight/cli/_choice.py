"""How a choice of methods looks on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boresight.cli import output

if TYPE_CHECKING:
    from boresight.catalogue.choosing import Choice, Suggestion
    from boresight.stats import Interval


def show(data: str, choice: Choice, limit: int | None) -> None:
    """What was measured, the methods with their reasons, and what cannot run."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from boresight.catalogue.choosing import FIGURES, RULES

    fired = {r.rule for s in choice.suggestions for r in s.reasons}
    used = {c.figure for rule in RULES if rule.id in fired for c in rule.when}
    figures = [(k, _told(v), FIGURES[k]) for k, v in choice.figures.items() if v.value or k in used]
    output.key_values(f"What was measured of {data}", figures)
    shown = choice.suggestions[:limit]
    if not shown:
        output.say("\nNo rule speaks for a method here.", "bold")
    else:
        rows = [(s.method, s.verdict, ", ".join(r.rule for r in s.reasons), _options(s)) for s in shown]
        output.say("")
        output.table("Methods that suit it, the best first", ("method", "claim", "because of", "set"), rows,
                     keep=("method",))  # fmt: skip
    if len(choice.suggestions) > len(shown):
        output.say(f"{len(choice.suggestions) - len(shown)} more.", "dim")
    for rule in dict.fromkeys(r.rule for s in shown for r in s.reasons):
        mine = [(s.method, r) for s in shown for r in s.reasons if r.rule == rule]
        head = Text.assemble(output.plain(rule, "bold"), ": ", output.plain(mine[0][1].words))
        lines = [Text.assemble((f"{id}: ", "dim"), output.plain(r.source, "dim")) for id, r in mine]
        output.show(Group(head, Padding(Group(*lines), (0, 0, 0, 2))))
    if choice.cannot:
        output.say("\nCannot be trained on it", "bold")
        output.key_values("", [(", ".join(ids[:3]) + (" ..." if len(ids) > 3 else ""), f"{why} ({len(ids)})")
                               for why, ids in choice.cannot.items()])  # fmt: skip
    output.say(
        "\nOrdered by how many rules speak for a method, then by the verdict on its claim: boresight methods --rules. "
        "To see which is best on your data: boresight compare.",
        "dim",
    )


def _options(suggestion: Suggestion) -> str:
    return " ".join(dict.fromkeys(r.options for r in suggestion.reasons if r.options))


def _told(figure: Interval) -> str:
    if figure.low == figure.high or figure.low == float("-inf"):
        return f"{figure.value:.3g}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def rules() -> None:
    """The table of rules."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from boresight.catalogue.choosing import FIGURES, RULES

    for rule in RULES:
        when = " and ".join(map(str, rule.when))
        head = Text.assemble(output.plain(rule.id, "bold"), "  if ", output.plain(when, "cyan"))
        lines = [
            output.plain(rule.reason),
            *(Text.assemble(f"{id}: ", output.plain(source, "dim")) for id, source in rule.methods.items()),
            output.plain(f"threshold: {rule.threshold}", "dim"),
        ]
        output.show(Group(head, Padding(Group(*lines), (0, 0, 0, 2))))
    output.say("")
    output.key_values("Figures", list(FIGURES.items()))


def table() -> list[dict[str, Any]]:
    """The rules for machines."""
    from boresight.catalogue.choosing import RULES

    return [
        {"id": r.id, "when": [str(c) for c in r.when], "methods": dict(r.methods), "reason": r.reason,
         "threshold": r.threshold, "options": dict(r.options or {})}
        for r in RULES
    ]  # fmt: skip
