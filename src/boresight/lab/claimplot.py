"""The picture of a claim: each seed's pair, the difference with its interval, and the sweep. From its record alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

BASELINE, TREATMENT, MUTED = "#8a6d3b", "#1f5fa8", "#6b7280"
VERDICTS = {"holds": "#1a7f37", "does not hold": "#c0392b", "undecided": "#8a6d00", "broken": "#c0392b"}
STYLE = {
    "svg.hashsalt": "boresight",
    "svg.fonttype": "none",  # text stays text: half the size, and it can be searched
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "figure.facecolor": "white",
    "axes.grid": False,
}


def draw(record: Mapping[str, Any], form: str = "svg") -> bytes:
    """The picture of one recorded claim as SVG (or PNG); the same bytes for the same record."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    settings: dict[Any, Any] = {**mpl.rcParamsDefault, "backend": "agg", **STYLE}
    with mpl.rc_context(settings):
        figure = _identity(plt, record) if record["control"]["tries"][0]["offset"] == 0 else _compared(plt, record)
        out = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(out, format=form, metadata=metadata, dpi=110)
        plt.close(figure)
    # Where that font is absent, one of the same widths.
    return out.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")


def _compared(plt: Any, record: Mapping[str, Any]) -> Any:
    """A column for each expectation: pairs and difference above, the sweep of each knob below."""
    judged, knobs = record["judged"], list(record["sweep"])
    columns, rows = len(judged), 1 + len(knobs)
    figure = plt.figure(figsize=(4.3 * columns + 0.4, 2.6 * rows + 0.5), layout="constrained")
    for k, part in enumerate(figure.subfigures(1, columns, wspace=0.04, squeeze=False)[0]):
        said = f"{judged[k]['outcome']}, {judged[k]['expects']}: {judged[k]['verdict']}"
        part.suptitle(_folded(said, 60), fontsize=9, color=VERDICTS[judged[k]["verdict"]])
        bands = part.subfigures(rows, 1, squeeze=False)[:, 0]
        axes = bands[0].subplots(1, 2, width_ratios=(1.7, 1))
        _pairs(axes[0], record, judged[k])
        _difference(axes[1], record, judged[k])
        for band, knob in zip(bands[1:], knobs, strict=True):
            _sweep(band.subplots(1, 1), knob, record["sweep"][knob], k)
    return figure


def _pairs(axis: Any, record: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    values = record["values"][judged["outcome"]]
    for first, second in zip(values["baseline"], values["treatment"], strict=True):
        axis.plot((0, 1), (first, second), color=MUTED, alpha=0.6, linewidth=1, zorder=1)
    axis.scatter([0] * len(values["baseline"]), values["baseline"], color=BASELINE, s=18, zorder=2)
    axis.scatter([1] * len(values["treatment"]), values["treatment"], color=TREATMENT, s=18, zorder=2)
    names = [_folded(record[arm], 20) for arm in ("baseline", "treatment")]
    axis.set(xlim=(-0.35, 1.35), ylabel=_folded(judged["outcome"], 30))
    axis.set_xticks((0, 1), names)


def _difference(axis: Any, record: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    values = record["values"][judged["outcome"]]
    apart = [t - b for t, b in zip(values["treatment"], values["baseline"], strict=True)]
    colour = VERDICTS[judged["verdict"]]
    axis.scatter([-0.12] * len(apart), apart, color=MUTED, s=10, alpha=0.7)
    error = [[judged["effect"] - judged["low"]], [judged["high"] - judged["effect"]]]
    axis.errorbar([0.12], [judged["effect"]], yerr=error, fmt="o", color=colour, capsize=4, markersize=5)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    _bounds(axis, judged["expects"])
    axis.set(xlim=(-0.6, 0.6), ylabel="difference", xlabel="of each seed,\nand 95% interval")
    axis.set_xticks([])


def _bounds(axis: Any, expects: str) -> None:
    """Broken lines at the bound that an expectation sets, where it is not 0."""
    kind, _, rest = expects.partition(" ")
    if rest:
        bound = float(rest.split()[-1])
        for line in {"more": (bound,), "less": (-bound,)}.get(kind, (-bound, bound)):
            axis.axhline(line, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))


def _sweep(axis: Any, knob: str, swept: Mapping[str, Any], k: int) -> None:
    points = swept["points"]
    values = [p["value"] for p in points]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    x = values if numbers else list(range(len(values)))
    found = [p["judged"][k] for p in points]
    axis.fill_between(x, [j["low"] for j in found], [j["high"] for j in found], color=TREATMENT, alpha=0.15, lw=0)
    axis.plot(x, [j["effect"] for j in found], color=TREATMENT, linewidth=1.2, zorder=1)
    axis.scatter(x, [j["effect"] for j in found], color=[VERDICTS[j["verdict"]] for j in found], s=22, zorder=2)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    _bounds(axis, found[0]["expects"])
    if numbers and min(x) > 0 and max(x) / min(x) >= 16:
        axis.set_xscale("log")
    axis.set_xticks(x, [_short(v) for v in values])
    axis.minorticks_off()
    if swept["default"] in values:
        axis.axvline(x[values.index(swept["default"])], color=MUTED, linewidth=0.8, linestyle=":")
    axis.set(xlabel=f"{knob} (dotted: {_short(swept['default'])}, as above)", ylabel="difference")


def _identity(plt: Any, record: Mapping[str, Any]) -> Any:
    """Residuals of each seed, exact and altered, on a logarithmic scale beside the tolerance."""
    figure, axis = plt.subplots(figsize=(4.7, 2.95), layout="constrained")
    values, (judged,) = record["values"]["residual"], record["judged"]
    tolerance = float(judged["expects"].split()[-1])
    least = min(tolerance, *(v for arm in values.values() for v in arm if v > 0)) / 10
    for place, (arm, colour) in enumerate((("treatment", TREATMENT), ("baseline", BASELINE))):
        axis.scatter(_side_by_side(place, values[arm]), [max(v, least) for v in values[arm]], color=colour, s=18)
    axis.axhline(tolerance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axis.annotate("tolerance", (1.45, tolerance), ha="right", va="bottom", color=MUTED)
    axis.set_yscale("log")
    axis.set(xlim=(-0.5, 1.5), ylabel="residual")
    axis.set_xticks((0, 1), [_folded(record[arm], 28) for arm in ("treatment", "baseline")])
    axis.set_title(judged["verdict"], color=VERDICTS[judged["verdict"]], loc="right")
    return figure


def _side_by_side(place: float, values: Sequence[float]) -> list[float]:
    return [place + (k - (len(values) - 1) / 2) * 0.03 for k in range(len(values))]


def _folded(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
