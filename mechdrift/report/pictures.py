"""The picture of a row, with its numbers as a table for those who do not see it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechdrift.findings.figures import Bars, Figure, HeatMap, Scatter
from mechdrift.report.svg import NAMES, WIDTH, Drawing, Scale, scale, up_axis
from mechdrift.report.text import interval, limit, number
from mechdrift.report.whole import Map
from mechdrift.verdict.row import JudgedRow

if TYPE_CHECKING:
    from markupsafe import Markup

LEFT, RIGHT = 52, WIDTH - 8
HEIGHT = 170
CELL = 22
STRIP = 150
MOST_NUMBERS = 2000  # of a picture's table: beyond them it would fill the page, and the file has them


@dataclass(frozen=True)
class Picture:
    """A drawing with what it shows."""

    drawing: "Markup"
    """Inline SVG."""
    caption: str
    """What is seen, in a sentence."""
    heads: tuple[str, ...]
    """Of the table of numbers."""
    lines: tuple[tuple[str, ...], ...]
    """Of the table of numbers; the first cell is the line's head."""


@dataclass(frozen=True)
class Point:
    """One point of a series."""

    name: str
    """Of its place."""
    estimate: float | None
    low: float | None
    high: float | None
    verdict: str = ""
    """Where it was judged."""


def bounds(row: JudgedRow) -> list[float]:
    """The ends of its limit."""
    return [bound for bound in (row.limit.at_least, row.limit.at_most) if bound is not None] if row.limit else []


def strip(row: JudgedRow) -> "Markup | None":
    """A row's interval against its limit and against no change, on a scale of its own."""
    ends = [row.estimate, row.low, row.high, row.null, *bounds(row)]
    if row.estimate is None or (across := scale(ends, 2, STRIP - 2)) is None:
        return None
    summary = f"{interval(row)}; limit {limit(row)}; no change {number(row.null)}"
    drawing = Drawing(STRIP, 20, f"Interval of {row.label}", summary)
    if row.limit:
        low, high = row.limit.at_least, row.limit.at_most
        start, end = across(across.low if low is None else low), across(across.high if high is None else high)
        drawing.rect("allowed", start, 3, max(end - start, 0), 14)
        for bound in bounds(row):
            drawing.line("limit", across(bound), 1, across(bound), 19)
    if row.null is not None:
        drawing.line("null", across(row.null), 3, across(row.null), 17)
    if row.low is not None and row.high is not None:
        drawing.line(f"range {row.verdict}", across(row.low), 10, across(row.high), 10)
    drawing.mark(f"point {row.verdict}", 0, across(row.estimate), 10)
    return drawing.markup()


def series(points: Sequence[Point], row: JudgedRow, title: str, where: str, marked: int | None = None) -> Picture | None:
    """Points in order with intervals, against the row's limit and no change; `marked` is pointed out."""
    ends = [end for point in points for end in (point.estimate, point.low, point.high)]
    up = scale([*ends, *bounds(row), row.null], HEIGHT - 10, 8)
    if up is None or all(point.estimate is None for point in points):
        return None
    caption = f"{title}: estimate and 90% interval by {where}"
    caption += f"; dashed: limit {limit(row)}" if row.limit else ""
    caption += f"; dotted: no change, {number(row.null)}" if row.null is not None else ""
    caption += f"; marked: {points[marked].name}" if marked is not None else ""
    drawing = Drawing(WIDTH, HEIGHT + NAMES, title, caption)
    up_axis(drawing, up, LEFT, RIGHT)
    for bound in bounds(row):
        drawing.line("limit", LEFT, up(bound), RIGHT, up(bound))
    if row.null is not None:
        drawing.line("null", LEFT, up(row.null), RIGHT, up(row.null))
    _points(drawing, points, up, marked)
    lines = tuple((one.name, number(one.estimate), number(one.low), number(one.high), one.verdict or "-") for one in points)
    return Picture(drawing.markup(), caption, (where, "estimate", "low", "high", "verdict"), lines)


