"""Charts as geometry: numbers and words for the template that draws them, no markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isfinite, log10

from boresight.report.series import Curve, Point
from boresight.report.words import number

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 20, 10, 32
TIPS = 40
"""Points of a line that tell their value under the pointer."""


@dataclass(frozen=True)
class Line:
    """What is drawn for one curve: a class for its colour, paths broken where a value is missing, points with words."""

    label: str
    tone: str
    dashed: bool
    paths: list[str]
    band: str
    dots: list[tuple[float, float, str]]
    alone: bool


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn. note: what it shows, in a sentence. said: the same for those who cannot see it."""

    title: str
    note: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    area: str = ""
    said: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Drawn:
    """A curve with how it is to look."""

    label: str
    curve: Curve
    tone: str
    dashed: bool = False


@dataclass(frozen=True)
class Frame:
    """From values to places."""

    x0: float
    x1: float
    y0: float
    y1: float
    ticks: list[float] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Place of a step."""
        return round(LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Place of a value; the largest is at the top."""
        return round(HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM), 1)


def chart(
    title: str,
    note: str,
    drawn: Sequence[Drawn],
    *,
    marks: Sequence[tuple[float, str]] = (),
    between: tuple[Curve, Curve] | None = None,
) -> Chart | None:
    """Lay curves out. marks: values to mark by a line across, with a word. between: two curves to shade between.

    None where no curve has two finite points: a single figure is in the table already.
    """
    shown = [d for d in drawn if any(isfinite(y) for _, y in d.curve.points)]
    if not any(sum(isfinite(y) for _, y in d.curve.points) > 1 for d in shown):
        return None
    frame = _frame(shown, [v for v, _ in marks])
    lost = sum(d.curve.lost for d in shown)
    note += f" {lost:,} values were not finite and are left out." if lost else ""
    said = "; ".join(f"{d.label}: from {_told(d.curve.points[0])} to {_told(d.curve.points[-1])}" for d in shown)
    return Chart(
        title,
        note,
        [_line(d, frame) for d in shown],
        [(frame.x(v), number(v)) for v in ticks(frame.x0, frame.x1, 5, whole=True)],
        [(frame.y(v), number(v)) for v in frame.ticks],
        [(frame.y(v), word) for v, word in marks],
        _area(between, frame) if between else "",
        said,
    )


def _told(point: Point) -> str:
    return f"{number(point[1])} at step {number(point[0])}"


def _frame(drawn: Sequence[Drawn], marks: Sequence[float]) -> Frame:
    xs = [x for d in drawn for x, _ in d.curve.points]
    ys = [y for d in drawn for _, y in d.curve.points if isfinite(y)]
    ys += [v for d in drawn for _, low, high in d.curve.band for v in (low, high)] + list(marks)
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    # Numbers near the end of the range would overflow on the way to a place; no picture needs them.
    y0, y1 = max(y0, -1e300), min(y1, 1e300)
    if y1 - y0 < 1e-12 * max(abs(y0), abs(y1), 1e-300):
        y0, y1 = min(0.0, y0), max(0.0, y1) or 1.0  # a value that never moves is shown against 0
    marked = ticks(y0, y1, 5)
    room = 0.04 * (y1 - y0)
    return Frame(x0, x1 if x1 > x0 else x0 + 1, y0 - room, y1 + room, marked)


def ticks(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`: at most about + 1, in steps of 1, 2 or 5 times a power of ten."""
    size = 10 ** floor(log10((high - low) / about))
    step = next(m * size for m in (1, 2, 5, 10) if (high - low) / (m * size) <= about)
    if whole:
        step = max(1.0, step)
    first = ceil(low / step - 1e-9)
    found = [round(k * step, 12) if step > 1e-9 else k * step for k in range(first, first + about + 2)]
    return [v + 0.0 for v in found if v <= high + 1e-9 * step]


def _line(drawn: Drawn, frame: Frame) -> Line:
    pieces: list[list[Point]] = [[]]
    for x, y in drawn.curve.points:
        if isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    pieces = [p for p in pieces if p]
    points = [p for piece in pieces for p in piece]
    every = max(1, ceil(len(points) / TIPS))
    tipped = [p for k, p in enumerate(points) if k % every == 0 or k == len(points) - 1]
    of = f", mean of {drawn.curve.n} seeds" if drawn.curve.n > 1 else ""
    return Line(
        drawn.label,
        drawn.tone,
        drawn.dashed,
        [_path(p, frame) for p in pieces],
        _band(drawn.curve.band, frame),
        [(frame.x(x), frame.y(y), f"{drawn.label}{of}: {_told((x, y))}") for x, y in tipped],
        len(points) <= TIPS,
    )


def _path(points: Sequence[Point], frame: Frame) -> str:
    return "M" + "L".join(f"{frame.x(x)} {frame.y(y)}" for x, y in points)


def _band(band: Sequence[tuple[float, float, float]], frame: Frame) -> str:
    if not band:
        return ""
    there = [(x, high) for x, _, high in band]
    back = [(x, low) for x, low, _ in reversed(band)]
    return _path(there + back, frame) + "Z"


def _area(between: tuple[Curve, Curve], frame: Frame) -> str:
    above, below = ([p for p in c.points if isfinite(p[1])] for c in between)
    return _path(above + below[::-1], frame) + "Z" if above and below else ""
