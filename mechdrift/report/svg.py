"""Pictures as inline SVG: shapes with classes, which the style sheet of the report colours for light and dark."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from mechdrift.report.text import visible

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH = 360  # a phone's
TICKS = 4
NAMES = 80  # pixels below a picture for the names of its columns
LONGEST = 58  # characters across a picture
Bounds = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Scale:
    """From numbers to pixels."""

    low: float
    """The least number."""
    high: float
    """The greatest number."""
    start: float
    """Pixel of the least."""
    end: float
    """Pixel of the greatest."""

    def __call__(self, value: float) -> float:
        """The pixel of a number; beyond the scale its end."""
        inside = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * (inside - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """A few round numbers."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def scale(numbers: Iterable[float | None], start: float, end: float) -> Scale | None:
    """Around all of these; None where there is none, or they are too far apart to be drawn."""
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if not known:
        return None
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    # Numbers that floats can hardly tell apart, or whose distance is none, have no round numbers between them.
    fine = math.isfinite(high - low) and high - low > 1e-9 * max(abs(low), abs(high)) and high - low > 1e-300
    return Scale(low, high, start, end) if fine else None


class Drawing:
    """One picture, with a title and a description for those who do not see it."""

    def __init__(self, width: float, height: float, title: str, description: str = "") -> None:
        """Sizes in pixels."""
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:g} {height:g}",
                "width": f"{width:g}",
                "height": f"{height:g}",
                "role": "img",
                "aria-label": visible(f"{title}. {description}" if description else title),
            },
        )
        ElementTree.SubElement(self.root, "title").text = visible(title)
        if description:
            ElementTree.SubElement(self.root, "desc").text = visible(description)

    def shape(self, tag: str, kind: str, **numbers: float | str) -> ElementTree.Element:
        """A shape of a class; numbers are its attributes, `_` for `-`."""
        told = {
            name.replace("_", "-"): f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            for name, value in numbers.items()
        }
        return ElementTree.SubElement(self.root, tag, {"class": kind} | told)

    def line(self, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """A line."""
        self.shape("line", kind, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2))

    def rect(self, kind: str, x: float, y: float, width: float, height: float, **more: float | str) -> ElementTree.Element:
        """A rectangle."""
        return self.shape("rect", kind, x=float(x), y=float(y), width=float(width), height=float(height), **more)

    def text(self, words: str, x: float, y: float, anchor: str = "start", **more: float | str) -> None:
        """Words, without their middle where they are too long."""
        written = visible(words)
        if len(written) > LONGEST:
            written = f"{written[: LONGEST // 2]}\N{HORIZONTAL ELLIPSIS}{written[1 - LONGEST // 2 :]}"
        self.shape("text", "words", x=float(x), y=float(y), text_anchor=anchor, **more).text = written

    def below(self, words: str, x: float, y: float) -> None:
        """The name of a column, slanted, of at most the room that NAMES is; names differ at their ends."""
        written = visible(words)
        if len(written) > 16:
            written = f"\N{HORIZONTAL ELLIPSIS}{written[-15:]}"
        self.text(written, x, y, "end", transform=f"rotate(-50 {x:.1f} {y:.1f})")

    def mark(self, kind: str, place: int, x: float, y: float) -> None:
        """A small mark whose form goes with its place among kinds: colour alone tells some readers nothing."""
        if place % 3 == 0:
            self.shape("circle", kind, cx=float(x), cy=float(y), r=4.0)
        elif place % 3 == 1:
            self.rect(kind, x - 3.5, y - 3.5, 7, 7)
        else:
            self.shape("path", kind, d=f"M{x:.2f} {y - 4.5:.2f}l4.5 8h-9z")

    def markup(self) -> "Markup":
        """Safe to put into a page: every name and word is escaped."""
        from markupsafe import Markup

        return Markup(ElementTree.tostring(self.root, encoding="unicode"))  # noqa: S704, escaped by ElementTree


def up_axis(drawing: Drawing, of: Scale, left: float, right: float) -> None:
    """Lines across, with their numbers at the left."""
    for tick in of.ticks():
        drawing.line("grid", left, of(tick), right, of(tick))
        drawing.text(f"{tick:.6g}", left - 4, of(tick) + 4, "end")