def _points(drawing: Drawing, points: Sequence[Point], up: Scale, marked: int | None) -> None:
    width = (RIGHT - LEFT) / len(points)
    every = -(-len(points) * 14 // (RIGHT - LEFT))  # as many names as there is room for
    before: tuple[float, float] | None = None
    for place, point in enumerate(points):
        x = LEFT + width * (place + 0.5)
        if place % every == 0 or place == marked:
            drawing.below(point.name, x + 4, HEIGHT + 4)
        if point.estimate is None:
            before = None
            continue
        y = up(point.estimate)
        if before:
            drawing.line("path", *before, x, y)
        if point.low is not None and point.high is not None:
            drawing.line(f"range {point.verdict}", x, up(point.low), x, up(point.high))
        drawing.mark(f"point {point.verdict}", 0, x, y)
        if place == marked:
            drawing.shape("circle", "marked", cx=x, cy=y, r=8.0)
        before = (x, y)


def curve(row: JudgedRow) -> Picture | None:
    """The row's measure at every site."""
    points = [Point(one.site, one.estimate, one.low, one.high) for one in row.curve]
    return series(points, row, row.label, "site") if points else None


def maps_of(row: JudgedRow, maps: Sequence[Map]) -> Iterator[Picture]:
    """Each map, and where there are two of one shape, the second minus the first."""
    import numpy as np

    known = np.concatenate([one.values[np.isfinite(one.values)] for one in maps])
    for one in maps:
        yield heat_map(f"{row.label}: map of {one.name}", one.columns, one.values, "block", known)
    if len(maps) == 2 and maps[0].columns == maps[1].columns and maps[0].values.shape == maps[1].values.shape:
        first, second = maps
        title = f"{row.label}: {second.name} minus {first.name}"
        with np.errstate(all="ignore"):
            difference = second.values - first.values
        yield heat_map(title, first.columns, difference, "block")


def drawn(figure: Figure) -> Picture | None:
    """A family's figure; None where it has nothing to show."""
    match figure:
        case Bars():
            return bars(figure)
        case HeatMap():
            return heat_map(figure.title, figure.columns, figure.values, "block")
        case Scatter():
            return scatter(figure)


def heat_map(title: str, columns: Sequence[str], values: Any, where: str, beside: Any = None) -> Picture:
    """Positive and negative differ in colour and sign; the strongest colour is the largest number.

    values: [layer, column]; beside: finite numbers of all pictures that have the same colours, those of this one if not given.
    """
    import numpy as np

    known = values[np.isfinite(values)] if beside is None else beside
    largest = float(np.abs(known).max()) if known.size else 0.0
    from_zero = not known.size or float(known.min()) <= 0 or float(known.min()) < 0.5 * largest
    origin = 0.0 if from_zero else float(known.min())
    span = largest - origin or 1.0
    rows = len(values)
    cell = min(CELL, (WIDTH - 40) / max(len(columns), 1))
    caption = f"{title}, by {where} and column; the strongest colour is {largest:.3g}, none is {origin:.3g}"
    drawing = Drawing(WIDTH, 14 * rows + NAMES, title, caption)
    for layer in range(rows):
        if layer % -(-rows // 24) == 0:
            drawing.text(str(layer), 30, 14 * layer + 11, "end")
        for column in range(len(columns)):
            value = float(values[layer, column])
            if not np.isfinite(value):
                drawing.rect("unknown", 34 + cell * column, 14 * layer, cell - 1, 13)
                continue
            strength = (abs(value) - origin) / span
            kind = "more" if value >= 0 else "less"
            drawing.rect(kind, 34 + cell * column, 14 * layer, cell - 1, 13, fill_opacity=float(f"{strength:.2f}"))
    every = -(-11 // max(int(cell), 1))
    for column, name in enumerate(columns):
        if column % every == 0:
            drawing.below(name, 34 + cell * (column + 0.7), 14 * rows + 10)
    lines: tuple[tuple[str, ...], ...] = ()
    if values.size <= MOST_NUMBERS:
        lines = tuple((str(layer), *(_cell(float(value)) for value in values[layer])) for layer in range(rows))
    return Picture(drawing.markup(), caption, (where, *columns), lines)


def _cell(value: float) -> str:
    return f"{value:.4g}" if value == value else "-"


def scatter(figure: Scatter) -> Picture | None:
    """Each item's number in base and in post, by kind."""
    items = figure.items
    across = scale([item.base for item in items], LEFT, RIGHT)
    up = scale([item.post for item in items], HEIGHT - 10, 8)
    if not across or not up:
        return None
    kinds = sorted({item.kind for item in items})
    drawing = Drawing(WIDTH, HEIGHT + 22 + 16 * len(kinds), figure.title, f"{figure.caption}; {', '.join(kinds)}")
    up_axis(drawing, up, LEFT, RIGHT)
    for tick in across.ticks():
        drawing.text(f"{tick:.6g}", across(tick), HEIGHT + 6, "middle")
    for item in items:
        if item.base == item.base and item.post == item.post:
            place = kinds.index(item.kind)
            drawing.mark(f"point kind{place % 3}", place, across(item.base), up(item.post))
    for place, kind in enumerate(kinds):
        drawing.mark(f"point kind{place % 3}", place, LEFT + 6, HEIGHT + 20 + 16 * place)
        drawing.text(kind, LEFT + 16, HEIGHT + 24 + 16 * place)
    lines = tuple((item.name, item.kind, _cell(item.base), _cell(item.post)) for item in items)
    return Picture(drawing.markup(), figure.caption, (figure.what, "kind", "base", "post"), lines)


def bars(figure: Bars) -> Picture:
    """Shares by row and arm."""
    across = Scale(0, 1, 8, RIGHT - 46)
    drawing = Drawing(WIDTH, 34 * len(figure.bars) + 4, figure.title, figure.caption)
    for place, bar in enumerate(figure.bars):
        y = 34 * place
        drawing.text(f"{bar.name}: {bar.arm}", 8, y + 13)
        drawing.rect("rail", 8, y + 18, across(1) - 8, 10)
        drawing.rect("bar", 8, y + 18, across(bar.share) - 8, 10)
        drawing.text(number(bar.share), RIGHT, y + 27, "end")
    lines = tuple((bar.name, bar.what, bar.arm, number(bar.share)) for bar in figure.bars)
    return Picture(drawing.markup(), figure.caption, ("row", "share of", "arm", "share"), lines)
