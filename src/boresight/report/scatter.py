"""Points with intervals in both directions, and names beside them that do not run into each other. Geometry only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from boresight.report.charts import ticks
from boresight.report.words import number

WIDTH, HEIGHT = 840, 430
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 16, 46
LETTER, LINE = 6.6, 14
"""Width of a letter and height of a line of a name, as the style sets it."""
RADIUS = 4.5


@dataclass(frozen=True)
class Spot:
    """A point to be drawn: its values, their intervals (None where there is none), a name and a class for its colour.

    joined: points of one such word are joined by a line, in order.
    """

    name: str
    tone: str
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    joined: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Placed:
    """A point in its place; bars are paths; the name's place is None where there was no room for it."""

    name: str
    tone: str
    x: float
    y: float
    bars: list[str]
    text: tuple[float, float, str] | None
    tip: str
    strong: bool


@dataclass(frozen=True)
class Scatter:
    """A picture ready to be drawn; hidden: names that had no room, which their points tell under the pointer."""

    title: str
    note: str
    x_title: str
    y_title: str
    points: list[Placed]
    lines: list[tuple[str, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    said: str
    hidden: list[str]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


Box = tuple[float, float, float, float]


def scatter(title: str, note: str, x_title: str, y_title: str, spots: Sequence[Spot]) -> Scatter | None:
    """Lay points out; None where there are fewer than two."""
    shown = [s for s in spots if isfinite(s.x) and isfinite(s.y)]
    if len(shown) < 2:
        return None
    x0, x1 = _range([v for s in shown for v in (s.x, s.x_low, s.x_high) if v is not None], [s.x for s in shown])
    y0, y1 = _range([v for s in shown for v in (s.y, s.y_low, s.y_high) if v is not None], [s.y for s in shown])

    def at_x(value: float) -> float:
        return round(LEFT + (min(max(value, x0), x1) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT), 1)

    def at_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (min(max(value, y0), y1) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    places = [(at_x(s.x), at_y(s.y)) for s in shown]
    names = _names([s.name for s in shown], places, [s.strong for s in shown])
    points = []
    for s, (x, y), text in zip(shown, places, names, strict=True):
        bars = []
        if s.x_low is not None and s.x_high is not None:
            bars.append(f"M{at_x(s.x_low)} {y}L{at_x(s.x_high)} {y}")
        if s.y_low is not None and s.y_high is not None:
            bars.append(f"M{x} {at_y(s.y_low)}L{x} {at_y(s.y_high)}")
        tip = f"{s.name}: {x_title} {number(s.x)}, {y_title} {number(s.y)}"
        points.append(Placed(s.name, s.tone, x, y, bars, text, tip, s.strong))
    joined: dict[str, list[int]] = {}
    for k, s in enumerate(shown):
        if s.joined:
            joined.setdefault(s.joined, []).append(k)
    lines = [
        (shown[of[0]].tone, "M" + "L".join(f"{places[k][0]} {places[k][1]}" for k in of))
        for of in joined.values()
        if len(of) > 1
    ]
    return Scatter(
        title,
        note,
        x_title,
        y_title,
        points,
        lines,
        [(at_x(v), number(v)) for v in ticks(x0, x1, 7)],
        [(at_y(v), number(v)) for v in ticks(y0, y1, 6)],
        "; ".join(p.tip for p in points),
        [p.name for p in points if p.text is None],
    )


def _range(values: Sequence[float], centres: Sequence[float]) -> tuple[float, float]:
    """What the axis shows: all points, and of their intervals no more than as much again on either side."""
    low, high = min(centres), max(centres)
    room = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-12)
    low, high = max(min(values), low - room), min(max(values), high + room)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _names(
    names: Sequence[str], places: Sequence[tuple[float, float]], strong: Sequence[bool]
) -> list[tuple[float, float, str] | None]:
    """Where each name stands, with its anchor: the first of some places about its point that is free."""
    taken: list[Box] = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in places]
    found: list[tuple[float, float, str] | None] = [None] * len(names)
    order = sorted(range(len(names)), key=lambda k: (not strong[k], places[k][0]))
    for k in order:
        (x, y), width = places[k], LETTER * len(names[k])
        for dx, dy, anchor in _ABOUT:
            left = x + dx if anchor == "start" else x + dx - width if anchor == "end" else x - width / 2
            box = (left, y + dy - LINE + 3, left + width, y + dy + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_meet(box, other) for other in taken):
                found[k] = (round(x + dx, 1), round(y + dy, 1), anchor)
                taken.append(box)
                break
    return found


_ABOUT = (
    (8, 4, "start"), (-8, 4, "end"), (0, -9, "middle"), (0, 18, "middle"), (8, -7, "start"), (8, 15, "start"),
    (-8, -7, "end"), (-8, 15, "end"), (0, -22, "middle"), (0, 31, "middle"), (14, -18, "start"), (14, 26, "start"),
    (-14, -18, "end"), (-14, 26, "end"),
)  # fmt: skip


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
